"""PostgreSQL: the engine for use cases, the raw pool for hot reads, one source of options."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import asyncpg
from sqlalchemy import MetaData, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.orm import registry
from sqlalchemy.pool import QueuePool

from maas.shared.domain.ids import TenantId
from maas.shared.infrastructure.fair_pool import FairPool
from maas.shared.infrastructure.settings import DatabaseSettings
from maas.shared.infrastructure.transactions import BeginningConnection, forget_next_begin

PooledConnection: TypeAlias = "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"

APP_ROLE = "maas_app"
SYSTEM_ROLE = "maas_system"
TENANT_SETTING = "maas.tenant_id"

NAMING_CONVENTION = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}

mapper_registry = registry(metadata=MetaData(naming_convention=NAMING_CONVENTION))
"""Holds every context's tables, for imperative mapping and for `alembic check`."""


def asyncpg_arguments(settings: DatabaseSettings, *, url: str, role: str | None) -> dict[str, Any]:
    """Spell a SQLAlchemy URL as arguments of `asyncpg.connect`, time-outs and role included."""
    parsed: URL = make_url(url)
    server_settings = {
        "application_name": "maas",
        "statement_timeout": str(round(settings.statement_timeout_seconds * 1000)),
        "lock_timeout": str(round(settings.lock_timeout_seconds * 1000)),
        "idle_in_transaction_session_timeout": "30000",
        "timezone": "UTC",
    }
    if role is not None:
        server_settings["role"] = role
    host = parsed.query.get("host", parsed.host)
    port = parsed.query.get("port", parsed.port or 5432)
    arguments: dict[str, Any] = {
        "host": host,
        "port": int(port) if isinstance(port, str | int) else 5432,
        "user": parsed.username,
        "password": parsed.password,
        "database": parsed.database,
        "timeout": settings.pool_timeout_seconds + 3,
        "command_timeout": settings.statement_timeout_seconds + 1,
        "server_settings": server_settings,
    }
    if "ssl" in parsed.query or "sslmode" in parsed.query:
        arguments["ssl"] = parsed.query.get("ssl", parsed.query.get("sslmode"))
    if not settings.prepared_statements:
        arguments["statement_cache_size"] = 0
    return arguments


def app_arguments(settings: DatabaseSettings) -> dict[str, Any]:
    """Arguments to connect as the role that row-level security binds.

    With one URL given for everything, the connection steps down to that role by itself.
    """
    role = None if settings.owner_url else APP_ROLE
    return asyncpg_arguments(settings, url=settings.url.get_secret_value(), role=role)


def system_arguments(settings: DatabaseSettings) -> dict[str, Any]:
    """Arguments to connect as the role of the flush, which sees all tenants."""
    if settings.system_url:
        url, role = settings.system_url.get_secret_value(), None
    else:
        url, role = settings.url.get_secret_value(), SYSTEM_ROLE
    return asyncpg_arguments(settings, url=url, role=role)


def owner_arguments(settings: DatabaseSettings) -> dict[str, Any]:
    """Arguments to connect for migrations, without a limit on how long a statement may take."""
    url = (settings.owner_url or settings.url).get_secret_value()
    arguments = asyncpg_arguments(settings, url=url, role=None)
    arguments["command_timeout"] = None
    arguments["server_settings"]["statement_timeout"] = "0"
    return arguments


def spell_begin(tenant_id: TenantId, mode: str = "") -> str:
    """Spell the simple query that begins a transaction in which RLS shows this tenant."""
    # A UUID's text needs no quoting rules.
    return f"BEGIN{mode}; SET LOCAL {TENANT_SETTING} = '{tenant_id!s}'"


async def _leave_as_is(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    """Skip asyncpg's reset round trip: settings here are local to a transaction."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolUse:
    """How many of a pool's connections are held, how many are open and free, and the most."""

    used: int
    idle: int
    limit: int


class Database:
    """The application's two ways to PostgreSQL, both as `maas_app`.

    `engine` serves the units of work; `fetchrow` and `tenant` are the hot path: raw asyncpg, no ORM
    session, a tenth of the CPU.
    """

    def __init__(self, settings: DatabaseSettings) -> None:
        self._settings = settings
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None
        self._turns = asyncio.Semaphore(settings.read_pool_size)
        arguments = app_arguments(settings)

        async def connect() -> "asyncpg.Connection[asyncpg.Record]":
            return await asyncpg.connect(connection_class=BeginningConnection, **arguments)

        self.engine: AsyncEngine = create_async_engine(
            "postgresql+asyncpg://",
            async_creator=connect,
            pool_size=settings.pool_size,
            max_overflow=0,
            pool_timeout=settings.pool_timeout_seconds,
            pool_pre_ping=False,
            poolclass=FairPool,
            hide_parameters=True,
            pool_recycle=1800,
        )
        event.listen(self.engine.sync_engine, "checkin", forget_next_begin)

    async def open(self) -> None:
        """Make the pool of hot reads; connections are opened when first needed."""
        if self._pool is None:
            self._pool = await asyncpg.create_pool(
                min_size=0,
                max_size=self._settings.read_pool_size,
                max_inactive_connection_lifetime=300,
                reset=_leave_as_is,
                **app_arguments(self._settings),
            )

    async def close(self) -> None:
        if self._pool is not None:
            self._pool.terminate()
            self._pool = None
        await self.engine.dispose()

    @property
    def statement_timeout_seconds(self) -> float:
        """After so long the server ends a statement, whether anybody waits for it or not."""
        return self._settings.statement_timeout_seconds

    @property
    def reads(self) -> "asyncpg.Pool[asyncpg.Record]":
        """The pool of hot reads, for tables without a tenant."""
        if self._pool is None:
            message = "open() the database first"
            raise RuntimeError(message)
        return self._pool

    def pool_use(self) -> Mapping[str, PoolUse]:
        """Tell how full this process's pools are right now; asks no server."""
        uses = {}
        changes = self.engine.pool
        if isinstance(changes, QueuePool):
            uses["changes"] = PoolUse(
                used=changes.checkedout(),
                idle=changes.checkedin(),
                limit=self._settings.pool_size,
            )
        if self._pool is not None:
            idle = self._pool.get_idle_size()
            uses["reads"] = PoolUse(
                used=self._pool.get_size() - idle, idle=idle, limit=self._pool.get_max_size()
            )
        return uses

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[PooledConnection]:
        """Take a connection of the pool for an `async with` block.

        Raises:
            TimeoutError: none became free within the pool's time-out.
        """
        await self._take_turn()
        try:
            # A time-out costs asyncpg a task of its own, so it is set only where there is a wait.
            is_free = self.reads.get_idle_size() > 0
            timeout = None if is_free else self._settings.pool_timeout_seconds
            async with self.reads.acquire(timeout=timeout) as connection:
                try:
                    yield connection
                except asyncpg.InternalClientError:
                    # An error in the middle of a message put it out of step; the next would suffer.
                    connection.terminate()
                    raise
        finally:
            self._turns.release()

    async def _take_turn(self) -> None:
        """Wait in the order of arrival; asyncpg's own queue does not keep it."""
        if not self._turns.locked():
            await self._turns.acquire()
            return
        async with asyncio.timeout(self._settings.pool_timeout_seconds):
            await self._turns.acquire()

    async def fetchrow(self, query: str, *args: object) -> asyncpg.Record | None:
        """Read one row of a table that has no tenant."""
        async with self.acquire() as connection:
            row: asyncpg.Record | None = await connection.fetchrow(query, *args)
            return row

    @asynccontextmanager
    async def tenant(self, tenant_id: TenantId) -> AsyncIterator[PooledConnection]:
        """Open a read-only transaction in which row-level security shows this tenant.

        Costs two short round trips beside the caller's own statements.
        """
        async with self.acquire() as connection:
            await connection.execute(spell_begin(tenant_id, " READ ONLY"))
            try:
                yield connection
            finally:
                if not connection.is_closed():
                    await connection.execute("COMMIT")
