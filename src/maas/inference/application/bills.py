"""A call under way, and what is owed for it: settled or given back, whatever becomes of it."""

import asyncio
from collections.abc import Coroutine, Mapping
from datetime import timedelta
from typing import Any, Final

import structlog

from maas.inference.application.ports import (
    AttemptFacts,
    Charge,
    Metering,
    NoteSending,
    Unanswered,
)
from maas.inference.domain.call import TokenCounts
from maas.inference.domain.charging import most_output_at
from maas.inference.domain.route import RouteTarget
from maas.inference.domain.shares import Shares
from maas.inference.domain.wire import Told, Wire, WireStream
from maas.model.public import Protocol
from maas.shared.domain.call import Outcome
from maas.shared.domain.errors import MaasError, UnavailableError
from maas.shared.domain.ids import TenantId

TELL_SECONDS: Final = 5.0
"""So often the meter is told what has come: what a lease that runs out is booked by."""

CLOSE_SECONDS: Final = 5.0

MOST_HELD_BYTES: Final = 512 * 1024 * 1024
"""Of answers that this process keeps in memory until they are whole."""

CLIENT_LEFT: Final = "client-left"
BROKEN_HERE: Final = "internal-error"

log = structlog.get_logger(__name__)


class TooManyCallsError(UnavailableError):
    code = "too-many-calls"
    title = "Too many calls are under way here at this moment"

    def __init__(self) -> None:
        super().__init__(
            "This server, or what of it there is for your tenant, has all the calls it can take.",
            retry_after=timedelta(seconds=1),
        )


class Bill:
    """One call's charge until it is settled or released; nothing of it is done twice."""

    __slots__ = (
        "_bytes",
        "_ending",
        "_held",
        "_meter",
        "_on_sending",
        "_wires",
        "charge",
        "facts",
        "stream",
        "told",
        "unanswered",
    )

    def __init__(
        self,
        charge: Charge,
        meter: Metering,
        wires: Mapping[Protocol, Wire],
        on_sending: NoteSending,
        held: Shares,
    ) -> None:
        self.charge = charge
        self.unanswered: Unanswered | None = None
        self.facts: AttemptFacts | None = None
        self.stream: WireStream | None = None
        self.told: Told | None = None
        self._meter = meter
        self._wires = wires
        self._on_sending = on_sending
        self._held = held
        self._bytes = 0
        self._ending: tuple[Outcome, str | None] | None = None

    def spell(self, target: RouteTarget) -> bytes:
        """Write the request for a target."""
        charge = self.charge
        return self._wires[target.endpoint.protocol].spell(
            charge.ask,
            target.endpoint,
            most_output=most_output_at(target, charge.ask, charge.most_output),
        )

    @property
    def tenant_id(self) -> TenantId:
        return self.charge.payer.tenant_id

    def note_sending(self, *, is_under_way: bool) -> None:
        self._on_sending(is_under_way=is_under_way)

    def note_end(self, unanswered: Unanswered | None) -> None:
        self.unanswered = unanswered

    def hold(self, size: int) -> None:
        """Count what is kept in memory of the answer, until `let_go`.

        Raises:
            TooManyCallsError: there is no room for it.
        """
        if not self._held.take(self.charge.payer.tenant_id, size):
            raise TooManyCallsError
        self._bytes += size

    def let_go(self) -> None:
        if self._bytes:
            self._held.give_back(self.charge.payer.tenant_id, self._bytes)
            self._bytes = 0

    @property
    def counts(self) -> TokenCounts | None:
        source = self.stream or self.told
        return None if source is None else source.counts

    @property
    def seen(self) -> TokenCounts:
        """Estimate what came: without an answer the prompt, which was read at least."""
        source = self.stream or self.told
        if source is not None:
            return source.seen
        return TokenCounts(input=self.charge.ask.likely_input)

    async def progress(self) -> None:
        await self._meter.progress(self.charge, self.seen)

    async def settle(self, outcome: Outcome, reason: str | None = None) -> None:
        """Book it, under the upstream's own counts if it told any."""
        facts, counts = self.facts, self.counts
        if facts is None:
            await self._meter.release(self.charge)
            return
        self._ending = (outcome, reason)
        await self._meter.settle(
            self.charge,
            facts=facts,
            counts=counts,
            seen=self.seen if counts is None else counts,
            outcome=outcome,
            reason=reason,
        )

    async def settle_unanswered(self, facts: AttemptFacts | None, reason: str) -> None:
        """Book a call that nobody answered: nothing but that it was made, if it was sent."""
        if facts is None:
            await self._meter.release(self.charge)
            return
        self.facts = facts
        self._ending = ("failure", reason)
        await self._meter.settle(
            self.charge,
            facts=facts,
            counts=None,
            seen=TokenCounts(),
            outcome="failure",
            reason=reason,
        )

    async def break_off(self, reason: str) -> None:
        """Book a call whose answer came to nothing, or to no end: what was passed on, if any was.

        A prompt that nobody counted is not paid for nothing.
        """
        stream = self.stream
        if self.counts is not None or (stream is not None and _has_output(stream.seen)):
            await self.settle("failure", reason)
        else:
            await self.settle_unanswered(self.facts, reason)

    async def abandon(self, reason: str) -> None:
        """Book what came of a call that was cut short on our side, or by the caller.

        One that was being settled is settled as it was. Nothing is owed where nobody was at it.
        """
        if self.facts is None and self.unanswered is not None:
            if self.unanswered.has_failed:
                await self.settle_unanswered(self.unanswered.facts, reason)
                return
            self.facts = self.unanswered.facts
        await self.settle(*(self._ending or ("failure", reason)))


def _has_output(seen: TokenCounts) -> bool:
    return seen.output + seen.reasoning > 0


class Bills:
    """All calls under way in this process; `close` it, so that none is left to its lease.

    Calls that go on without their caller have a place as well.
    """

    def __init__(self, meter: Metering, wires: Mapping[Protocol, Wire], *, most: int) -> None:
        self._meter = meter
        self._wires = wires
        self._places = Shares(most)
        self._held = Shares(MOST_HELD_BYTES)
        self._open = set[Bill]()
        self._endings = set[asyncio.Task[None]]()
        self._telling: asyncio.Task[None] | None = None

    def take_place(self, tenant_id: TenantId) -> None:
        """Refuse a call while as many are under way as there may be of one tenant, and in all.

        Raises:
            TooManyCallsError: they are.
        """
        if not self._places.take(tenant_id):
            raise TooManyCallsError

    def leave_place(self, tenant_id: TenantId) -> None:
        self._places.give_back(tenant_id)

    def open(self, charge: Charge, *, on_sending: NoteSending) -> Bill:
        """Keep the meter told of a call from now on, until `close_bill`."""
        bill = Bill(charge, self._meter, self._wires, on_sending, self._held)
        self._open.add(bill)
        if self._telling is None:
            self._telling = asyncio.create_task(self._tell_for_ever(), name="bills")
        return bill

    def close_bill(self, bill: Bill) -> None:
        """Forget a call that has ended, and the place that was taken for it."""
        bill.let_go()
        self.leave_place(bill.charge.payer.tenant_id)
        self._open.discard(bill)

    def abandon(self, bill: Bill, reason: str) -> None:
        """Settle in the background what nobody waits for any more."""
        self._run(bill.abandon(reason))

    async def close(self) -> None:
        if self._telling is not None:
            self._telling.cancel()
            await asyncio.wait([self._telling])
        if self._endings:
            await asyncio.wait(self._endings, timeout=CLOSE_SECONDS)

    def _run(self, ending: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(_quietly(ending))
        self._endings.add(task)
        task.add_done_callback(self._endings.discard)

    async def _tell_for_ever(self) -> None:
        while True:
            await asyncio.sleep(TELL_SECONDS)
            for bill in [bill for bill in self._open if bill.stream is not None]:
                await bill.progress()


async def _quietly(ending: Coroutine[Any, Any, None]) -> None:
    """Leave to the lease what could not be booked; the meter goes on trying until then."""
    try:
        await ending
    except MaasError as exc:
        log.warning("call_not_settled_yet", code=exc.code)
    except Exception:
        # Nobody awaits this task: unsaid, a fault of ours would show as expired leases alone.
        log.exception("call_not_settled")
