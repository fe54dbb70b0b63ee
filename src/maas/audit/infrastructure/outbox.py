"""The event beside its change: one insert, in the transaction of the change."""

from collections.abc import Callable
from datetime import timedelta
from typing import TypeAlias

import asyncpg
from asyncpg.pool import PoolConnectionProxy
from sqlalchemy import insert
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncSession

from maas.audit.application.events import EventComposer, QueuedEvent
from maas.audit.infrastructure.erasure_table import audit_erasures
from maas.audit.infrastructure.stream import EventStream
from maas.audit.infrastructure.tables import audit_outbox
from maas.audit.public import current_scope, find_scope
from maas.shared.domain.call import Call
from maas.shared.domain.errors import UnavailableError
from maas.shared.infrastructure.database import Database

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]"

_INSERT = (
    "INSERT INTO audit_outbox (event_id, tenant_id, payload, personal, duration_ms) "
    "VALUES ($1, $2, $3, $4, $5)"
)


class AuditUnavailableError(UnavailableError):
    code = "audit-unavailable"
    title = "This cannot be recorded at the moment, so it was not done"


class OutboxAudit:
    """The `AuditPort` of the unit of work."""

    def __init__(self, *, composer: EventComposer, stream: EventStream) -> None:
        self._composer = composer
        self._stream = stream

    def has_scope(self) -> bool:
        return find_scope() is not None

    async def write(self, session: AsyncSession, call: Call) -> Callable[[], None]:
        """Insert the open scope's event, or one a row of it.

        A scope whose commit stands is not recorded again when it closes.
        """
        scope = current_scope()
        events = [self._composer.compose(each, call) for each in scope.rows or [scope]]
        connection = await session.connection()
        await connection.execute(
            insert(audit_outbox),
            [
                {
                    "event_id": event.id,
                    "tenant_id": event.tenant_id,
                    "payload": event.payload,
                    "personal": event.personal.to_mapping(),
                    "duration_ms": event.duration_ms,
                }
                for event in events
            ],
        )
        forgotten = [person for each in (scope, *scope.rows) for person in each.forgotten]
        if forgotten:
            await connection.execute(
                upsert(audit_erasures).on_conflict_do_nothing(),
                [{"actor_id": person} for person in forgotten],
            )

        def announce() -> None:
            # Only here is the commit known to stand: after a failed one the scope, still
            # unwritten, records the failure.
            scope.is_written = True
            for event in events:
                self._stream.offer(event)

        return announce


async def insert_event(connection: Connection, event: QueuedEvent) -> None:
    """Insert an event into whatever transaction the connection is in."""
    await connection.execute(
        _INSERT,
        event.id,
        event.tenant_id,
        event.payload,
        event.personal.to_json(),
        event.duration_ms,
    )


async def keep_in_outbox(database: Database, event: QueuedEvent) -> None:
    """Insert an event that has no transaction in one of its own.

    Raises:
        AuditUnavailableError: PostgreSQL did not take it.
    """
    try:
        async with database.reads.acquire(timeout=2) as connection:
            await insert_event(connection, event)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as exc:
        raise AuditUnavailableError(retry_after=timedelta(seconds=2)) from exc
