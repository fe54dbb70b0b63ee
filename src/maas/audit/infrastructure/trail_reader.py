"""The trail's tables, read for a check: as `maas_system`, in one snapshot, a page at a time."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, cast

import asyncpg

from maas.audit.application.flush import LogUnavailableError
from maas.audit.application.verification import ChainBounds, Gap, SigningKey
from maas.audit.domain.chain_check import ChainRow, Start, StoredCheckpoint
from maas.audit.domain.fidelity import LogRow
from maas.audit.domain.tombstone_check import StoredTombstone
from maas.audit.infrastructure.checkpoints import COLUMNS, read_row
from maas.audit.infrastructure.log_columns import LOG_COLUMNS, held
from maas.audit.infrastructure.recorder import GAP_ACTION
from maas.audit.infrastructure.retention import LIST_TOMBSTONES, read_tombstone
from maas.audit.infrastructure.rollup_check import find_rollup_differences
from maas.shared.domain.ids import DEFAULT_TENANT_ID
from maas.shared.infrastructure.database import system_arguments
from maas.shared.infrastructure.settings import DatabaseSettings

MAX_STRAYS: Final = 21
WAIT_SECONDS: Final = 60

# Before the snapshot is taken: what it shows is then dropped by nobody until it ends.
_HOLD_PARTITIONS: Final = "LOCK TABLE audit_log IN ACCESS SHARE MODE"
_CHAIN: Final = f"""
    SELECT seq, {held("recorded_at")}, leaf, row_hash FROM audit_chain
    WHERE seq > $1 AND seq <= $2 ORDER BY seq LIMIT $3
"""  # noqa: S608  fixed words, no input
_LOG: Final = f"""
    SELECT {LOG_COLUMNS},
        p.event_id::text, p.tenant_id::text, p.salt, p.actor_name, p.email, host(p.address),
        p.user_agent, e.actor_id IS NOT NULL OR x.event_id IS NOT NULL
    FROM audit_log AS l LEFT JOIN audit_personal AS p ON p.event_id = l.event_id
        LEFT JOIN audit_erasures AS e ON e.actor_id = l.actor_id
        LEFT JOIN audit_erased_events AS x ON x.event_id = l.event_id
    WHERE l.seq > $1 AND l.seq <= $2 ORDER BY l.seq
"""  # noqa: S608  fixed words, no input
_HELD: Final = {"recorded_at": f"{held('recorded_at')} AS recorded_at"}
_CHECKPOINTS: Final = f"""
    SELECT {", ".join(_HELD.get(name, name) for name in COLUMNS)}
    FROM audit_checkpoints WHERE n > $1 ORDER BY n LIMIT $2
"""  # noqa: S608  fixed words, no input
_KEYS: Final = f"""
    SELECT key_id, public_key, first_seq, {held("created_at")} AS created_at
    FROM audit_signing_keys ORDER BY first_seq
"""  # noqa: S608  fixed words, no input
_COVERING: Final = """
    SELECT n, seq_from, seq_to, previous FROM audit_checkpoints
    WHERE seq_to >= $1 ORDER BY seq_to LIMIT 1
"""
_BEFORE: Final = """
    SELECT n, seq_to, hash FROM audit_checkpoints WHERE seq_to < $1 ORDER BY seq_to DESC LIMIT 1
"""
_STRAY_ROWS: Final = """
    SELECT seq FROM audit_log WHERE seq < 1 OR seq > $1 ORDER BY seq LIMIT $2
"""
_STRAY_CHAIN: Final = "SELECT seq FROM audit_chain WHERE seq < 1 ORDER BY seq LIMIT $1"
_STRAY_PERSONAL: Final = """
    SELECT event_id::text AS id FROM audit_personal AS p
    WHERE NOT EXISTS (SELECT FROM audit_log AS l WHERE l.event_id = p.event_id) LIMIT $1
"""
_DOUBLES: Final = """
    SELECT count(*) FROM (
        SELECT event_id FROM audit_log GROUP BY event_id HAVING count(*) > 1
    ) AS doubles
"""
# Ids are remembered for a week; a day is left for the clean-up to come late or early.
_UNREMEMBERED: Final = """
    SELECT count(*) FROM audit_log AS l LEFT JOIN audit_dedup AS d ON d.event_id = l.event_id
    WHERE l.recorded_at > now() - interval '6 days'
        AND d.recorded_at IS DISTINCT FROM l.recorded_at
"""
_MISREMEMBERED: Final = """
    SELECT count(*) FROM audit_dedup AS d
    WHERE NOT EXISTS (SELECT FROM audit_log AS l WHERE l.event_id = d.event_id)
"""
_WAITING: Final = f"""
    SELECT count(*) FROM audit_outbox
    WHERE created_at < clock_timestamp() - interval '{WAIT_SECONDS} s'
"""  # noqa: S608  a number of ours
_UNRECORDED: Final = f"""
    SELECT count(*) FROM audit_log
    WHERE tenant_id = '{DEFAULT_TENANT_ID}' AND action = '{GAP_ACTION}'
"""  # noqa: S608  constants of ours

_QUICK_QUESTIONS: Final = {
    f"waiting in the outbox for more than {WAIT_SECONDS} s": _WAITING,
    "set aside as unreadable (audit_dead_letter)": "SELECT count(*) FROM audit_dead_letter",
    f"notes of reads that nobody could record ({GAP_ACTION})": _UNRECORDED,
}
_SLOW_QUESTIONS: Final = {
    "event ids that are in the log more than once": _DOUBLES,
    "recent events that could be recorded again (audit_dedup)": _UNREMEMBERED,
    "ids remembered without an event (audit_dedup)": _MISREMEMBERED,
}


class PostgresTrailReader:
    """Reads over a connection that is in a transaction of its own."""

    def __init__(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        self._connection = connection

    async def bounds(self) -> ChainBounds:
        last = await self._connection.fetchval("SELECT coalesce(max(seq), 0) FROM audit_chain")
        head = await self._connection.fetchrow("SELECT seq, hash FROM audit_head WHERE id = 1")
        return ChainBounds(
            last_seq=last, head=(-1, b"") if head is None else (head["seq"], head["hash"])
        )

    async def keys(self) -> list[SigningKey]:
        rows = await self._connection.fetch(_KEYS)
        return [SigningKey(**dict(row)) for row in rows]

    async def chain(self, after: int, *, upto: int, limit: int) -> Sequence[ChainRow]:
        rows = await self._connection.fetch(_CHAIN, after, upto, limit)
        return cast("Sequence[ChainRow]", rows)

    async def log(self, after: int, upto: int) -> Sequence[LogRow]:
        return cast("Sequence[LogRow]", await self._connection.fetch(_LOG, after, upto))

    async def checkpoints(self, after: int, limit: int) -> list[StoredCheckpoint]:
        rows = await self._connection.fetch(_CHECKPOINTS, after, limit)
        return [StoredCheckpoint(signed=read_row(row), hash=row["hash"]) for row in rows]

    async def tombstones(self) -> list[StoredTombstone]:
        rows = await self._connection.fetch(LIST_TOMBSTONES)
        return [read_tombstone(row) for row in rows]

    async def find_start(self, seq: int) -> Start:
        row = await self._connection.fetchrow(_COVERING, seq)
        if row is None or row["seq_from"] <= 1:
            return Start()
        first, n, previous = row["seq_from"], row["n"], row["previous"]
        if first > seq:
            # The one that covered it is gone, which has to be said: begin where that one began.
            last = await self._connection.fetchrow(_BEFORE, seq)
            if last is None:
                return Start()
            first, n, previous = last["seq_to"] + 1, last["n"] + 1, last["hash"]
        before = await self._connection.fetchval(
            "SELECT row_hash FROM audit_chain WHERE seq = $1", first - 1
        )
        return Start(seq=first, n=n, row_hash=before or b"", checkpoint_hash=previous)

    async def find_end(self, seq: int) -> int | None:
        row = await self._connection.fetchrow(_COVERING, seq)
        return None if row is None else int(row["seq_to"])

    async def strays(self, last_seq: int) -> list[tuple[int, str, str]]:
        rows = await self._connection.fetch(_STRAY_ROWS, last_seq, MAX_STRAYS)
        found = [
            (row["seq"], f"row {row['seq']}", "in the log, but not in the chain") for row in rows
        ]
        rows = await self._connection.fetch(_STRAY_CHAIN, MAX_STRAYS)
        found += [(row["seq"], f"row {row['seq']}", "before the chain's first row") for row in rows]
        rows = await self._connection.fetch(_STRAY_PERSONAL, MAX_STRAYS)
        found += [
            (last_seq + 1, f"personal fields of {row['id']}", "there is no such event in the log")
            for row in rows
        ]
        different = await find_rollup_differences(self._connection, MAX_STRAYS)
        found += [(last_seq + 1, subject, what) for subject, what in different]
        return found

    async def gaps(self, *, is_fast: bool) -> list[Gap]:
        questions = _QUICK_QUESTIONS if is_fast else {**_QUICK_QUESTIONS, **_SLOW_QUESTIONS}
        counted = [
            Gap(what=what, count=await self._connection.fetchval(query))
            for what, query in questions.items()
        ]
        return [gap for gap in counted if gap.count]


@asynccontextmanager
async def open_snapshot(
    settings: DatabaseSettings,
) -> "AsyncIterator[asyncpg.Connection[asyncpg.Record]]":
    """Connect and take a snapshot; nothing that happens meanwhile is seen.

    Raises:
        LogUnavailableError: PostgreSQL does not answer.
    """
    arguments: dict[str, Any] = system_arguments(settings)
    arguments["command_timeout"] = None
    arguments["server_settings"] = {
        **arguments["server_settings"],
        "application_name": "maas-verify",
        "statement_timeout": "0",
        "idle_in_transaction_session_timeout": "0",
    }
    try:
        connection = await asyncpg.connect(**arguments)
        try:
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                await connection.execute(_HOLD_PARTITIONS)
                yield connection
        finally:
            await connection.close()
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as exc:
        raise LogUnavailableError(str(exc) or type(exc).__name__) from exc
