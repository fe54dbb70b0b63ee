"""Personal fields of those who are gone, erased as `maas_system`, slice by slice.

An erasure begins by taking the lock that every flush holds. Flushes that had not seen the request
are over by then, and every later one leaves such an actor's personal fields out, so that what is to
be erased cannot grow while it is.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

import asyncpg

from maas.audit.application.events import EventComposer
from maas.audit.application.flush import LogUnavailableError
from maas.audit.infrastructure.outbox import insert_event
from maas.audit.infrastructure.silence import SilentAudit
from maas.audit.public import Actor, AuditedResource, AuditScope
from maas.shared.domain.call import Call
from maas.shared.domain.ids import TenantId, new_id
from maas.shared.infrastructure.database import system_arguments
from maas.shared.infrastructure.settings import DatabaseSettings

ERASED_ACTION = "audit.personal_erased"
PERSON = AuditedResource("account", frozenset({"erased_events"}))

_BEGINNING: Final = (datetime.min.replace(tzinfo=UTC), UUID(int=0))

_NEXT: Final = """
    SELECT actor_id, reached_tenant_id, reached_at, reached_event_id FROM audit_erasures
    WHERE erased_at IS NULL ORDER BY requested_at LIMIT 1 FOR UPDATE SKIP LOCKED
"""
_WAIT_FOR_FLUSHES: Final = "SELECT seq FROM audit_head WHERE id = 1 FOR UPDATE"
# From tenant to tenant along the index, and not through all events of each.
_NEXT_TENANT: Final = """
    SELECT tenant_id FROM audit_log WHERE $1::uuid IS NULL OR tenant_id > $1
    ORDER BY tenant_id LIMIT 1
"""
_SLICE: Final = """
    SELECT occurred_at, event_id FROM audit_log
    WHERE tenant_id = $1 AND actor_id = $2 AND (occurred_at, event_id) > ($3, $4)
    ORDER BY occurred_at, event_id LIMIT $5
"""
_ERASE: Final = "DELETE FROM audit_personal WHERE event_id = ANY($1)"
_REACH: Final = """
    UPDATE audit_erasures SET reached_tenant_id = $2, reached_at = $3, reached_event_id = $4
    WHERE actor_id = $1
"""
_FINISH: Final = "UPDATE audit_erasures SET erased_at = clock_timestamp() WHERE actor_id = $1"


class PostgresPersonalFields:
    def __init__(
        self, connection: "asyncpg.Connection[asyncpg.Record]", *, composer: EventComposer
    ) -> None:
        self._connection = connection
        self._composer = composer

    async def erase_slice(self, limit: int) -> int | None:
        try:
            async with self._connection.transaction():
                erasure = await self._connection.fetchrow(_NEXT)
                return None if erasure is None else await self._go_on(erasure, limit)
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as exc:
            raise LogUnavailableError(type(exc).__name__) from exc

    async def _go_on(self, erasure: Any, limit: int) -> int:
        actor_id, tenant_id = erasure["actor_id"], erasure["reached_tenant_id"]
        if tenant_id is None:
            await self._connection.execute(_WAIT_FOR_FLUSHES)
            await self._turn_to_tenant_after(None, actor_id)
            return 0
        reached = (erasure["reached_at"], erasure["reached_event_id"])
        rows = await self._connection.fetch(_SLICE, tenant_id, actor_id, *reached, limit)
        done = await self._connection.execute(_ERASE, [row["event_id"] for row in rows])
        erased = int(done.rpartition(" ")[2])
        if erased:
            await self._record(actor_id, TenantId(tenant_id), erased)
        if len(rows) < limit:
            await self._turn_to_tenant_after(tenant_id, actor_id)
        else:
            last = rows[-1]
            await self._connection.execute(
                _REACH, actor_id, tenant_id, last["occurred_at"], last["event_id"]
            )
        return erased

    async def _turn_to_tenant_after(self, tenant_id: UUID | None, actor_id: UUID) -> None:
        following = await self._connection.fetchval(_NEXT_TENANT, tenant_id)
        if following is None:
            await self._connection.execute(_FINISH, actor_id)
        else:
            await self._connection.execute(_REACH, actor_id, following, *_BEGINNING)

    async def _record(self, actor_id: UUID, tenant_id: TenantId, erased: int) -> None:
        """Leave an event in the tenant whose log lost personal fields."""
        scope = AuditScope(ERASED_ACTION, tenant_id=tenant_id)
        scope.actor = Actor("system", None, name="erasure")
        scope.change(PERSON, actor_id, after={"erased_events": erased})
        call = Call(request_id=new_id().hex, recorder=SilentAudit())
        await insert_event(self._connection, self._composer.compose(scope, call))


@asynccontextmanager
async def open_personal_fields(
    settings: DatabaseSettings, *, composer: EventComposer
) -> AsyncIterator[PostgresPersonalFields]:
    """Connect for one run.

    Raises:
        LogUnavailableError: PostgreSQL does not answer.
    """
    try:
        connection = await asyncpg.connect(**system_arguments(settings))
    except (asyncpg.PostgresError, OSError, TimeoutError) as exc:
        raise LogUnavailableError(type(exc).__name__) from exc
    try:
        yield PostgresPersonalFields(connection, composer=composer)
    finally:
        await connection.close()
