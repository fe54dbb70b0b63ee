"""One look at the database that does not change, for all that goes into a backup."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, TypeVar

import asyncpg

from maas.audit.domain.checkpoint import SignedCheckpoint
from maas.audit.infrastructure.checkpoints import COLUMNS, read_row
from maas.backup.errors import BackupError
from maas.backup.manifest import KeptPart
from maas.shared.infrastructure.database import system_arguments
from maas.shared.infrastructure.settings import DatabaseSettings

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

T = TypeVar("T")

LOCK_SECONDS: Final = 60
AWAKE_SECONDS: Final = 30
"""What forwards connections drops those that say nothing for some minutes."""
_MAJOR: Final = 10_000

# Each is held by whoever does the work: no months are dropped meanwhile, no parts of artifacts
# deleted, and no tables changed. Alembic's is the number that alembic/env.py takes.
_STILL: Final = (
    "SELECT pg_advisory_lock(7245001)",
    "SELECT pg_advisory_lock(hashtextextended('maas.audit_retention', 0))",
    "SELECT pg_advisory_lock(hashtextextended('maas.model.collect', 0))",
)
_CLOSED: Final = """
    SELECT count(*) FROM pg_class c
    WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'S')
      AND NOT CASE c.relkind WHEN 'S' THEN has_sequence_privilege(c.oid, 'SELECT')
                             ELSE has_table_privilege(c.oid, 'SELECT') END
"""
_LET_READ: Final = "SELECT backup_let_read()"
TABLES: Final = """
    SELECT c.relname FROM pg_class c
    WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r'
      AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid AND d.deptype = 'e')
    ORDER BY 1
"""
_NEWEST: Final = f"""
    SELECT {", ".join(COLUMNS)} FROM audit_checkpoints ORDER BY n DESC LIMIT 1
"""  # noqa: S608  fixed words, no input
_PARTS: Final = """
    SELECT key, size, part_sha256 FROM blob_parts
    UNION SELECT key, size, part_sha256 FROM upload_parts ORDER BY key
"""
_STILL_NAMED: Final = """
    SELECT key FROM unnest($1::text[]) AS asked(key)
    WHERE EXISTS (SELECT FROM blob_parts p WHERE p.key = asked.key)
       OR EXISTS (SELECT FROM upload_parts p WHERE p.key = asked.key)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What others need to look at the same rows, as long as it is not let go.

    The locks that keep rows and files in place are held until the connection is closed.
    """

    connection: Connection
    id: str
    taken_at: str
    postgres: str
    postgres_major: int
    revision: str

    async def let_go(self) -> None:
        """Look at rows as they are from here on: a snapshot keeps the dead ones of everybody."""
        await self.connection.execute("ROLLBACK")

    async def attend(self, work: "asyncio.Task[T]") -> T:
        """Wait for work, and see meanwhile that the connection is there, and with it the locks."""
        while not (await asyncio.wait({work}, timeout=AWAKE_SECONDS))[0]:
            await self.connection.execute("SELECT 1")
        return work.result()

    async def still_named(self, keys: Sequence[str]) -> set[str]:
        """Tell which parts a row refers to by now; ask after `let_go`."""
        return {row["key"] for row in await self.connection.fetch(_STILL_NAMED, list(keys))}

    async def newest_head(self) -> SignedCheckpoint | None:
        row = await self.connection.fetchrow(_NEWEST)
        return None if row is None else read_row(row)

    async def parts(self) -> list[KeptPart]:
        rows = await self.connection.fetch(_PARTS)
        return [
            KeptPart(key=row["key"], size=row["size"], sha256=row["part_sha256"].hex())
            for row in rows
        ]


async def count_rows(connection: Connection) -> dict[str, int]:
    """Count the rows of every table, each month of a ledger by itself."""
    names = [row["relname"] for row in await connection.fetch(TABLES)]
    return {
        name: await connection.fetchval(f'SELECT count(*) FROM ONLY public."{name}"')  # noqa: S608  names of our own tables
        for name in names
    }


def patient_arguments(arguments: dict[str, Any]) -> dict[str, Any]:
    """Let statements take as long as they need; only a lock is waited for no longer than so."""
    return {
        **arguments,
        "command_timeout": None,
        "server_settings": {
            **arguments["server_settings"],
            "application_name": "maas-backup",
            "statement_timeout": "0",
            "idle_in_transaction_session_timeout": "0",
            "idle_session_timeout": "0",
            # While it counts or waits, too, something is seen on the connection.
            "tcp_keepalives_idle": str(AWAKE_SECONDS),
            "lock_timeout": str(LOCK_SECONDS * 1000),
        },
    }


@asynccontextmanager
async def open_snapshot(settings: DatabaseSettings) -> AsyncIterator[Snapshot]:
    """Connect as `maas_system` and hold one snapshot, and what would pull rows from under it.

    Raises:
        BackupError: the database does not let us in, or not read all of it.
    """
    try:
        connection = await asyncpg.connect(**patient_arguments(system_arguments(settings)))
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as exc:
        raise BackupError(f"the database cannot be reached: {exc}") from None
    try:
        await _hold_still(connection)
        await _open_all(connection)
        await connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        yield await _describe(connection)
    except asyncpg.LockNotAvailableError:
        message = (
            f"migrations, retention or the collection of files ran for {LOCK_SECONDS} s on end, "
            "and a backup waits for none of them longer: try again"
        )
        raise BackupError(message) from None
    except (ConnectionError, asyncpg.PostgresError, asyncpg.InterfaceError) as exc:
        raise BackupError(f"the database was lost: {exc}") from None
    finally:
        connection.terminate()


async def _hold_still(connection: Connection) -> None:
    for lock in _STILL:
        await connection.execute(lock)


async def _open_all(connection: Connection) -> None:
    if not await connection.fetchval(_CLOSED):
        return
    try:
        await connection.execute(_LET_READ)
    except asyncpg.UndefinedFunctionError:
        message = "the database is too old for a backup by this release: run `maas migrate`"
        raise BackupError(message) from None
    if closed := await connection.fetchval(_CLOSED):
        message = (
            f"maas_system may not read {closed} tables, which do not belong to maas_owner: "
            "GRANT SELECT ON ALL TABLES IN SCHEMA public TO maas_system"
        )
        raise BackupError(message)


async def _describe(connection: Connection) -> Snapshot:
    row = await connection.fetchrow(
        "SELECT pg_export_snapshot() AS id, to_char(now() AT TIME ZONE 'UTC',"
        " 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') AS at, current_setting('server_version') AS version,"
        " current_setting('server_version_num')::integer AS number,"
        " (SELECT version_num FROM alembic_version) AS revision"
    )
    if row is None or row["revision"] is None:
        message = "the database holds no whole platform: a restore broke off in it"
        raise BackupError(message)
    return Snapshot(
        connection=connection,
        id=row["id"],
        taken_at=row["at"],
        postgres=row["version"],
        postgres_major=row["number"] // _MAJOR,
        revision=row["revision"],
    )
