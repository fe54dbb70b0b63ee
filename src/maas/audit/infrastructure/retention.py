"""The log as retention sees it: as `maas_system`, which owns nothing and drops by asking."""

import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import date, datetime
from typing import Any, Final, TypeAlias, cast

import asyncpg

from maas.audit.application.events import EventComposer
from maas.audit.application.flush import LogUnavailableError
from maas.audit.application.retention import (
    LogBusyError,
    Row,
    UnknownSignerError,
    UnsoundPartitionError,
)
from maas.audit.domain.fidelity import PERSONAL
from maas.audit.domain.retention import RETENTION_CLASSES, RetentionClass
from maas.audit.domain.retention_policy import Partition, month_after
from maas.audit.domain.tombstone import ArchiveFile, SignedTombstone, Tombstone
from maas.audit.domain.tombstone_check import StoredTombstone
from maas.audit.domain.tombstone_rows import block_end
from maas.audit.infrastructure.log_columns import LOG_COLUMNS, held
from maas.audit.infrastructure.outbox import insert_event
from maas.audit.infrastructure.silence import SilentAudit
from maas.audit.public import Actor, AuditedResource, AuditScope
from maas.shared.domain.call import Call
from maas.shared.domain.ids import DEFAULT_TENANT_ID, new_id
from maas.shared.infrastructure.database import system_arguments
from maas.shared.infrastructure.settings import DatabaseSettings

DROPPED_ACTION = "audit.partition_dropped"
PARTITION: Final = AuditedResource(
    "audit_partition",
    frozenset({
        "rows", "first_seq", "last_seq", "tombstone", "tombstone_hash", "archive",
        "archive_sha256", "policy_days",
    }),
)  # fmt: skip
STATEMENT_SECONDS: Final = 40
"""To count the rows of a large partition takes a while, and keeps nobody waiting."""

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

_NOTHING_PERSONAL: Final = (None,) * (len(PERSONAL) + 1)
_NAME: Final = re.compile(r"audit_log_([a-z]+)_(\d{4})_(\d\d)")
_PARTITIONS: Final = """
    SELECT c.relname, c.reltuples::bigint AS rows, pg_total_relation_size(c.oid) AS size
    FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
    WHERE i.inhparent = ANY (SELECT to_regclass('audit_log_' || class)
                             FROM unnest($1::text[]) AS class)
    ORDER BY c.relname
"""
# Anybody may read this, the application too.
PARTITIONS_AHEAD: Final = """
    SELECT coalesce(min(ahead), 0) AS months FROM (
        SELECT count(*) FILTER (WHERE right(c.relname, 7)
                > to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY_MM')) AS ahead
        FROM pg_inherits AS l JOIN pg_class AS p ON p.oid = l.inhrelid
            LEFT JOIN pg_inherits AS i ON i.inhparent = p.oid
            LEFT JOIN pg_class AS c ON c.oid = i.inhrelid
        WHERE l.inhparent = to_regclass('audit_log') GROUP BY p.oid
    ) AS classes
"""
_ENSURE_AHEAD: Final = """
    SELECT audit_ensure_partition(class, clock_timestamp() + make_interval(months => ahead))
    FROM unnest($1::text[]) AS class, generate_series(0, 3) AS ahead
"""
# In the text, so that the plan is made for the one partition, and no other is even locked.
_ROWS: Final = """
    audit_log WHERE retention_class = '{name}' AND recorded_at >= '{since}T00:00:00Z'
        AND recorded_at < '{until}T00:00:00Z'
"""
_NEXT_SEQ: Final = "SELECT min(seq) FROM {rows} AND seq > $1"
_BLOCK: Final = """
    SELECT {columns}, l.duration_ms, {chained_at} AS chained_at, c.leaf
    FROM (SELECT * FROM {rows} AND seq >= $1 AND seq <= $2) AS l
        LEFT JOIN audit_chain AS c ON c.seq = l.seq
    ORDER BY l.seq
"""
_BOUNDS: Final = "SELECT min(seq) AS first, max(seq) AS last FROM {rows}"
_SPAN: Final = """
    SELECT count(*) AS rows, coalesce(min(seq), 0) AS first, coalesce(max(seq), 0) AS last
    FROM {rows}
"""
_FIND: Final = """
    SELECT n FROM audit_tombstones
    WHERE retention_class = $1 AND period = $2 AND first_seq = $3 AND last_seq = $4
    ORDER BY n DESC LIMIT 1
"""
_LAST: Final = "SELECT n, hash FROM audit_tombstones ORDER BY n DESC LIMIT 1"
_COLUMNS: Final = (
    "n", "retention_class", "period", "rows", "first_seq", "last_seq", "members", "digest",
    "archive_name", "archive_sha256", "archive_size", "policy_days", "actor", "decided_at",
    "key_id", "previous", "hash", "signature", "packed",
)  # fmt: skip
_BURY: Final = f"""
    INSERT INTO audit_tombstones ({", ".join(_COLUMNS)})
    VALUES ({", ".join(f"${number}" for number in range(1, len(_COLUMNS) + 1))})
"""  # noqa: S608  fixed words, no input
_HELD: Final = {"period": held("period", "date"), "decided_at": held("decided_at")}
LIST_TOMBSTONES: Final = f"""
    SELECT {", ".join(f"{_HELD.get(name, name)} AS {name}" for name in _COLUMNS)}
    FROM audit_tombstones ORDER BY n
"""  # noqa: S608  fixed words, no input
_NEXT_IDS: Final = "SELECT seq, event_id FROM {rows} AND seq > $1 ORDER BY seq LIMIT $2"
_FORGET: Final = "DELETE FROM audit_personal WHERE event_id = ANY($1)"
_FORGET_ERASED: Final = "DELETE FROM audit_erased_events WHERE event_id = ANY($1)"
_FORGET_ID: Final = "DELETE FROM audit_dedup WHERE event_id = ANY($1)"
_TOMBSTONE: Final = """
    SELECT n, rows, first_seq, last_seq, hash, archive_name, archive_sha256, policy_days
    FROM audit_tombstones WHERE n = $1
"""
_DROP: Final = "SELECT audit_drop_partition($1, $2, $3)"
_LOCK: Final = "SELECT pg_try_advisory_xact_lock(hashtextextended('maas.audit_retention', 0))"


class PostgresRetentionLog:
    def __init__(
        self, connection: Connection, *, arguments: dict[str, Any], composer: EventComposer
    ) -> None:
        self._connection = connection
        self._arguments = arguments
        self._composer = composer

    @asynccontextmanager
    async def exclusively(self) -> AsyncIterator[bool]:
        # In a transaction that does nothing else: it ends with whoever began it, and a pool of
        # connections between us and the server does not tear the two apart.
        with _translated():
            guard = await asyncpg.connect(**self._arguments)
        try:
            with _translated():
                transaction = guard.transaction()
                await transaction.start()
                is_alone = await guard.fetchval(_LOCK)
            yield is_alone
        finally:
            await guard.close(timeout=1)

    async def now(self) -> datetime:
        with _translated():
            return cast("datetime", await self._connection.fetchval("SELECT clock_timestamp()"))

    async def partitions(self) -> list[Partition]:
        with _translated():
            return await list_partitions(self._connection)

    async def ensure_ahead(self) -> None:
        with _translated():
            await self._connection.execute(_ENSURE_AHEAD, list(RETENTION_CLASSES))

    async def read_block(self, partition: Partition, after: int) -> list[Row]:
        rows_of = _rows(partition)
        with _translated():
            first = await self._connection.fetchval(_NEXT_SEQ.format(rows=rows_of), after)
            if first is None:
                return []
            rows = await self._connection.fetch(
                _BLOCK.format(rows=rows_of, columns=LOG_COLUMNS, chained_at=held("c.recorded_at")),
                first,
                block_end(first),
            )
        return [Row((*row[:-3], *_NOTHING_PERSONAL), *row[-3:]) for row in rows]

    async def span(self, partition: Partition) -> tuple[int, int, int]:
        with _translated():
            row = await self._connection.fetchrow(_SPAN.format(rows=_rows(partition)))
        return (0, 0, 0) if row is None else (row["rows"], row["first"], row["last"])

    async def find_tombstone(self, partition: Partition) -> int | None:
        with _translated():
            bounds = await self._connection.fetchrow(_BOUNDS.format(rows=_rows(partition)))
            if bounds is None or bounds["first"] is None:
                return None
            found = await self._connection.fetchval(
                _FIND, partition.retention_class, partition.period, *bounds
            )
        return cast("int | None", found)

    async def tombstones(self) -> list[StoredTombstone]:
        with _translated():
            rows = await self._connection.fetch(LIST_TOMBSTONES)
        return [read_tombstone(row) for row in rows]

    async def last_tombstone(self) -> tuple[int, bytes] | None:
        with _translated():
            row = await self._connection.fetchrow(_LAST)
        return None if row is None else (row["n"], row["hash"])

    async def bury(self, stored: StoredTombstone) -> None:
        try:
            with _translated():
                await self._connection.execute(_BURY, *_values(stored))
        except asyncpg.ForeignKeyViolationError as exc:
            key_id = stored.signed.tombstone.key_id
            message = (
                f"The key {key_id} has signed no checkpoint yet: run this with the worker's "
                "settings, or wait for its next flush."
            )
            raise UnknownSignerError(message) from exc

    async def forget_personal(self, partition: Partition, after: int, limit: int) -> int | None:
        query = _NEXT_IDS.format(rows=_rows(partition))
        with _translated():
            rows = await self._connection.fetch(query, after, limit)
            ids = [row["event_id"] for row in rows]
            async with self._connection.transaction():
                await self._connection.execute(_FORGET, ids)
                await self._connection.execute(_FORGET_ID, ids)
                await self._connection.execute(_FORGET_ERASED, ids)
        return rows[-1]["seq"] if rows else None

    async def drop(self, partition: Partition, tombstone: int | None) -> bool:
        wanted = (partition.retention_class, partition.period, tombstone)
        with _translated():
            transaction = self._connection.transaction()
            await transaction.start()
            is_dropped = False
            try:
                row = await self._connection.fetchrow(_TOMBSTONE, tombstone)
                # First the event: after the drop everybody waits for the end of this.
                event = self._composer.compose(_scope(partition, row), _call())
                await insert_event(self._connection, event)
                is_dropped = bool(await self._connection.fetchval(_DROP, *wanted))
            finally:
                # Of nothing that was there to drop, no event is left either.
                await (transaction.commit() if is_dropped else transaction.rollback())
        return is_dropped


async def list_partitions(connection: Any) -> list[Partition]:
    """List the log's partitions with their sizes, oldest first."""
    found = []
    for row in await connection.fetch(_PARTITIONS, list(RETENTION_CLASSES)):
        match = _NAME.fullmatch(row["relname"])
        if match is None:
            continue
        found.append(
            Partition(
                retention_class=cast("RetentionClass", match[1]),
                period=date(int(match[2]), int(match[3]), 1),
                rows=row["rows"] if row["rows"] >= 0 else None,
                size_bytes=row["size"],
            )
        )
    return sorted(found, key=lambda partition: (partition.period, partition.retention_class))


def read_tombstone(row: Any) -> StoredTombstone:
    """Read a row of `audit_tombstones`, whose columns may hold anything after tampering."""
    archive = None
    if row["archive_name"] is not None:
        archive = ArchiveFile(
            name=row["archive_name"],
            sha256=row["archive_sha256"] or b"",
            size=row["archive_size"] or 0,
        )
    tombstone = Tombstone(
        n=row["n"],
        retention_class=row["retention_class"],
        period=row["period"],
        rows=row["rows"],
        first_seq=row["first_seq"],
        last_seq=row["last_seq"],
        members=row["members"],
        digest=row["digest"],
        archive=archive,
        policy_days=row["policy_days"],
        actor=row["actor"],
        decided_at=row["decided_at"],
        key_id=row["key_id"],
        previous=row["previous"],
    )
    signed = SignedTombstone(tombstone=tombstone, signature=row["signature"])
    return StoredTombstone(signed=signed, packed=row["packed"], hash=row["hash"])


@asynccontextmanager
async def open_retention_log(
    settings: DatabaseSettings, *, composer: EventComposer
) -> AsyncIterator[PostgresRetentionLog]:
    """Connect for one run.

    Raises:
        LogUnavailableError: PostgreSQL does not answer.
    """
    arguments = system_arguments(settings)
    arguments["command_timeout"] = STATEMENT_SECONDS + 1
    arguments["server_settings"] = {
        **arguments["server_settings"],
        "application_name": "maas-retention",
        "statement_timeout": f"{STATEMENT_SECONDS}s",
        "idle_in_transaction_session_timeout": "0",
    }
    with _translated():
        connection = await asyncpg.connect(**arguments)
    try:
        yield PostgresRetentionLog(connection, arguments=arguments, composer=composer)
    finally:
        await connection.close(timeout=1)


def _rows(partition: Partition) -> str:
    return _ROWS.format(
        name=partition.retention_class,
        since=partition.period,
        until=month_after(partition.period),
    )


def _values(stored: StoredTombstone) -> tuple[object, ...]:
    tombstone = stored.signed.tombstone
    archive = tombstone.archive
    return (
        tombstone.n, tombstone.retention_class, tombstone.period, tombstone.rows,
        tombstone.first_seq, tombstone.last_seq, tombstone.members, tombstone.digest,
        None if archive is None else archive.name,
        None if archive is None else archive.sha256,
        None if archive is None else archive.size,
        tombstone.policy_days, tombstone.actor, tombstone.decided_at, tombstone.key_id,
        tombstone.previous, stored.hash, stored.signed.signature, stored.packed,
    )  # fmt: skip


def _scope(partition: Partition, row: Any) -> AuditScope:
    scope = AuditScope(DROPPED_ACTION, tenant_id=DEFAULT_TENANT_ID)
    scope.actor = Actor("system", None, name="retention")
    after: dict[str, Any] = {"rows": 0}
    if row is not None:
        after = {
            "rows": row["rows"],
            "first_seq": row["first_seq"],
            "last_seq": row["last_seq"],
            "tombstone": row["n"],
            "tombstone_hash": row["hash"].hex(),
            "archive": row["archive_name"],
            "archive_sha256": row["archive_sha256"].hex() if row["archive_sha256"] else None,
            "policy_days": row["policy_days"],
        }
    scope.change(PARTITION, partition.label.replace(" ", "/"), after=after)
    return scope


def _call() -> Call:
    return Call(request_id=new_id().hex, recorder=SilentAudit())


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except asyncpg.LockNotAvailableError as exc:
        message = "Somebody has been reading the log for long, a check perhaps: the next run tries."
        raise LogBusyError(message) from exc
    except asyncpg.QueryCanceledError as exc:
        message = "The database took too long over it: the next run tries."
        raise LogBusyError(message) from exc
    except asyncpg.ObjectNotInPrerequisiteStateError as exc:
        # Of those that our own function raises, which say what is not as it should be.
        raise UnsoundPartitionError(f"{exc}: see `maas audit verify`.") from exc
    except asyncpg.ForeignKeyViolationError:
        raise
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as exc:
        raise LogUnavailableError(f"{type(exc).__name__}: {exc}") from exc
