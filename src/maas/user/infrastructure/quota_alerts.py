"""What settling calls found reached goes to the trail: as the system role, each row once.

A row is deleted in the transaction that writes its event into the outbox, so whoever is killed
when, there is one event for what the settling transaction committed, and none for what it did not.
"""

from collections.abc import Sequence
from typing import Final, Protocol

import asyncpg

from maas.audit.public import Actor, AuditedResource, AuditScope
from maas.shared.domain.ids import TenantId
from maas.shared.infrastructure.database import system_arguments
from maas.shared.infrastructure.settings import DatabaseSettings
from maas.user.public import exact

REACHED_ACTION = "quota.reached"
BATCH: Final = 500

_FIELDS: Final = frozenset(
    {
        "scope",
        "meter",
        "period",
        "period_start",
        "currency",
        "limit",
        "used",
        "share",
        "is_overrun",
    }
)

_LOCK: Final = "SELECT pg_try_advisory_xact_lock(hashtextextended('maas.quota_alerts', 0))"
_TAKE: Final = """
    WITH told AS (
        DELETE FROM quota_alerts WHERE id IN (
            SELECT id FROM quota_alerts ORDER BY created_at, id LIMIT $1)
        RETURNING *
    )
    SELECT t.*, EXISTS (
        SELECT FROM service_accounts s WHERE s.tenant_id = t.tenant_id AND s.id = t.subject_id
    ) AS is_program
    FROM told t ORDER BY t.created_at, t.quota_id, t.threshold
"""


class EventWriter(Protocol):
    """Writes what nobody's request did into the outbox, in the connection's transaction."""

    async def write(
        self, connection: "asyncpg.Connection[asyncpg.Record]", scopes: Sequence[AuditScope]
    ) -> None: ...


async def tell_reached(settings: DatabaseSettings, *, events: EventWriter) -> int:
    """Write an event for each share of a quota that was reached; return how many.

    It leaves them to whoever is about it already.
    """
    connection = await asyncpg.connect(**system_arguments(settings))
    told = 0
    try:
        while True:
            async with connection.transaction():
                if not await connection.fetchval(_LOCK):
                    return told
                rows = await connection.fetch(_TAKE, BATCH)
                if rows:
                    await events.write(connection, [_scope_of(row) for row in rows])
            told += len(rows)
            if len(rows) < BATCH:
                return told
    finally:
        await connection.close()


def _scope_of(row: asyncpg.Record) -> AuditScope:
    scope = AuditScope(REACHED_ACTION, tenant_id=TenantId(row["tenant_id"]))
    scope.actor = Actor("system", None, name="budgets")
    scope.change(
        AuditedResource(_kind_of(row), _FIELDS),
        row["subject_id"],
        after={
            "scope": row["scope"],
            "meter": row["meter"],
            "period": row["period"],
            "period_start": row["period_start"].isoformat(),
            "currency": row["currency"],
            "limit": exact(row["limit_amount"]),
            "used": exact(row["settled"]),
            "share": row["threshold"],
            "is_overrun": row["is_overrun"],
        },
    )
    return scope


def _kind_of(row: asyncpg.Record) -> str:
    """Name the subject as `quota.set` does, so that a search for one finds the other."""
    if row["scope"] == "user":
        return "service_account" if row["is_program"] else "account"
    return "api_key" if row["scope"] == "key" else "tenant"
