"""What a call costs: held before it is sent, booked after, with the event that is its receipt."""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from contextvars import Context
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

import structlog
from typing_extensions import override

from maas.audit.public import AuditScope, ComposedEvent, Trail, find_scope
from maas.inference.application.call_facts import (
    CALL,
    COMPLETED,
    Facts,
    facts_of_attempt,
    facts_of_call,
    facts_of_figures,
    facts_of_hold,
)
from maas.inference.application.ports import AttemptFacts, Charge, Metering
from maas.inference.application.replays import ReplayKey, Replays
from maas.inference.application.reports import CallEnd, CallReports
from maas.inference.domain.call import Ask, TokenCounts
from maas.inference.domain.charging import (
    DEFAULT_MOST_OUTPUT,
    figures_of,
    most_output_of,
    plan_hold,
    progress_of,
)
from maas.inference.domain.route import Route
from maas.shared.domain.call import Call, Outcome, current_call
from maas.shared.domain.errors import MaasError
from maas.user.public import (
    Amounts,
    AuditedAs,
    Budgets,
    HoldId,
    Payer,
    QuotaUnavailableError,
    UsageFigures,
)

log = structlog.get_logger(__name__)

LEASE: Final = timedelta(seconds=60)
"""So long after its process was killed a call is booked."""

RENEW_AFTER: Final = timedelta(seconds=20)
LOOK_SECONDS: Final = 5.0

GRACE: Final = timedelta(minutes=1)
"""Beyond the time-outs of all targets nobody can be at it any more, and the lease ends the call."""


@dataclass(slots=True)
class _OpenCall:
    """A call between its hold and its end. `renewed` and `ends_by` are of the meter's clock."""

    charge: Charge
    call: Call
    scope: AuditScope
    facts: Facts
    refusals: AuditScope | None
    renewed: float
    ends_by: float
    seen: TokenCounts = field(default_factory=TokenCounts)
    replay: ReplayKey | None = None


class Meter(Metering):
    """Knows the calls that are under way in this process, and renews their leases; `close` it."""

    def __init__(
        self,
        *,
        budgets: Budgets,
        trail: Trail,
        replays: Replays,
        default_output: int = DEFAULT_MOST_OUTPUT,
        reports: Sequence[CallReports] = (),
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._budgets = budgets
        self._trail = trail
        self._replays = replays
        self._default_output = default_output
        self._reports = reports
        self._now = now
        self._open: dict[HoldId, _OpenCall] = {}
        self._renewing: asyncio.Task[None] | None = None

    @override
    async def begin(
        self,
        *,
        payer: Payer,
        route: Route,
        ask: Ask,
        request_id: str,
        replay: ReplayKey | None = None,
    ) -> Charge:
        plan = plan_hold(ask, route, default_output=self._default_output)
        async with self._once(replay, request_id):
            opened = await self._hold(payer, route, ask, request_id, (plan.wanted, plan.least))
        opened.replay = replay
        if self._renewing is None:
            # It outlives the call that happens to be the first, and is no part of it.
            self._renewing = asyncio.create_task(
                self._renew_for_ever(), name="meter-leases", context=Context()
            )
        return opened.charge

    @override
    async def progress(self, charge: Charge, seen: TokenCounts) -> None:
        opened = self._open.get(charge.hold.id)
        # As long as nothing came, all of the answer may be under way, and may have to be paid.
        if opened is not None and (seen.output or seen.reasoning):
            if not opened.seen.total:
                # Told at the next look: if the process is killed, all of the hold is booked else.
                opened.renewed = -math.inf
            opened.seen = seen

    @override
    async def settle(
        self,
        charge: Charge,
        *,
        facts: AttemptFacts,
        counts: TokenCounts | None,
        seen: TokenCounts,
        outcome: Outcome,
        reason: str | None = None,
    ) -> None:
        if (opened := self._open.pop(charge.hold.id, None)) is None:
            # Somebody ended it before.
            return
        used = seen if counts is None else counts
        figures = figures_of(
            used,
            facts.target.price,
            is_billed=outcome == "success" or used.total > 0,
            provider=None if opened.facts["is_foreign"] else facts.target.origin.provider_name,
        )
        opened.facts |= facts_of_attempt(facts, is_foreign=bool(opened.facts["is_foreign"]))
        await self._book(opened, figures, outcome, reason, is_estimated=counts is None)
        if outcome != "success" and not (figures.tokens or figures.cost_nanos):
            await self._free(opened)

    @override
    async def release(self, charge: Charge) -> None:
        if (opened := self._open.pop(charge.hold.id, None)) is None:
            return
        if opened.refusals is not None:
            # What kept it from being sent is for the route's scope to tell.
            opened.refusals.is_written = False
        with _going_on("release", charge):
            await self._budgets.release(charge.hold)
        await self._free(opened)

    @override
    async def book_hit(
        self,
        *,
        payer: Payer,
        route: Route,
        ask: Ask,
        request_id: str,
        answer_of: str,
        replay: ReplayKey | None = None,
    ) -> None:
        price = next((each.price for each in route.targets if each.price is not None), None)
        figures = UsageFigures(currency=None if price is None else price.prices.currency)
        amounts = Amounts(currency=figures.currency)
        async with self._once(replay, request_id):
            opened = await self._hold(payer, route, ask, request_id, (amounts, amounts))
        del self._open[opened.charge.hold.id]
        opened.facts |= {"is_cache_hit": True, "answer_of": answer_of}
        await self._book(opened, figures, "success", None, is_estimated=False)

    async def close(self) -> None:
        """Stop renewing; whoever is not done by now is ended by its lease."""
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.wait([self._renewing])
            self._renewing = None

    async def renew(self) -> int:
        """Renew the leases that are due, all of them together; tell how many."""
        now = self._now()
        for hold_id, opened in list(self._open.items()):
            if now >= opened.ends_by:
                log.error("call_never_ended", request_id=opened.charge.request_id)
                del self._open[hold_id]
        due = [
            opened
            for opened in self._open.values()
            if now - opened.renewed >= RENEW_AFTER.total_seconds()
        ]
        results = await asyncio.gather(*map(self._renew, due), return_exceptions=True)
        for opened, result in zip(due, results, strict=True):
            # What failed stays due: a lease has not time for many more.
            if result is None:
                opened.renewed = now
        failures = [each for each in results if isinstance(each, Exception)]
        if failures:
            log.warning("leases_not_renewed", calls=len(failures), error=type(failures[0]).__name__)
        return len(due) - len(failures)

    @asynccontextmanager
    async def _once(self, replay: ReplayKey | None, request_id: str) -> AsyncIterator[None]:
        """Take a call's key for what the block sets aside, if it has one; else give it back."""
        if replay is None:
            yield
            return
        claiming = asyncio.ensure_future(self._replays.claim(replay, request_id=request_id))
        try:
            await asyncio.shield(claiming)
        except asyncio.CancelledError:
            # Whether it was taken is known soon; nobody is to find it taken for nothing.
            with suppress(MaasError):
                await claiming
                await asyncio.shield(self._replays.free(replay, request_id=request_id))
            raise
        try:
            yield
        except BaseException:
            # Also of a caller who left: the key is freed all the same.
            await asyncio.shield(self._replays.free(replay, request_id=request_id))
            raise

    async def _free(self, opened: _OpenCall) -> None:
        """Let a call that cost nothing be repeated under its key."""
        if opened.replay is not None:
            request_id = opened.charge.request_id
            await asyncio.shield(self._replays.free(opened.replay, request_id=request_id))

    async def _renew(self, opened: _OpenCall) -> None:
        hold = opened.charge.hold
        if opened.seen.total:
            await self._budgets.progress(hold, progress_of(opened.seen, opened.charge.route))
        else:
            # Nothing came yet, which is not to say that nothing is to be paid.
            await self._budgets.renew(hold)

    async def _renew_for_ever(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            await self.renew()

    async def _hold(
        self,
        payer: Payer,
        route: Route,
        ask: Ask,
        request_id: str,
        amounts: tuple[Amounts, Amounts],
    ) -> _OpenCall:
        """Set aside the first amounts, or what there is down to the second ones."""
        facts, now = facts_of_call(ask, route, payer), self._now()
        scope = AuditScope(COMPLETED, tenant_id=payer.tenant_id)
        hold = await self._budgets.reserve(
            payer,
            amounts[0],
            least=amounts[1],
            lease=LEASE,
            model=route.name,
            request_id=request_id,
            audited_as=self._audited_as(route, facts),
        )
        opened = _OpenCall(
            charge=Charge(
                hold=hold,
                payer=payer,
                route=route,
                ask=ask,
                request_id=request_id,
                most_output=most_output_of(ask, hold.granted),
            ),
            call=current_call(),
            scope=scope,
            facts={**facts, **facts_of_hold(hold)},
            refusals=find_scope(),
            renewed=now,
            ends_by=now + _longest(route).total_seconds(),
        )
        if opened.refusals is not None:
            opened.refusals.skip()
        self._open[hold.id] = opened
        return opened

    def _audited_as(self, route: Route, facts: Facts) -> AuditedAs | None:
        if not self._trail.is_on:
            return None
        return AuditedAs(
            action=COMPLETED, resource=CALL, resource_id=str(route.deployment_id), facts=facts
        )

    async def _book(
        self,
        opened: _OpenCall,
        figures: UsageFigures,
        outcome: Outcome,
        reason: str | None,
        *,
        is_estimated: bool,
    ) -> None:
        opened.facts |= facts_of_figures(figures, is_estimated=is_estimated)
        event = self._compose(opened, outcome, reason)
        self._report(opened, figures, outcome)
        with _going_on("settle", opened.charge):
            await self._budgets.settle(
                opened.charge.hold, figures, is_estimated=is_estimated, event=event
            )

    def _report(self, opened: _OpenCall, figures: UsageFigures, outcome: Outcome) -> None:
        first_byte = opened.facts.get("first_byte_ms")
        end = CallEnd(
            deployment_id=opened.charge.route.deployment_id,
            outcome=outcome,
            seconds=opened.scope.duration_ms / 1000,
            first_byte_seconds=first_byte / 1000 if isinstance(first_byte, int) else None,
            figures=figures,
            is_hit=bool(opened.facts.get("is_cache_hit")),
        )
        for each in self._reports:
            each.call_ended(end)

    def _compose(
        self, opened: _OpenCall, outcome: Outcome, reason: str | None
    ) -> ComposedEvent | None:
        if not self._trail.is_on:
            return None
        scope = opened.scope
        scope.outcome, scope.reason = outcome, reason
        opened.facts["duration_ms"] = scope.duration_ms
        scope.change(CALL, opened.charge.route.deployment_id, after=opened.facts)
        return self._trail.compose(scope, opened.call)


@contextmanager
def _going_on(act: str, charge: Charge) -> Iterator[None]:
    """Let the answer end: PostgreSQL is told once it is back, else the lease ends the call."""
    try:
        yield
    except QuotaUnavailableError:
        log.warning("call_booked_later", act=act, request_id=charge.request_id)


def _longest(route: Route) -> timedelta:
    """Tell how long a call can take, if it is sent to one target after the other."""
    limits = [target.limits for target in route.targets]
    return sum((each.queue_for + each.total for each in limits), GRACE)
