"""What the watch of suppliers reads and keeps, as the system role, which sees every tenant's."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Final

import asyncpg

from maas.audit.public import Actor, AuditScope
from maas.model.application.provider_ports import SupplierAccount
from maas.model.application.provider_watch import WatchedProvider
from maas.model.application.trail import PROVIDER
from maas.model.domain.provider import ProviderNotFoundError
from maas.model.domain.provider_check import Finding
from maas.model.domain.provider_health import UNKNOWN, ProviderHealth
from maas.model.infrastructure.collection import Connection, EventWriter
from maas.model.infrastructure.provider_credentials import SealedCredentials
from maas.model.infrastructure.provider_queries import GET_ACCOUNT, open_account
from maas.shared.infrastructure.database import system_arguments
from maas.shared.infrastructure.settings import DatabaseSettings

UNHEALTHY_ACTION = "provider.unhealthy"
RECOVERED_ACTION = "provider.recovered"

_ALONE: Final = "SELECT pg_try_advisory_lock(hashtextextended('maas.provider.check', 0))"
_DUE: Final = """
    SELECT id, tenant_id FROM (
        SELECT p.id, p.tenant_id, h.checked_at, row_number() OVER (
            PARTITION BY p.tenant_id ORDER BY h.checked_at NULLS FIRST, p.id) AS turn
        FROM providers p LEFT JOIN provider_health h ON h.provider_id = p.id
        WHERE p.deleted_at IS NULL AND p.status = 'active'
          AND NOT tenant_has_status(p.tenant_id, 'suspended', 'deleted')
          AND (h.checked_at IS NULL OR h.checked_at < $1)) due
    ORDER BY turn, checked_at NULLS FIRST, id LIMIT $2
"""
_ACTIVE: Final = f"{GET_ACCOUNT} AND p.status = 'active'"
_FIND_HEALTH: Final = """
    SELECT status, outcome, since, checked_at, duration_ms, failures FROM provider_health
    WHERE provider_id = $1
"""
# What was deleted meanwhile is of no interest any more.
_KEEP_HEALTH: Final = """
    INSERT INTO provider_health
        (provider_id, tenant_id, status, outcome, since, checked_at, duration_ms, failures)
    SELECT p.id, p.tenant_id, $2, $3, $4, $5, $6, $7 FROM providers p
    WHERE p.id = $1 AND p.deleted_at IS NULL
    ON CONFLICT (provider_id) DO UPDATE SET
        status = excluded.status, outcome = excluded.outcome, since = excluded.since,
        checked_at = excluded.checked_at, duration_ms = excluded.duration_ms,
        failures = excluded.failures
    RETURNING provider_id
"""


class PostgresWatchLedger:
    """Checks run side by side, and share one connection in turns."""

    def __init__(
        self, connection: Connection, *, seals: SealedCredentials, events: EventWriter
    ) -> None:
        self._connection = connection
        self._seals = seals
        self._events = events
        self._turn = asyncio.Lock()

    async def list_due(self, *, checked_before: datetime, limit: int) -> Sequence[WatchedProvider]:
        async with self._turn:
            rows = await self._connection.fetch(_DUE, checked_before, limit)
        return [WatchedProvider(id=row["id"], tenant_id=row["tenant_id"]) for row in rows]

    async def get_account(self, provider: WatchedProvider) -> SupplierAccount:
        async with self._turn:
            row = await self._connection.fetchrow(_ACTIVE, provider.tenant_id, provider.id)
        if row is None:
            raise ProviderNotFoundError
        return open_account(row, self._seals)

    async def note(self, provider: WatchedProvider, finding: Finding, *, at: datetime) -> None:
        async with self._turn, self._connection.transaction():
            row = await self._connection.fetchrow(_FIND_HEALTH, provider.id)
            before = UNKNOWN if row is None else ProviderHealth(**row)
            after = before.after(finding.outcome, at=at, duration_ms=finding.duration_ms)
            is_kept = await self._connection.fetchval(
                _KEEP_HEALTH,
                provider.id,
                after.status,
                after.outcome,
                after.since,
                after.checked_at,
                after.duration_ms,
                after.failures,
            )
            scope = _scope_of(provider, before, after)
            if is_kept and scope is not None:
                await self._events.write(self._connection, [scope])


@asynccontextmanager
async def open_watch(
    settings: DatabaseSettings, *, seals: SealedCredentials, events: EventWriter
) -> AsyncIterator[PostgresWatchLedger | None]:
    """Connect for one run; `None` while another one is at it, which is let be."""
    connection = await asyncpg.connect(**system_arguments(settings))
    try:
        is_alone = await connection.fetchval(_ALONE)
        yield (PostgresWatchLedger(connection, seals=seals, events=events) if is_alone else None)
    finally:
        await connection.close()


def _scope_of(
    provider: WatchedProvider, before: ProviderHealth, after: ProviderHealth
) -> AuditScope | None:
    """Tell the trail of a provider that fell ill or recovered; not of the first that is known."""
    if after.status == before.status or (before.status, after.status) == ("unknown", "healthy"):
        return None
    action = UNHEALTHY_ACTION if after.status == "unhealthy" else RECOVERED_ACTION
    scope = AuditScope(action, tenant_id=provider.tenant_id)
    scope.actor = Actor("system", None, name="provider watch")
    scope.change(
        PROVIDER,
        provider.id,
        before={"health": before.status},
        after={"health": after.status, "outcome": after.outcome},
    )
    return scope
