"""Restoring the database: into an empty one, as its owner, and whole or recognisably not."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import asyncpg
from sqlalchemy.ext.asyncio import create_async_engine

from maas.audit.public import Actor, AuditScope
from maas.audit.wiring import build_event_writer
from maas.backup.errors import BackupError, NotEmptyError
from maas.backup.manifest import BACKUP, Manifest
from maas.backup.snapshot import Connection, count_rows, patient_arguments
from maas.backup.tools import Tool, connection_environment, run_tool
from maas.model.infrastructure.collection import HELD
from maas.shared.domain.ids import DEFAULT_TENANT_ID
from maas.shared.infrastructure.clock import SystemClock
from maas.shared.infrastructure.database import owner_arguments, system_arguments
from maas.shared.infrastructure.migrations import RESTORING_TABLE, migrate
from maas.shared.infrastructure.roles import OWNER_ROLE, RolesMissingError, ensure_roles
from maas.shared.infrastructure.settings import DatabaseSettings

RESTORED_ACTION = "system.restored"
RESUMED_ACTION = "system.collection_resumed"

# Policies come last of all: under them its own owner could not check foreign keys.
_LAST: Final = (" POLICY ", " ROW SECURITY ")
# Made by whoever made the database, and by the roles' set-up.
_THERE: Final = (" SCHEMA - public ", " ACL - SCHEMA public ", " COMMENT - ")
# Its row says which tables there are: as long as it is missing, nobody takes this for a platform.
_MARK: Final = " TABLE DATA public alembic_version "

# Each of some two thousand statements commits by itself. None has to be on the disk before the last
# commit of all, which waits for everything before it.
_LAZY: Final = {"PGOPTIONS": "-c synchronous_commit=off"}

_ANYTHING: Final = """
    SELECT c.relname FROM pg_class c
    WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm', 'S')
      AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e')
    ORDER BY 1 LIMIT 3
"""
_END_SESSIONS: Final = """
    UPDATE sessions SET revoked_at = clock_timestamp(), revoked_reason = 'restored'
    WHERE revoked_at IS NULL
"""
# A link that was used since is gone from the table, and would open again.
_END_LINKS: Final = "DELETE FROM link_tokens"
_END_INVITATIONS: Final = """
    UPDATE invitations SET revoked_at = clock_timestamp()
    WHERE accepted_at IS NULL AND revoked_at IS NULL AND expires_at > clock_timestamp()
"""
_HOLD: Final = """
    INSERT INTO collection_progress (name, after, began_at) VALUES ($1, '', clock_timestamp())
    ON CONFLICT (name) DO UPDATE SET began_at = excluded.began_at
"""
_RESUME: Final = "DELETE FROM collection_progress WHERE name = $1 RETURNING name"
_IS_OPEN: Final = "SELECT has_database_privilege('public', current_database(), 'CONNECT')"
_KEYS: Final = """
    SELECT k.prefix, k.name, t.slug AS tenant, k.last_used_at FROM api_keys k
    JOIN tenants t ON t.id = k.tenant_id
    WHERE k.expires_at > clock_timestamp() ORDER BY k.last_used_at DESC NULLS LAST, k.id
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class LivingKey:
    """An API key that opens again: it may have been revoked after the backup was taken."""

    prefix: str
    name: str
    tenant: str
    last_used_at: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """What would have lived again, and was ended."""

    sessions: int = 0
    links: int = 0
    invitations: int = 0


async def ask_server(settings: DatabaseSettings) -> int:
    """Tell the server's major release, if the database is empty.

    Raises:
        NotEmptyError: something is in it.
        BackupError: it does not let the owner in.
    """
    try:
        connection = await asyncpg.connect(**owner_arguments(settings))
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as exc:
        raise BackupError(f"the database cannot be reached: {exc}") from None
    try:
        found = [row["relname"] for row in await connection.fetch(_ANYTHING)]
        name = await connection.fetchval("SELECT current_database()")
        number = int(await connection.fetchval("SHOW server_version_num"))
    finally:
        await connection.close()
    if found:
        raise NotEmptyError(
            f"the database {name} is not empty (it has {', '.join(found)}, ...), and nothing is "
            "overwritten: give an empty one, or drop it and create it anew"
        )
    return number // 10_000


async def make_roles(settings: DatabaseSettings) -> None:
    """Make the three roles where they are missing.

    Raises:
        BackupError: we may not; says what an administrator has to run.
    """
    engine = create_async_engine("postgresql+asyncpg://", connect_args=owner_arguments(settings))
    try:
        async with engine.connect() as connection:
            await connection.run_sync(ensure_roles)
    except RolesMissingError as exc:
        raise BackupError(str(exc)) from None
    finally:
        await engine.dispose()


class DatabaseRestore:
    """Takes the steps one by one; `folder` is the dump, `lists` a folder for lists of its parts."""

    def __init__(
        self, settings: DatabaseSettings, tool: Tool, folder: Path, lists: Path, *, jobs: int
    ) -> None:
        self._settings = settings
        self._tool = tool
        self._folder = folder
        self._lists = lists
        self._jobs = jobs

    async def load(self, pulse: Callable[[], None]) -> None:
        """Restore all but the mark of a whole database."""
        await self._begin()
        entries = await list_entries(self._tool, self._folder)
        first = [each for each in entries if not _is_any(each, (*_LAST, *_THERE, _MARK))]
        last = [each for each in entries if _is_any(each, _LAST)]
        await self._restore("tables", first, pulse, jobs=self._jobs)
        await self._restore("policies", last, pulse)
        owner = await asyncpg.connect(**patient_arguments(owner_arguments(self._settings)))
        try:
            await owner.execute(f"SET ROLE {OWNER_ROLE}")
            await owner.execute("GRANT USAGE ON SCHEMA public TO maas_app, maas_system")
            await owner.execute("ANALYZE")
        finally:
            await owner.close()

    async def _begin(self) -> None:
        """Leave word that this is half a platform, for whoever migrates what a killed one left."""
        owner = await asyncpg.connect(**owner_arguments(self._settings))
        try:
            await owner.execute(
                f"SET ROLE {OWNER_ROLE};"
                f"CREATE TABLE public.{RESTORING_TABLE} (version_num varchar(255) PRIMARY KEY);"
                f"GRANT SELECT ON public.{RESTORING_TABLE} TO maas_system"
            )
        finally:
            await owner.close()

    async def _restore(
        self, name: str, entries: list[str], pulse: Callable[[], None], *, jobs: int = 1
    ) -> None:
        wanted = self._lists / f"{name}.list"
        await asyncio.to_thread(wanted.write_text, "\n".join(entries) + "\n", encoding="utf-8")
        arguments = owner_arguments(self._settings)
        await run_tool(
            [
                *(self._tool.path, "--no-owner", "--exit-on-error", "--no-password"),
                *(f"--role={OWNER_ROLE}", f"--dbname={arguments['database']}"),
                *(f"--jobs={jobs}", f"--use-list={wanted}", self._folder),
            ],
            environment=connection_environment(arguments) | _LAZY,
            pulse=pulse,
        )

    async def compare(self, manifest: Manifest) -> list[str]:
        """Count every table again, and say where that is not what the backup counted."""
        connection = await asyncpg.connect(**patient_arguments(system_arguments(self._settings)))
        try:
            found = await count_rows(connection)
        finally:
            await connection.close()
        del found[RESTORING_TABLE]
        # Its one row is what comes last.
        wanted = {**manifest.rows, "alembic_version": 0}
        return [
            f"{name}: {found.get(name, 'no table')} instead of {wanted.get(name, 'no table')}"
            for name in sorted(found.keys() | wanted.keys())
            if found.get(name) != wanted.get(name)
        ]

    async def migrate(self, revision: str) -> None:
        """Bring it up to date from a revision, which is noted where nobody else looks for one."""
        connection = await asyncpg.connect(**owner_arguments(self._settings))
        try:
            async with connection.transaction():
                await connection.execute(f"SET LOCAL ROLE {OWNER_ROLE}")
                await connection.execute(
                    f"INSERT INTO {RESTORING_TABLE} VALUES ($1)",  # noqa: S608  a fixed name
                    revision,
                )
        finally:
            await connection.close()
        # Alembic runs a loop of its own. Its thread goes on where this is cancelled, and leaves
        # the other table as empty as it was.
        await asyncio.to_thread(migrate, version_table=RESTORING_TABLE)

    async def finish(self, revision: str) -> None:
        """Have it pass for a platform, at a revision."""
        connection = await asyncpg.connect(**owner_arguments(self._settings))
        try:
            async with connection.transaction():
                await connection.execute(f"SET LOCAL ROLE {OWNER_ROLE}")
                await connection.execute("DELETE FROM alembic_version")
                await connection.execute("INSERT INTO alembic_version VALUES ($1)", revision)
                await connection.execute(f"DROP TABLE {RESTORING_TABLE}")
        finally:
            await connection.close()

    async def tell(self, manifest: Manifest, *, keeps_sessions: bool, holds_files: bool) -> Ended:
        """End what was ended since, and tell the trail of the restore: all of it or nothing.

        `holds_files` puts off the collection of files until an operator resumes it.
        """
        connection = await asyncpg.connect(**patient_arguments(system_arguments(self._settings)))
        try:
            async with connection.transaction():
                ended = Ended(
                    sessions=0 if keeps_sessions else await _count(connection, _END_SESSIONS),
                    links=await _count(connection, _END_LINKS),
                    invitations=await _count(connection, _END_INVITATIONS),
                )
                if holds_files:
                    await connection.execute(_HOLD, HELD)
                scope = _scope_of(manifest, ended.sessions)
                await build_event_writer(SystemClock()).write(connection, [scope])
        finally:
            await connection.close()
        return ended

    async def is_open(self) -> bool:
        """Tell whether every role of a server that others use too may connect to it."""
        arguments = owner_arguments(self._settings)
        # A private server, behind a socket of its own.
        if str(arguments["host"]).startswith("/"):
            return False
        connection = await asyncpg.connect(**arguments)
        try:
            return bool(await connection.fetchval(_IS_OPEN))
        finally:
            await connection.close()

    async def living_keys(self) -> list[LivingKey]:
        connection = await asyncpg.connect(**system_arguments(self._settings))
        try:
            rows = await connection.fetch(_KEYS)
        finally:
            await connection.close()
        return [LivingKey(**{**row, "last_used_at": _spell(row["last_used_at"])}) for row in rows]


async def resume_collection(settings: DatabaseSettings) -> bool:
    """Let the collection of files go on that a restore put off, and tell whether one had.

    Raises:
        BackupError: the database cannot be reached.
    """
    try:
        connection = await asyncpg.connect(**system_arguments(settings))
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as exc:
        raise BackupError(f"the database cannot be reached: {exc}") from None
    try:
        async with connection.transaction():
            if await connection.fetchval(_RESUME, HELD) is None:
                return False
            scope = AuditScope(RESUMED_ACTION, tenant_id=DEFAULT_TENANT_ID)
            scope.actor = Actor("system", None, name="operator")
            await build_event_writer(SystemClock()).write(connection, [scope])
    finally:
        await connection.close()
    return True


async def list_entries(tool: Tool, folder: Path) -> list[str]:
    """List what a dump holds, in the words of `pg_restore --list`.

    Raises:
        BackupError: it is none that this program reads.
    """
    said = await run_tool([tool.path, "--list", folder], environment={})
    return [line for line in said.splitlines() if line and not line.startswith(";")]


async def _count(connection: Connection, statement: str) -> int:
    return int((await connection.execute(statement)).rpartition(" ")[2])


def _is_any(entry: str, marks: tuple[str, ...]) -> bool:
    return any(mark in entry for mark in marks)


def _scope_of(manifest: Manifest, ended: int) -> AuditScope:
    head: dict[str, Any] = dict(manifest.audit_head or {})
    scope = AuditScope(RESTORED_ACTION, tenant_id=DEFAULT_TENANT_ID)
    scope.actor = Actor("system", None, name="operator")
    scope.change(
        BACKUP,
        manifest.backup_id,
        after={
            "taken_at": manifest.snapshot_at,
            "head_seq": head.get("seq_to", 0),
            "rows": manifest.row_count,
            "sessions_ended": ended,
        },
    )
    return scope


def _spell(at: Any) -> str | None:
    return None if at is None else at.isoformat()
