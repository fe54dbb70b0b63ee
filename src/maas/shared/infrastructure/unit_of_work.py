"""The unit of work: one transaction, one tenant, no change committed without its event."""

import re
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self

from sqlalchemy import Connection, Engine, event
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import Session

from maas.shared.domain.call import Call, current_call
from maas.shared.domain.ids import TenantId
from maas.shared.infrastructure.database import TENANT_SETTING, spell_begin
from maas.shared.infrastructure.transactions import begin_with

# For a transaction that has begun; before, its tenant goes along with BEGIN.
_ACT_IN = "SELECT set_config($1, $2, true)"
_CHANGED_IN = "maas_changed_in"
_COMMITTING = "maas_committing"
_CHANGING_WORD = re.compile(
    r"\b(?:INSERT|UPDATE|DELETE|MERGE|TRUNCATE|COPY|CALL|DO|CREATE|ALTER|DROP|GRANT|REVOKE)\b",
    re.IGNORECASE,
)
_ROW_LOCK = re.compile(r"\bFOR\s+(?:NO\s+KEY\s+)?UPDATE\b", re.IGNORECASE)


class AuditPort(Protocol):
    """Writes the open audit scope's event beside the change it is about."""

    def has_scope(self) -> bool: ...

    async def write(self, session: AsyncSession, call: Call) -> Callable[[], None]:
        """Insert the scope's event into the outbox, in the session's transaction.

        Returns what to call once the commit stands: it hands the event to the fast path and waits
        for nothing.
        """
        ...


class IdempotencyPort(Protocol):
    """Makes a repeated call answer as the first one did, within the same transaction."""

    async def begin(self, session: AsyncSession, call: Call) -> None:
        """Take the call's key, if it has one.

        Raises:
            ReplayedAnswer: the key was used before; it carries the first answer.
            ConflictError: the first call with this key is still running.
        """
        ...

    async def finish(self, session: AsyncSession, call: Call, result: object) -> None:
        """Keep the rendered answer under the call's key, if it has one."""
        ...


class UnauditedChangeError(RuntimeError):
    """A change was about to be committed with no audit scope open: a bug, never a user's fault."""


class SqlUnitOfWork:
    """One transaction; leave the block without `commit()` and nothing happened.

    Contexts subclass it and set their repositories up in `_open`. The tenant is the current call's
    unless one is given.
    """

    session: AsyncSession

    def __init__(
        self,
        engine: AsyncEngine,
        *,
        audit: AuditPort,
        idempotency: IdempotencyPort,
        tenant_id: TenantId | None = None,
    ) -> None:
        self._engine = engine
        self._audit = audit
        self._idempotency = idempotency
        self._tenant_id = tenant_id

    async def __aenter__(self) -> Self:
        call = current_call()
        self.session = AsyncSession(
            self._engine,
            sync_session_class=_GuardedSession,
            expire_on_commit=False,
            autoflush=False,
        )
        tenant_id = self._tenant_id or call.tenant_id
        try:
            if tenant_id is not None:
                await self.act_in(tenant_id)
            await self._idempotency.begin(self.session, call)
        except BaseException:
            await self.session.close()
            raise
        self._open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.session.close()

    def _open(self) -> None:
        """Make the repositories over `self.session`."""

    async def act_in(self, tenant_id: TenantId) -> None:
        """Let row-level security show this tenant for the rest of the transaction."""
        connection = await self.session.connection()
        if not begin_with(connection, spell_begin(tenant_id)):
            await connection.exec_driver_sql(_ACT_IN, (TENANT_SETTING, str(tenant_id)))

    async def _has_changed(self) -> bool:
        connection = (await self.session.connection()).sync_connection
        if connection is None:
            return False
        # A pooled connection keeps its notes, so the transaction is compared.
        transaction = connection.get_transaction()
        return transaction is not None and connection.info.get(_CHANGED_IN) is transaction

    async def commit(self, result: object = None) -> None:
        """Write the change, its audit event and its idempotent answer together, or none of them.

        `result` is what the route will render; it is kept if the call carries an Idempotency-Key.

        Raises:
            UnauditedChangeError: something changed and no audit scope is open.
        """
        call = current_call()
        await self.session.flush()
        announce = None
        if await self._has_changed():
            if not self._audit.has_scope():
                message = "refusing to commit a change without an audit scope; open one (@audited)"
                raise UnauditedChangeError(message)
            announce = await self._audit.write(self.session, call)
            await self._idempotency.finish(self.session, call, result)
        self.session.info[_COMMITTING] = True
        try:
            await self.session.commit()
        finally:
            self.session.info[_COMMITTING] = False
        if announce is not None:
            announce()


class _GuardedSession(Session):
    """A session that only its unit of work commits."""


@event.listens_for(_GuardedSession, "before_commit")
def _refuse_bare_commit(session: Session) -> None:
    if not session.info.get(_COMMITTING):
        message = "commit through the unit of work, which sees to the audit event"
        raise UnauditedChangeError(message)


@event.listens_for(Engine, "before_cursor_execute")
def _note_changes(
    connection: Connection,
    _cursor: object,
    statement: str,
    _parameters: object,
    _context: object,
    _executemany: object,
) -> None:
    """Note that this transaction may have changed something.

    It reads the SQL as it is sent, so it does not matter whether the ORM, Core, a CTE or text made
    it; values are parameters and never part of it. A word in a string would only make it careful.
    """
    if _CHANGING_WORD.search(_ROW_LOCK.sub("", statement)):
        connection.info[_CHANGED_IN] = connection.get_transaction()
