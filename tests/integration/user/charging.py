"""Payers, quotas and calls, as the tests of budgets make and read them."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, TypeAlias
from uuid import UUID

import asyncpg

from maas.audit.wiring import build_event_composer
from maas.shared.domain.ids import DEFAULT_TENANT_ID, AccountId, ApiKeyId, TenantId, new_id
from maas.shared.infrastructure.clock import SystemClock
from maas.user.public import Amounts, Budgets, Hold, Payer

Superuser: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
LEASE = timedelta(minutes=5)
LOOK_SECONDS = 0.02
EVENTS = build_event_composer(SystemClock())


def make_payer(tenant_id: TenantId = DEFAULT_TENANT_ID) -> Payer:
    return Payer(
        tenant_id=tenant_id,
        account_id=AccountId(new_id()),
        actor_kind="account",
        api_key_id=ApiKeyId(new_id()),
    )


async def make_tenant(superuser: Superuser) -> TenantId:
    tenant_id = new_id()
    await superuser.execute(
        "INSERT INTO tenants (id, slug, name) VALUES ($1, $2, 'Another')",
        *(tenant_id, f"t-{tenant_id.hex[-12:]}"),
    )
    return TenantId(tenant_id)


async def limit(superuser: Superuser, subject: UUID, meter: str, amount: int, **parts: Any) -> UUID:
    """Set a quota with a plain insert: what follows from it, the database sees to."""
    tenant_id = parts.get("tenant_id", DEFAULT_TENANT_ID)
    quota_id = new_id()
    await superuser.execute(
        "INSERT INTO quotas (id, tenant_id, scope, subject_id, meter, period, currency,"
        " limit_amount, version, created_at, updated_at)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 1, now(), now())",
        *(quota_id, tenant_id),
        *(parts.get("scope", "tenant" if subject == tenant_id else "user"), subject, meter),
        parts.get("period", "total" if meter == "storage" else "month"),
        parts.get("currency", "USD" if meter == "cost" else None),
        amount,
    )
    return quota_id


async def reserve(budgets: Budgets, payer: Payer, wanted: Amounts, **more: Any) -> Hold:
    given = {"lease": LEASE, "model": "gemma", "request_id": "r1"}
    return await budgets.reserve(payer, wanted, **{**given, **more})


async def balance(superuser: Superuser, quota_id: UUID) -> tuple[int, int]:
    """Read what is settled and held in the newest period."""
    row = await superuser.fetchrow(
        "SELECT settled, held FROM quota_balances WHERE quota_id = $1"
        " ORDER BY period_start DESC LIMIT 1",
        quota_id,
    )
    assert row is not None
    return row["settled"], row["held"]


async def until(condition: Callable[[], Awaitable[bool]], *, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not await condition():
        assert time.monotonic() < deadline, "it did not come about in time"
        await asyncio.sleep(LOOK_SECONDS)


MISCOUNTED = """
SELECT q.id, q.meter, b.period_start, b.settled, b.held, u.used, h.held AS on_hold
FROM quotas q JOIN quota_balances b ON b.quota_id = q.id
CROSS JOIN LATERAL (
    SELECT coalesce(sum(CASE q.meter WHEN 'requests' THEN u.requests WHEN 'tokens'
        THEN u.input_tokens + u.output_tokens + u.reasoning_tokens WHEN 'storage'
        THEN u.storage_bytes ELSE CASE WHEN u.currency = q.currency THEN u.cost_nanos END END), 0)
        AS used
    FROM usage u WHERE q.subject_id IN (u.tenant_id, u.account_id, u.api_key_id)
        AND (q.period = 'total' OR date_trunc('month', u.at AT TIME ZONE 'UTC') = b.period_start)
) u
CROSS JOIN LATERAL (
    SELECT coalesce(sum(CASE q.meter WHEN 'requests' THEN h.requests WHEN 'tokens' THEN h.tokens
        WHEN 'storage' THEN h.storage_bytes
        ELSE CASE WHEN h.currency = q.currency THEN h.cost_nanos END END), 0) AS held
    FROM quota_holds h WHERE q.subject_id IN (h.tenant_id, h.account_id, h.api_key_id)
        AND (q.period = 'total' OR date_trunc('month', h.created_at AT TIME ZONE 'UTC')
            = b.period_start)
) h
WHERE (b.settled, b.held) IS DISTINCT FROM (u.used, h.held)
"""


async def miscounted(superuser: Superuser) -> list[dict[str, Any]]:
    """List balances that are not the sum of the ledger's rows and of the holds on them."""
    return [dict(row) for row in await superuser.fetch(MISCOUNTED)]
