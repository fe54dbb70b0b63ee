"""Pages of an export, each read in a transaction of its own, as `maas_app`."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, TypeAlias

import asyncpg

from maas.audit.application.export_ports import (
    PAGE_BYTES,
    ExportedEvent,
    ExportPage,
    ExportRequest,
    PageRequest,
    Stretch,
    in_slices,
)
from maas.audit.application.proofs import CheckpointDetails
from maas.audit.domain.chain_check import Start
from maas.audit.domain.event import spell_instant
from maas.audit.domain.tombstone import SignedTombstone
from maas.audit.infrastructure.checkpoints import COLUMNS, read_row
from maas.audit.infrastructure.retention import read_tombstone
from maas.audit.infrastructure.tombstone_tables import audit_tombstones
from maas.shared.infrastructure.database import Database, PooledConnection

_BURIED: Final = tuple(
    column.name for column in audit_tombstones.columns if column.name != "packed"
)
# Which rows, packed, may be megabytes, and is not needed to say what they were.
_TOMBSTONES: Final = f"""
    SELECT {", ".join(_BURIED)}, ''::bytea AS packed
    FROM audit_tombstones WHERE last_seq >= $1 AND first_seq <= $2 ORDER BY n
"""  # noqa: S608  fixed words, no input
_KEYS: Final = "SELECT * FROM audit_signing_keys ORDER BY first_seq, key_id"
_CHAIN: Final = """
    SELECT seq, recorded_at, leaf, row_hash FROM audit_chain
    WHERE seq > $1 AND seq <= $2 ORDER BY seq LIMIT $3
"""
# The times leave most partitions unread.
_OWN: Final = """
    FROM audit_log AS l
    LEFT JOIN audit_personal AS p ON p.event_id = l.event_id
    WHERE l.tenant_id = $1 AND l.seq > $2 AND l.seq <= $3
        AND l.recorded_at >= $4 AND l.recorded_at <= $5{conditions}
"""
# Sizes are known without reading large payloads, and those behind the limit are not sent.
_FULL: Final = """
    SELECT l.seq, l.duration_ms, CASE
            WHEN sum(octet_length(l.payload)) OVER (ORDER BY l.seq) - octet_length(l.payload)
                < {page_bytes}
            THEN l.payload
        END AS payload,
        p.event_id AS known, p.actor_name, p.email, host(p.address) AS address, p.user_agent, p.salt
"""
_PROOF: Final = "SELECT l.seq, l.duration_ms, p.event_id AS known, p.salt"
_CHECKPOINTS: Final = f"""
    SELECT {", ".join(COLUMNS)} FROM audit_checkpoints
    WHERE n > $1 AND seq_from <= $2 ORDER BY n LIMIT $3
"""  # noqa: S608  fixed words, no input
_HEAD: Final = "SELECT n, seq_to, head, hash FROM audit_checkpoints ORDER BY n DESC LIMIT 1"
_COVERING: Final = """
    SELECT n, seq_from, seq_to FROM audit_checkpoints WHERE seq_to >= $1 ORDER BY seq_to LIMIT 1
"""
_BEFORE: Final = "SELECT head, hash FROM audit_checkpoints WHERE n = $1"
_RECORDED_AT: Final = "SELECT recorded_at FROM audit_chain WHERE seq = $1"

# How much of the log a filter leaves decides between the indexes, so the values come first.
_PLAN_BY_VALUE: Final = "SET LOCAL plan_cache_mode = force_custom_plan"

_PERSONAL: Final = ("actor_name", "email", "address", "user_agent")
_EQUAL: Final = ("actor_id", "resource_kind", "resource_id", "outcome", "request_id")
_FIXED: Final = 5
"""So many arguments come before those of the conditions."""

_LAST_CHARACTER: Final = "\U0010ffff"

_Rows: TypeAlias = Sequence[asyncpg.Record]


class PostgresExportReader:
    def __init__(self, database: Database, *, page_bytes: int = PAGE_BYTES) -> None:
        self._database = database
        self._full = _FULL.replace("{page_bytes}", str(page_bytes))

    async def keys(self) -> Sequence[Mapping[str, Any]]:
        async with self._database.acquire() as connection:
            rows = await connection.fetch(_KEYS)
        return [
            {
                "key_id": row["key_id"],
                "public_key": row["public_key"].hex(),
                "first_seq": row["first_seq"],
                "created_at": spell_instant(row["created_at"]),
            }
            for row in rows
        ]

    async def find_stretch(
        self, recorded_from: datetime | None, recorded_to: datetime | None, upto_seq: int | None
    ) -> Stretch:
        async with self._database.acquire() as connection:
            head = await connection.fetchrow(_HEAD)
            if head is None:
                return Stretch(start=Start(), seq_to=0)
            last = head["seq_to"]
            after = Start(
                seq=last + 1, n=head["n"] + 1, row_hash=head["head"], checkpoint_hash=head["hash"]
            )
            first, final = 1, last if upto_seq is None else min(upto_seq, last)
            if recorded_from is not None:
                first = await _find_row(connection, last, recorded_from, is_after=False)
            if recorded_to is not None:
                beyond = await _find_row(connection, last, recorded_to, is_after=True)
                final = min(final, beyond - 1)
            start = after if first > last else await _start_of(connection, first)
            if final >= start.seq:
                covering = await connection.fetchrow(_COVERING, final)
                final = last if covering is None else covering["seq_to"]
        return Stretch(start=start, seq_to=max(final, start.seq - 1))

    async def page(self, request: ExportRequest, page: PageRequest) -> ExportPage:
        is_full = request.content == "full"
        own, arguments = _own(request)
        signed: _Rows = []
        async with self._database.tenant(request.tenant_id) as connection:
            rows = await connection.fetch(_CHAIN, page.after, page.upto, page.limit)
            last = rows[-1]["seq"] if rows else page.upto
            # The clock that gave them may have been set back between two of them.
            times = [row["recorded_at"] for row in rows]
            events: _Rows = []
            if times:
                await connection.execute(_PLAN_BY_VALUE)
                query = (self._full if is_full else _PROOF) + own
                bounds = (request.tenant_id, page.after, last, min(times), max(times))
                events = await connection.fetch(query, *bounds, *arguments)
                if is_full:
                    events, next_seq = _fitting(events, last + 1)
                    last = next_seq - 1
                    rows = [row for row in rows if row["seq"] <= last]
            if page.after_n is not None:
                # No checkpoint is empty, so no more of them begin among these rows.
                signed = await connection.fetch(_CHECKPOINTS, page.after_n, last, page.limit)
        return await _page(rows, events, signed, is_full=is_full)

    async def tombstones(self, first_seq: int, last_seq: int) -> Sequence[SignedTombstone]:
        async with self._database.acquire() as connection:
            rows = await connection.fetch(_TOMBSTONES, first_seq, last_seq)
        return [read_tombstone(row).signed for row in rows]


async def _find_row(
    connection: PooledConnection, last: int, at: datetime, *, is_after: bool
) -> int:
    """Find the first row recorded then or later, or later than then; behind the last if none.

    Rows are recorded in order of time, unless PostgreSQL's clock was set back: then it is one of
    the rows around.
    """
    low, high = 1, last + 1
    while low < high:
        middle = (low + high) // 2
        found = await connection.fetchval(_RECORDED_AT, middle)
        if found is not None and (found <= at if is_after else found < at):
            low = middle + 1
        else:
            high = middle
    return low


async def _start_of(connection: PooledConnection, seq: int) -> Start:
    """Begin at the first row of the checkpoint that covers this one."""
    covering = await connection.fetchrow(_COVERING, seq)
    if covering is None or covering["n"] == 1:
        return Start()
    before = await connection.fetchrow(_BEFORE, covering["n"] - 1)
    if before is None:
        # Somebody took it out: what remains is told from the first row on.
        return Start()
    return Start(
        seq=covering["seq_from"],
        n=covering["n"],
        row_hash=before["head"],
        checkpoint_hash=before["hash"],
    )


def _fitting(events: _Rows, end: int) -> tuple[_Rows, int]:
    """List the events that fit into a page, and say where the next begins."""
    next_seq = min((row["seq"] for row in events if row["payload"] is None), default=end)
    return [row for row in events if row["seq"] < next_seq], next_seq


def _own(request: ExportRequest) -> tuple[str, list[object]]:
    """Spell what the wanted events have in common; values never enter the text."""
    wanted, arguments = request.wanted, list[object]()
    texts = [""]
    for text, value in (
        *((f"l.{column} = {{}}", getattr(wanted, column)) for column in _EQUAL),
        *_of_action(wanted.action),
        ("l.occurred_at >= {}", wanted.since),
        ("l.occurred_at < {}", wanted.until),
    ):
        if value is not None:
            arguments.append(value)
            texts.append(text.format(f"${_FIXED + len(arguments)}"))
    return _OWN.replace("{conditions}", " AND ".join(texts)), arguments


def _of_action(action: str | None) -> list[tuple[str, str | None]]:
    if action is None or not action.endswith("*"):
        return [("l.action = {}", action)]
    prefix = action.removesuffix("*")
    return [("l.action >= {}", prefix), ("l.action < {}", prefix + _LAST_CHARACTER)]


async def _page(rows: _Rows, events: _Rows, signed: _Rows, *, is_full: bool) -> ExportPage:
    own = dict[int, ExportedEvent]()
    async for some in in_slices(events):
        own.update({row["seq"]: _event(row, is_full=is_full) for row in some})
    return ExportPage(
        rows=[tuple(row) for row in rows],
        events=own,
        checkpoints=[
            CheckpointDetails(signed=read_row(row), hash=row["hash"], public_key=b"")
            for row in signed
        ],
    )


def _event(row: Any, *, is_full: bool) -> ExportedEvent:
    personal = None
    if row["known"] is not None:
        names = _PERSONAL if is_full else ()
        personal = {name: row[name] for name in names if row[name] is not None}
        personal["salt"] = row["salt"].hex()
    return ExportedEvent(
        payload=row["payload"] if is_full else None,
        duration_ms=row["duration_ms"],
        personal=personal,
    )
