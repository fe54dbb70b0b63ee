"""Budgets in PostgreSQL, the only truth of them; what is asked together is committed together."""

import asyncio
import json
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final, TypeAlias
from uuid import UUID

import asyncpg
import structlog
from typing_extensions import override

from maas.audit.public import ComposedEvent
from maas.shared.domain.ids import new_id
from maas.shared.infrastructure.database import Database
from maas.user.domain.quota import resets_at
from maas.user.infrastructure.quota_batches import (
    Ask,
    CallBatches,
    TooManyWaitingError,
    UnansweredError,
)
from maas.user.public import (
    Amounts,
    AuditedAs,
    BudgetCurrencyError,
    BudgetExceededError,
    Budgets,
    Hold,
    HoldId,
    Meter,
    Payer,
    QuotaExceededError,
    QuotaUnavailableError,
    Shortage,
    UsageFigures,
)

log = structlog.get_logger(__name__)

PATIENCE_SECONDS: Final = 1.9
"""How long a caller waits for PostgreSQL."""

INSISTENCE_SECONDS: Final = 60.0
"""For so long is sent again what must not be lost, whether anybody waits for it or not."""

MARGIN_SECONDS: Final = 1.0
"""So long after its time-out a statement that was given up on is done or undone."""

BOOK_STORAGE: Final = "SELECT quota_book_storage($1, $2, $3, $4, $5, $6, $7, $8, $9)"

LONGEST_LEASE: Final = timedelta(days=28)
"""The ledger has the month before this one at hand."""

HELD_WAIT: Final = timedelta(seconds=5)
"""When to ask again for what others may not use after all."""

MAX_TEXT: Final = 512
"""Of a name in the ledger; what PostgreSQL cannot keep would be refused when it is settled."""


Offer: TypeAlias = Callable[[ComposedEvent], None]


def leave_to_the_sweep(_: ComposedEvent) -> None:
    """Offer it to nobody: the sweep of the outbox finds it."""


class PostgresBudgets(Budgets):
    """The port; `close` it, so that what was settled last is sent.

    `offer` is told each event whose settlement is known to be committed.
    """

    def __init__(self, database: Database, *, offer: Offer = leave_to_the_sweep) -> None:
        self._database = database
        self._offer = offer
        self._batches = CallBatches(database)
        self._give_back_seconds = database.statement_timeout_seconds + MARGIN_SECONDS
        self._giving_back: dict[HoldId, tuple[Payer, asyncio.TimerHandle]] = {}

    async def close(self) -> None:
        for hold_id, (payer, timer) in list(self._giving_back.items()):
            timer.cancel()
            self._give_back(payer, hold_id)
        await self._batches.close()

    @override
    async def reserve(
        self,
        payer: Payer,
        wanted: Amounts,
        *,
        least: Amounts | None = None,
        lease: timedelta,
        model: str,
        request_id: str,
        audited_as: AuditedAs | None = None,
    ) -> Hold:
        _check_text(model=model, request_id=request_id)
        if not timedelta() < lease <= LONGEST_LEASE:
            message = f"a lease is longer than nothing, and at most {LONGEST_LEASE.days} days"
            raise ValueError(message)
        hold_id = HoldId(new_id())
        body: dict[str, object] = {
            "op": "reserve",
            "id": str(hold_id),
            **_whose(payer),
            "kind": payer.actor_kind,
            "model": model,
            "request": request_id,
            "lease": lease.total_seconds(),
            "requests": wanted.requests,
            "tokens": wanted.tokens,
            "cost": wanted.cost_nanos,
            "currency": wanted.currency,
            "storage": wanted.storage_bytes,
        }
        if least is not None:
            body |= _floor(wanted, least)
        if audited_as is not None:
            body["audited"] = _spell(audited_as)
        try:
            ask = self._batches.ask(
                payer.tenant_id, body, worth_seconds=PATIENCE_SECONDS, may_refuse=True
            )
        except TooManyWaitingError as exc:
            raise QuotaUnavailableError from exc
        try:
            row = await _answer_of(ask)
        except BaseException:
            ask.is_abandoned = True
            ask.future.add_done_callback(self._giver_back(ask, payer, hold_id))
            raise
        return _read(row, hold_id, payer, wanted, least or wanted)

    @override
    async def progress(self, hold: Hold, used: Amounts) -> None:
        if used.currency not in {None, hold.granted.currency}:
            message = "progress is told in the currency of the hold"
            raise ValueError(message)
        await self._insist(
            hold,
            {
                "op": "progress",
                "tokens": used.tokens,
                "cost": None if used.currency is None else used.cost_nanos,
                "storage": used.storage_bytes,
            },
            worth_seconds=PATIENCE_SECONDS,
        )

    @override
    async def renew(self, hold: Hold) -> None:
        await self._insist(hold, {"op": "progress"}, worth_seconds=PATIENCE_SECONDS)

    @override
    async def settle(
        self,
        hold: Hold,
        used: UsageFigures,
        *,
        is_estimated: bool = False,
        event: ComposedEvent | None = None,
    ) -> bool:
        if used.provider is not None:
            _check_text(provider=used.provider)
        row = await self._insist(
            hold,
            {
                "op": "settle",
                "input": used.input_tokens,
                "cached": used.cached_tokens,
                "output": used.output_tokens,
                "reasoning": used.reasoning_tokens,
                "cost": used.cost_nanos,
                "currency": used.currency,
                "storage": used.storage_bytes,
                "provider": used.provider,
                "estimated": is_estimated,
                **spell_event(event),
            },
            event=event,
        )
        if row is not None and row["outcome"] in {"late", "gone"}:
            # Booked as an estimate when it expired, or given back: the figures come too late.
            log.warning("hold_settled_too_late", hold_id=str(hold.id), found=row["outcome"])
            return False
        return True

    @override
    async def release(self, hold: Hold) -> None:
        await self._insist(hold, {"op": "release"})

    @override
    async def book_storage(
        self,
        payer: Payer,
        change: int,
        *,
        booking_id: UUID,
        at: datetime,
        label: str,
        request_id: str,
    ) -> None:
        _check_text(label=label, request_id=request_id)
        account, kind, key = payer.account_id, payer.actor_kind, payer.api_key_id
        try:
            async with asyncio.timeout(PATIENCE_SECONDS), self._database.acquire() as connection:
                await connection.execute(
                    BOOK_STORAGE,
                    *(payer.tenant_id, account, kind, key),
                    *(booking_id, at, change, label, request_id),
                )
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as exc:
            raise QuotaUnavailableError from exc

    async def _insist(
        self,
        hold: Hold,
        body: Mapping[str, object],
        *,
        worth_seconds: float = INSISTENCE_SECONDS,
        event: ComposedEvent | None = None,
    ) -> asyncpg.Record | None:
        """Have it done, also when whoever asked leaves; wait for it as long as a caller may."""
        ask = self._batches.ask(
            hold.payer.tenant_id,
            {**body, "id": str(hold.id), **_whose(hold.payer)},
            worth_seconds=worth_seconds,
            made=hold.created_at,
        )
        if event is not None:
            ask.future.add_done_callback(self._offerer(event))
        return await _answer_of(ask)

    def _offerer(
        self, event: ComposedEvent
    ) -> "Callable[[asyncio.Future[asyncpg.Record | None]], None]":
        """Offer an event once its settlement is known to be the one that counts."""

        def offer(future: "asyncio.Future[asyncpg.Record | None]") -> None:
            if future.exception() is None:
                row = future.result()
                if row is not None and row["outcome"] == "done":
                    self._offer(event)

        return offer

    def _giver_back(
        self, ask: Ask, payer: Payer, hold_id: HoldId
    ) -> "Callable[[asyncio.Future[asyncpg.Record | None]], None]":
        """Release what is granted to a caller who has left, as soon as it is known."""

        def give_back(future: "asyncio.Future[asyncpg.Record | None]") -> None:
            if future.exception() is None:
                row = future.result()
                if row is not None and row["outcome"] == "granted":
                    self._give_back(payer, hold_id)
            elif ask.is_unknown:
                timer = asyncio.get_running_loop().call_later(
                    self._give_back_seconds, self._give_back, payer, hold_id
                )
                self._giving_back[hold_id] = payer, timer

        return give_back

    def _give_back(self, payer: Payer, hold_id: HoldId) -> None:
        self._giving_back.pop(hold_id, None)
        self._batches.ask(
            payer.tenant_id,
            {"op": "release", "id": str(hold_id), **_whose(payer)},
            worth_seconds=INSISTENCE_SECONDS,
        )


def _check_text(**texts: str) -> None:
    for name, text in texts.items():
        is_kept = "\0" not in text and text.encode(errors="replace").decode() == text
        if not 0 < len(text) <= MAX_TEXT or not is_kept:
            message = f"{name} is text of 1 to {MAX_TEXT} characters, as PostgreSQL keeps it"
            raise ValueError(message)


def spell_event(event: ComposedEvent | None) -> dict[str, object]:
    """Spell an event for `quota_apply`, whose row is written with the settlement."""
    if event is None:
        return {}
    return {
        "event": {
            "id": str(event.id),
            "payload": event.payload.decode(),
            "personal": event.personal_json,
            "duration_ms": event.duration_ms,
        }
    }


def _meters(amounts: Amounts) -> Mapping[Meter, int]:
    return {
        "requests": amounts.requests,
        "tokens": amounts.tokens,
        "cost": amounts.cost_nanos,
        "storage": amounts.storage_bytes,
    }


def _spell(audited_as: AuditedAs) -> dict[str, object]:
    kept = audited_as.resource.fields
    return {
        "action": audited_as.action,
        "kind": audited_as.resource.kind,
        "id": audited_as.resource_id,
        "facts": {name: value for name, value in audited_as.facts.items() if name in kept},
    }


def _whose(payer: Payer) -> dict[str, object]:
    """Name whose balances are locked, which the hold tells only if it is there already."""
    key_id = payer.api_key_id
    return {"account": str(payer.account_id), "key": None if key_id is None else str(key_id)}


async def _answer_of(ask: Ask) -> asyncpg.Record | None:
    """Wait for the answer; whoever stops waiting ends nothing.

    Raises:
        QuotaUnavailableError: there is none in time.
    """
    # `asyncio.shield` within `asyncio.timeout` does the same, at three times the CPU.
    loop = asyncio.get_running_loop()
    told: asyncio.Future[asyncpg.Record | None] = loop.create_future()
    ask.future.add_done_callback(partial(_tell, told))
    timer = loop.call_later(PATIENCE_SECONDS, _give_up, told)
    try:
        return await told
    except (TimeoutError, UnansweredError, asyncpg.PostgresError) as exc:
        raise QuotaUnavailableError from exc
    finally:
        timer.cancel()


def _tell(
    told: "asyncio.Future[asyncpg.Record | None]", answer: "asyncio.Future[asyncpg.Record | None]"
) -> None:
    if told.done():
        return
    error = answer.exception()
    if error is None:
        told.set_result(answer.result())
    else:
        told.set_exception(error)


def _give_up(told: "asyncio.Future[asyncpg.Record | None]") -> None:
    if not told.done():
        told.set_exception(TimeoutError())


def _floor(wanted: Amounts, least: Amounts) -> dict[str, object]:
    pairs = (
        (least.requests, wanted.requests),
        (least.tokens, wanted.tokens),
        (least.cost_nanos, wanted.cost_nanos),
        (least.storage_bytes, wanted.storage_bytes),
    )
    if least.currency != wanted.currency or any(low > high for low, high in pairs):
        message = "the least lies within what is wanted, in its currency"
        raise ValueError(message)
    return {
        "least_requests": least.requests,
        "least_tokens": least.tokens,
        "least_cost": least.cost_nanos,
        "least_storage": least.storage_bytes,
    }


def _read(
    row: asyncpg.Record | None, hold_id: HoldId, payer: Payer, wanted: Amounts, least: Amounts
) -> Hold:
    outcome = None if row is None else row["outcome"]
    if row is None or outcome == "ended":
        raise QuotaUnavailableError
    if outcome == "currency":
        raise BudgetCurrencyError
    if outcome == "exceeded":
        raise _refusal(json.loads(row["shortage"]), least, at=row["created_at"])
    return Hold(
        id=hold_id,
        payer=payer,
        granted=Amounts(
            requests=row["requests"],
            tokens=row["tokens"],
            cost_nanos=row["cost_nanos"],
            currency=wanted.currency,
            storage_bytes=row["storage_bytes"],
        ),
        created_at=row["created_at"],
        lease_until=row["lease_until"],
    )


def _refusal(
    found: Mapping[str, Any], least: Amounts, *, at: datetime
) -> QuotaExceededError | BudgetExceededError:
    shortage = Shortage(
        **found,
        needed=_meters(least)[found["meter"]],
        resets_at=resets_at(found["period"], at),
    )
    needed = shortage.used + shortage.needed
    # Hardly any call uses all that was set aside for it.
    is_held = needed <= shortage.limit < needed + shortage.held
    if shortage.meter == "cost":
        return BudgetExceededError(shortage, retry_after=HELD_WAIT if is_held else None)
    wait = None if shortage.resets_at is None else shortage.resets_at - at
    if is_held:
        wait = HELD_WAIT
    return QuotaExceededError(shortage, retry_after=wait)
