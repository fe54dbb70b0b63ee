"""The event beside its change: one insert, in the transaction of the change."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Final, TypeAlias

import asyncpg
from asyncpg.pool import PoolConnectionProxy
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncSession

from maas.audit.application.events import EventComposer, QueuedEvent
from maas.audit.infrastructure.erasure_table import audit_erasures
from maas.audit.infrastructure.silence import SilentAudit
from maas.audit.infrastructure.stream import EventStream
from maas.audit.public import (
    AuditScope,
    AuditUnavailableError,
    ComposedEvent,
    current_scope,
    find_scope,
)
from maas.shared.domain.call import Call
from maas.shared.domain.ids import new_id
from maas.shared.infrastructure.database import Database

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]"

_INSERT = (
    "INSERT INTO audit_outbox (event_id, tenant_id, payload, personal, duration_ms) "
    "VALUES ($1, $2, $3, $4, $5)"
)
# Without a target, which a role that may only insert could not name.
_INSERT_NEW = f"{_INSERT} ON CONFLICT DO NOTHING"

KEEP_SECONDS: Final = 2.0
RETRY_AFTER: Final = timedelta(seconds=2)


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
        rows = [_values(event) for event in events]
        # In the driver's own spelling: every change writes one, and compiling costs as much again.
        await connection.exec_driver_sql(_INSERT, rows[0] if len(rows) == 1 else rows)
        forgotten = [person for each in (scope, *scope.rows) for person in each.forgotten]
        if forgotten:
            await connection.execute(
                upsert(audit_erasures).on_conflict_do_nothing(),
                [
                    {
                        "actor_id": person.id,
                        "names": list(person.names),
                        "emails": list(person.emails),
                    }
                    for person in forgotten
                ],
            )

        def announce() -> None:
            # Only here is the commit known to stand: after a failed one the scope, still
            # unwritten, records the failure.
            scope.is_written = True
            for event in events:
                self._stream.offer(event)

        return announce


class OutboxTrail:
    """The `Trail` of other contexts."""

    def __init__(self, *, composer: EventComposer, stream: EventStream, is_on: bool) -> None:
        self._composer = composer
        self._stream = stream
        self.is_on = is_on

    def compose(self, scope: AuditScope, call: Call) -> QueuedEvent:
        return self._composer.compose(scope, call)

    def offer(self, event: ComposedEvent) -> None:
        self._stream.offer(event)


class EventWriter:
    """Writes what no request did, such as a budget that is used up, where it was found."""

    def __init__(self, composer: EventComposer) -> None:
        self._composer = composer

    async def write(self, connection: Connection, scopes: Sequence[AuditScope]) -> None:
        """Insert an event a scope into whatever transaction the connection is in."""
        call = Call(request_id=new_id().hex, recorder=SilentAudit())
        await insert_events(connection, [self._composer.compose(each, call) for each in scopes])


async def insert_event(connection: Connection, event: QueuedEvent) -> None:
    """Insert an event into whatever transaction the connection is in."""
    await connection.execute(_INSERT, *_values(event))


async def keep_in_outbox(database: Database, *events: QueuedEvent) -> None:
    """Insert events that have no transaction in one of their own, within two seconds.

    Those that are there already stay as they are.

    Raises:
        AuditUnavailableError: PostgreSQL did not take them, or did and did not say so.
    """
    try:
        async with (
            asyncio.timeout(KEEP_SECONDS),
            database.reads.acquire(timeout=KEEP_SECONDS) as connection,
        ):
            await insert_events(connection, events)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as exc:
        raise AuditUnavailableError(retry_after=RETRY_AFTER) from exc


async def insert_events(connection: Connection, events: Sequence[QueuedEvent]) -> None:
    """Insert events, all or none, that may be there already."""
    await connection.executemany(_INSERT_NEW, [_values(event) for event in events])


def _values(event: QueuedEvent) -> tuple[object, ...]:
    return (
        event.id,
        event.tenant_id,
        event.payload,
        event.personal_json,
        event.duration_ms,
    )
