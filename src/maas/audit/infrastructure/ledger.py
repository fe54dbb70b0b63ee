"""The chained log in PostgreSQL: raw asyncpg, as the role that sees every tenant."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any, Final, TypeAlias, cast
from uuid import UUID

import asyncpg
import structlog
from asyncpg.pool import PoolConnectionProxy

from maas.audit.application.flush import (
    Appended,
    Delivery,
    LogRefusedError,
    LogUnavailableError,
    UnfitRecordsError,
)
from maas.audit.domain.chain import micros, row_hash
from maas.audit.domain.record import Record
from maas.audit.domain.retention import RETENTION_CLASSES
from maas.audit.infrastructure.checkpoints import Batch, Last, Signer, write_checkpoints
from maas.audit.infrastructure.named_people import take_names
from maas.audit.infrastructure.terms import keep_terms, terms_of
from maas.shared.infrastructure.worker_connections import FLUSH_CONNECTIONS

Connection: TypeAlias = "PoolConnectionProxy[asyncpg.Record]"
Checkpoint: TypeAlias = Callable[[str], None]

# A flusher that was frozen in mid-transaction holds the head of the chain; no other waits longer.
IDLE_IN_TRANSACTION_MS: Final = 5_000
FROZEN_SECONDS: Final = 10.0
"""A flusher whose transaction is older than this, and that keeps PostgreSQL waiting, is ended."""

APPLICATION: Final = "maas-flush"

OUTAGES: Final = ("08", "25", "28", "40", "53", "55", "57", "58")
"""Classes of SQLSTATE that pass: connections, read-only and idle transactions, logins, conflicts,
resources, locks, operators, the system below. Any other that is not for data is no outage."""

LOG_COLUMNS: Final = (
    "seq", "recorded_at", "retention_class", "event_id", "tenant_id", "occurred_at", "actor_kind",
    "actor_id", "session_id", "api_key_id", "action", "resource_kind", "resource_id", "outcome",
    "reason", "request_id", "duration_ms", "payload",
)  # fmt: skip
CHAIN_COLUMNS: Final = ("seq", "recorded_at", "leaf", "row_hash")
PERSONAL_COLUMNS: Final = (
    "event_id", "tenant_id", "actor_name", "email", "address", "user_agent", "salt", "occurred_at",
)  # fmt: skip
DEDUP_COLUMNS: Final = ("event_id", "recorded_at")

REMEMBERED: Final = timedelta(days=7)
"""How long `audit_dedup` keeps an id after its event was recorded."""

CLOCK_ERROR: Final = timedelta(hours=1)
"""How far the clock of a producer may be ahead of PostgreSQL's before its events are doubted."""

SURELY_REMEMBERED: Final = REMEMBERED - timedelta(days=1)

_WAITING: Final = """
    SELECT event_id, payload, personal::text AS personal, duration_ms FROM audit_outbox
    WHERE created_at < clock_timestamp() - interval '1 second'
    ORDER BY created_at, event_id LIMIT $1
"""
_TAKE_OUT: Final = """
    DELETE FROM audit_outbox WHERE event_id = ANY($1) RETURNING event_id, payload
"""
# Stopped in the middle of a COPY it is not idle, and no time limit of PostgreSQL ends that wait.
# The session's own user, whom the role may stand for, is the one who may end it.
_BE_SESSION_USER: Final = "SET LOCAL ROLE NONE"
_END_FROZEN: Final = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = $1 AND usename = session_user
        AND pid <> pg_backend_pid() AND wait_event = 'ClientRead'
        AND xact_start < clock_timestamp() - make_interval(secs => $2)
"""
_ENSURE_PARTITIONS: Final = """
    SELECT audit_ensure_partition(class, clock_timestamp() + make_interval(months => ahead))
    FROM unnest($1::text[]) AS class, generate_series(0, 3) AS ahead
"""
_ERASED: Final = "SELECT actor_id::text FROM audit_erasures WHERE actor_id = ANY($1::uuid[])"
# The head's lock is held by then, so this snapshot sees the checkpoint of the batch before.
_NOW_AND_LAST: Final = """
    SELECT clock_timestamp(), c.n, c.seq_to, c.hash, c.key_id FROM (VALUES (1)) AS one
    LEFT JOIN LATERAL (
        SELECT n, seq_to, hash, key_id FROM audit_checkpoints ORDER BY n DESC LIMIT 1
    ) AS c ON true
"""
_BURY: Final = """
    INSERT INTO audit_dead_letter (source, entry_id, fields, error) VALUES ($1, $2, $3, $4)
    ON CONFLICT (source, entry_id) DO NOTHING
"""


log = structlog.get_logger(__name__)


class LockedOutError(LogUnavailableError):
    """Another flusher holds the head of the chain, for longer than any should."""

    code = "audit-log-held"
    title = "Another flusher holds the audit log"


class MissingPartitionError(Exception):
    """The log has no partition for this month yet."""


def pass_by(_: str) -> None:
    """Do nothing at a checkpoint; tests stop, kill or raise there."""


class PostgresLedger:
    """Opens its connections when first used; needs the arguments of the system role."""

    def __init__(
        self, arguments: dict[str, Any], *, signer: Signer, checkpoint: Checkpoint = pass_by
    ) -> None:
        server_settings = {
            **arguments["server_settings"],
            "application_name": APPLICATION,
            "idle_in_transaction_session_timeout": str(IDLE_IN_TRANSACTION_MS),
            "synchronous_commit": "on",
        }
        self._arguments = {**arguments, "server_settings": server_settings}
        self._signer = signer
        self._checkpoint = checkpoint
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None

    async def close(self) -> None:
        if self._pool is not None:
            self._pool.terminate()
            self._pool = None

    async def waiting(self, limit: int) -> list[asyncpg.Record]:
        """Read the outbox's oldest rows, those of the last second excepted."""
        async with self._connected() as connection:
            return list(await connection.fetch(_WAITING, limit))

    async def append(self, records: Sequence[Record]) -> Appended:
        try:
            return await self._append(records)
        except LockedOutError:
            await self._end_frozen()
            raise
        except MissingPartitionError:
            await self._ensure_partitions()
        try:
            return await self._append(records)
        except MissingPartitionError as exc:
            raise LogUnavailableError("the log's partition is missing") from exc

    async def bury(self, delivery: Delivery, *, error: str) -> None:
        raw = [part for pair in delivery.fields.items() for part in pair]
        async with self._connected() as connection, connection.transaction():
            await connection.execute(
                _BURY, delivery.source, delivery.entry_id, raw, error.replace("\x00", "")
            )
            if delivery.source == "outbox":
                await connection.execute(
                    "DELETE FROM audit_outbox WHERE event_id = $1", UUID(delivery.entry_id)
                )

    async def _append(self, records: Sequence[Record]) -> Appended:
        ids = [record.event_id for record in records]
        async with self._connected() as connection:
            async with connection.transaction():
                self._checkpoint("after_read")
                written = await _write(connection, records, ids, signer=self._signer)
                kept = await connection.fetch(_TAKE_OUT, ids)
                _refuse_others_bytes(records, kept)
                self._checkpoint("after_insert")
            self._checkpoint("after_commit")
        return Appended(written, len(records) - written)

    async def _end_frozen(self) -> None:
        """End flushers that were stopped in mid-transaction: what they had is delivered again."""
        async with self._connected() as connection, connection.transaction():
            await connection.execute(_BE_SESSION_USER)
            ended = await connection.fetch(_END_FROZEN, APPLICATION, FROZEN_SECONDS)
        if ended:
            log.warning("audit_frozen_flusher_ended", count=len(ended))

    async def _ensure_partitions(self) -> None:
        async with self._connected() as connection:
            await connection.execute(_ENSURE_PARTITIONS, list(RETENTION_CLASSES))

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[Connection]:
        try:
            if self._pool is None:
                self._pool = await asyncpg.create_pool(
                    min_size=0,
                    max_size=FLUSH_CONNECTIONS,
                    reset=_leave_as_is,
                    **self._arguments,
                )
            async with self._pool.acquire(timeout=self._arguments["timeout"]) as connection:
                yield connection
        except asyncpg.CheckViolationError as exc:
            if exc.constraint_name is None:
                raise MissingPartitionError from exc
            raise UnfitRecordsError(type(exc).__name__) from exc
        except (
            asyncpg.DataError,
            asyncpg.NotNullViolationError,
            asyncpg.ProgramLimitExceededError,
        ) as exc:
            raise UnfitRecordsError(type(exc).__name__) from exc
        except asyncpg.LockNotAvailableError as exc:
            raise LockedOutError(type(exc).__name__) from exc
        except asyncpg.PostgresError as exc:
            state = exc.sqlstate or ""
            error = LogUnavailableError if state.startswith(OUTAGES) else LogRefusedError
            raise error(f"{type(exc).__name__} {state}") from exc
        except (asyncpg.InterfaceError, OSError, TimeoutError) as exc:
            raise LogUnavailableError(type(exc).__name__) from exc


async def _leave_as_is(_: object) -> None:
    """Skip asyncpg's reset round trip: nothing is set outside of a transaction."""


async def _write(
    connection: Connection, records: Sequence[Record], ids: Sequence[UUID], *, signer: Signer
) -> int:
    """Chain and store the records whose ids are new; return how many those are."""
    # The lock makes this the only writer, and every statement after it sees the last one's rows.
    head = await connection.fetchrow("SELECT seq, hash FROM audit_head WHERE id = 1 FOR UPDATE")
    if head is None:
        raise LogUnavailableError("the chain has no head")
    recorded_at, *last = cast("asyncpg.Record", await connection.fetchrow(_NOW_AND_LAST))
    known = await connection.fetch("SELECT event_id FROM audit_dedup WHERE event_id = ANY($1)", ids)
    seen: set[UUID] = {row[0] for row in known}
    seen |= await _find_forgotten(connection, records, recorded_at)
    erased = await _find_erased(connection, records)
    nameless = await take_names(connection, records)
    at, seq, last_hash = micros(recorded_at), head["seq"], head["hash"]
    log_rows, chain_rows, personal_rows, dedup_rows = [], [], [], []
    fresh: list[Record] = []
    for item in records:
        if item.event_id in seen:
            continue
        seen.add(item.event_id)
        fresh.append(item)
        seq += 1
        last_hash = row_hash(last_hash, seq=seq, recorded_micros=at, leaf=item.leaf)
        log_rows.append((
            seq, recorded_at, item.retention_class, item.event_id, item.tenant_id,
            item.occurred_at, item.actor_kind, item.actor_id, item.session_id, item.api_key_id,
            item.action, item.resource_kind, item.resource_id, item.outcome, item.reason,
            item.request_id, item.duration_ms, item.payload,
        ))  # fmt: skip
        chain_rows.append((seq, recorded_at, item.leaf, last_hash))
        if item.actor_id not in erased and item.event_id not in nameless:
            personal_rows.append((
                item.event_id, item.tenant_id, item.actor_name, item.email, item.address,
                item.user_agent, item.salt, item.occurred_at,
            ))  # fmt: skip
        dedup_rows.append((item.event_id, recorded_at))
    if not log_rows:
        return 0
    for table, columns, rows in (
        ("audit_dedup", DEDUP_COLUMNS, dedup_rows),
        ("audit_log", LOG_COLUMNS, log_rows),
        ("audit_chain", CHAIN_COLUMNS, chain_rows),
        ("audit_personal", PERSONAL_COLUMNS, personal_rows),
    ):
        try:
            await connection.copy_records_to_table(table, records=rows, columns=columns)
        except (ValueError, TypeError, OverflowError) as exc:
            # The client could not even spell a value; asyncpg gives such errors no class.
            raise UnfitRecordsError(type(exc).__name__) from exc
    await keep_terms(connection, terms_of(fresh, erased=erased))
    await write_checkpoints(
        connection,
        Batch(head["seq"] + 1, recorded_at, [row[2] for row in chain_rows], last_hash),
        last=Last() if last[0] is None else Last(*last),
        signer=signer,
    )
    await connection.execute(
        "UPDATE audit_head SET seq = $1, hash = $2 WHERE id = 1", seq, last_hash
    )
    return len(log_rows)


def _refuse_others_bytes(records: Sequence[Record], kept: Sequence[asyncpg.Record]) -> None:
    """Let nothing take an event's place: what the outbox has under its id is the event.

    Whoever may write to Redis could else replace the event of a change before it is recorded.
    """
    if not kept:
        return
    payloads = {row["event_id"]: row["payload"] for row in kept}
    if any(payloads.get(item.event_id, item.payload) != item.payload for item in records):
        raise UnfitRecordsError("other bytes than the outbox has under this id")


async def _find_forgotten(
    connection: Connection, records: Sequence[Record], recorded_at: datetime
) -> set[UUID]:
    """Tell which records are in the log from longer ago than `audit_dedup` remembers.

    Only the log's clock is trusted: a record that claims to be of the future says nothing of its
    age, and is looked up as well.
    """
    oldest, newest = recorded_at - SURELY_REMEMBERED, recorded_at + CLOCK_ERROR
    doubtful = [item.event_id for item in records if not oldest < item.occurred_at < newest]
    if not doubtful:
        return set()
    rows = await connection.fetch(
        "SELECT event_id FROM audit_log WHERE event_id = ANY($1)", doubtful
    )
    return {row["event_id"] for row in rows}


async def _find_erased(connection: Connection, records: Sequence[Record]) -> set[str]:
    """Tell which actors are to leave no personal fields any more."""
    # Poison may hold anything; what is no text is refused when it is stored.
    actors = {item.actor_id for item in records if isinstance(item.actor_id, str)}
    rows = await connection.fetch(_ERASED, list(actors))
    return {row["actor_id"] for row in rows}
