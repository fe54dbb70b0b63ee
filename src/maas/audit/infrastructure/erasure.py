"""Personal fields of those who are gone, erased as `maas_system`, slice by slice.

First those of what a person did, then those of what tells of them: by others, or by nobody who had
signed in. It is over once nothing waits any more that is older than the request.

An erasure begins by taking the lock that every flush holds. Flushes that had not seen the request
are over by then, and every later one leaves such an actor's personal fields out, so that what is to
be erased cannot grow while it is.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias
from uuid import UUID

import asyncpg

from maas.audit.application.events import EventComposer
from maas.audit.application.flush import LogUnavailableError
from maas.audit.infrastructure.named_people import (
    Called,
    blacken_dead_letters,
    find_named,
    note_erased,
)
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
    SELECT actor_id, requested_at, reached_tenant_id, reached_at, reached_event_id, names, emails
    FROM audit_erasures
    WHERE erased_at IS NULL AND actor_id <> ALL ($1)
    ORDER BY requested_at LIMIT 1 FOR UPDATE SKIP LOCKED
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
_FINISH: Final = """
    UPDATE audit_erasures SET erased_at = clock_timestamp(), names = NULL, emails = NULL
    WHERE actor_id = $1
"""
_IS_WAITING: Final = "SELECT EXISTS (SELECT FROM audit_outbox WHERE created_at <= $1)"
# No event is of the last of all ids, so that this tenant has none left to look at.
_NO_TENANT: Final = UUID(int=2**128 - 1)

Elsewhere: TypeAlias = Callable[[UUID, Sequence[str], Sequence[str]], Awaitable[None]]
"""Forgets a person, by id, names and e-mails, where others keep them; may be called again."""

Settled: TypeAlias = Callable[[datetime], Awaitable[bool]]
"""Tells whether nothing is on its way to the log that is older."""


async def forget_nowhere_else(_person: UUID, _names: Sequence[str], _emails: Sequence[str]) -> None:
    """Leave it at the trail."""


async def is_settled(_: datetime) -> bool:
    """Say that nothing is on its way, where there is no other way than the outbox."""
    return True


class PostgresPersonalFields:
    def __init__(
        self,
        connection: "asyncpg.Connection[asyncpg.Record]",
        *,
        composer: EventComposer,
        elsewhere: Elsewhere = forget_nowhere_else,
        settled: Settled = is_settled,
    ) -> None:
        self._connection = connection
        self._composer = composer
        self._elsewhere = elsewhere
        self._settled = settled
        # Those of whom something is on its way to the log: the next run looks at them again.
        self._waiting: list[UUID] = []

    async def erase_slice(self, limit: int) -> int | None:
        try:
            async with self._connection.transaction():
                erasure = await self._connection.fetchrow(_NEXT, self._waiting)
                return None if erasure is None else await self._go_on(erasure, limit)
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as exc:
            raise LogUnavailableError(type(exc).__name__) from exc

    async def _go_on(self, erasure: Any, limit: int) -> int:
        actor_id, tenant_id = erasure["actor_id"], erasure["reached_tenant_id"]
        if tenant_id is None:
            await self._connection.execute(_WAIT_FOR_FLUSHES)
            await self._turn_to_tenant_after(None, actor_id)
            return 0
        if tenant_id == _NO_TENANT:
            return await self._finish(erasure)
        reached = (erasure["reached_at"], erasure["reached_event_id"])
        rows = await self._connection.fetch(_SLICE, tenant_id, actor_id, *reached, limit)
        erased = await self._erase([row["event_id"] for row in rows])
        if len(rows) == limit:
            last = rows[-1]
            await self._connection.execute(
                _REACH, actor_id, tenant_id, last["occurred_at"], last["event_id"]
            )
        else:
            called = Called.of(erasure["names"], erasure["emails"])
            named = await find_named(self._connection, tenant_id, called, limit=limit)
            await note_erased(self._connection, named)
            erased += await self._erase(named)
            if len(named) < limit:
                await self._turn_to_tenant_after(tenant_id, actor_id)
        if erased:
            await self._record(actor_id, TenantId(tenant_id), erased)
        return erased

    async def _erase(self, event_ids: Sequence[UUID]) -> int:
        if not event_ids:
            return 0
        done = await self._connection.execute(_ERASE, event_ids)
        return int(done.rpartition(" ")[2])

    async def _turn_to_tenant_after(self, tenant_id: UUID | None, actor_id: UUID) -> None:
        following = await self._connection.fetchval(_NEXT_TENANT, tenant_id)
        await self._connection.execute(_REACH, actor_id, following or _NO_TENANT, *_BEGINNING)

    async def _finish(self, erasure: Any) -> int:
        """Forget what the person is called, last of all; others go first while something waits.

        Until then every flush leaves out the personal fields of events that tell of them.
        """
        names, emails, since = erasure["names"], erasure["emails"], erasure["requested_at"]
        if names or emails:
            is_waiting = await self._connection.fetchval(_IS_WAITING, since)
            if is_waiting or not await self._settled(since):
                self._waiting.append(erasure["actor_id"])
                return 0
            await blacken_dead_letters(self._connection, [*(names or ()), *(emails or ())])
        await self._elsewhere(erasure["actor_id"], names or (), emails or ())
        # A flush that has seen the names is over before they are gone.
        await self._connection.execute(_WAIT_FOR_FLUSHES)
        await self._connection.execute(_FINISH, erasure["actor_id"])
        return 0

    async def _record(self, actor_id: UUID, tenant_id: TenantId, erased: int) -> None:
        """Leave an event in the tenant whose log lost personal fields."""
        scope = AuditScope(ERASED_ACTION, tenant_id=tenant_id)
        scope.actor = Actor("system", None, name="erasure")
        scope.change(PERSON, actor_id, after={"erased_events": erased})
        call = Call(request_id=new_id().hex, recorder=SilentAudit())
        await insert_event(self._connection, self._composer.compose(scope, call))


@asynccontextmanager
async def open_personal_fields(
    settings: DatabaseSettings,
    *,
    composer: EventComposer,
    elsewhere: Elsewhere = forget_nowhere_else,
    settled: Settled = is_settled,
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
        yield PostgresPersonalFields(
            connection, composer=composer, elsewhere=elsewhere, settled=settled
        )
    finally:
        await connection.close()
