"""Holds whose lease has passed are settled, so that nothing stays held for a caller who is gone."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import asyncpg
import structlog

from maas.audit.public import Actor, AuditedResource, AuditScope, EventComposer
from maas.shared.domain.call import Call, Outcome
from maas.shared.domain.ids import AccountId, ApiKeyId, TenantId
from maas.shared.domain.principal import Principal
from maas.shared.infrastructure.database import Database
from maas.shared.infrastructure.settings import DatabaseSettings
from maas.user.infrastructure.quota_batches import CallBatches
from maas.user.infrastructure.quota_budgets import spell_event
from maas.user.public import exact

log = structlog.get_logger(__name__)

EXPIRED: Final = "SELECT * FROM quota_expired_holds($1, $2, $3, $4)"
SLICE: Final = 500
RUN_SECONDS: Final = 20.0
WORTH_SECONDS: Final = 5.0

MAX_FAILURES: Final = 100
"""Of one tenant in one run: whoever has more leaves the time to the others."""

LEASE_EXPIRED: Final = "lease-expired"

_BOOKED: Final = frozenset(
    {"hold_id", "held_at", "cost_nanos", "currency", "output_tokens", "is_estimated"}
)


class _NoRecorder:
    """Records nothing: the event goes with the settlement."""

    async def record(self, *, action: str, outcome: Outcome, reason: str | None = None) -> None: ...


async def expire_holds(settings: DatabaseSettings, *, events: EventComposer) -> int:
    """Settle what has expired to its last progress, else in full; tell how many holds that were.

    Two who do so at once settle each hold once.
    """
    database = Database(settings)
    await database.open()
    batches = CallBatches(database)
    try:
        return await _expire_for(database, batches, events, began=time.monotonic())
    finally:
        await batches.close()
        await database.close()


async def _expire_for(
    database: Database, batches: CallBatches, events: EventComposer, *, began: float
) -> int:
    expired = 0
    failures: Counter[UUID] = Counter()
    after: tuple[datetime | None, UUID | None] = None, None
    while time.monotonic() - began < RUN_SECONDS:
        async with database.acquire() as connection:
            skipped = [tenant for tenant, count in failures.items() if count >= MAX_FAILURES]
            found = await connection.fetch(EXPIRED, SLICE, *after, skipped)
        asks = [
            batches.ask(
                row["tenant_id"],
                {
                    "op": "expire",
                    "id": str(row["id"]),
                    "until": row["lease_until"].isoformat(),
                    **_event_of(row, events),
                },
                worth_seconds=WORTH_SECONDS,
                made=row["created_at"],
            )
            for row in found
        ]
        answers = await asyncio.gather(*(ask.future for ask in asks), return_exceptions=True)
        failed: list[BaseException] = []
        for row, answer in zip(found, answers, strict=True):
            if isinstance(answer, BaseException):
                failed.append(answer)
                failures[row["tenant_id"]] += 1
            elif answer is not None and answer["outcome"] == "done":
                expired += 1
        if failed:
            log.error("holds_not_expired", holds=len(failed), error=type(failed[0]).__name__)
        if len(found) < SLICE:
            break
        # What failed is still there, before whatever expired later.
        after = found[-1]["lease_until"], found[-1]["id"]
    if expired:
        log.info("holds_expired", holds=expired)
    return expired


def _event_of(hold: asyncpg.Record, events: EventComposer) -> dict[str, object]:
    """Make the event of a call whose process went, if it leaves one.

    It says what the ledger will: the progress, else all that was held, as output.
    """
    if hold["audited_as"] is None:
        return {}
    audited: Mapping[str, Any] = json.loads(hold["audited_as"])
    facts: dict[str, Any] = audited["facts"]
    payer = Principal(
        kind=hold["actor_kind"],
        account_id=AccountId(hold["account_id"]),
        tenant_id=TenantId(hold["tenant_id"]),
        username="",
        permissions=frozenset(),
        version=0,
        api_key_id=None if hold["api_key_id"] is None else ApiKeyId(hold["api_key_id"]),
    )
    call = Call(request_id=hold["request_id"], recorder=_NoRecorder())
    call.act_as(payer)
    scope = AuditScope(audited["action"], outcome="failure", reason=LEASE_EXPIRED)
    scope.actor = Actor(payer.kind, payer.account_id)
    scope.change(
        AuditedResource(audited["kind"], frozenset(facts) | _BOOKED),
        audited["id"],
        after={**facts, **_booked(hold)},
    )
    return spell_event(events.compose(scope, call))


def _booked(hold: asyncpg.Record) -> dict[str, Any]:
    tokens, cost = hold["progress_tokens"], hold["progress_cost_nanos"]
    return {
        "hold_id": str(hold["id"]),
        "held_at": hold["created_at"].isoformat(),
        "cost_nanos": exact(hold["cost_nanos"] if cost is None else cost),
        "currency": hold["currency"],
        "output_tokens": hold["tokens"] if tokens is None else tokens,
        "is_estimated": True,
    }
