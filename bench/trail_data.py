"""A tenant with millions of events, chained and signed as if the flush had written them.

    python -m bench.trail_data --data-dir DIR [--events N]

fills the platform that is up on this folder, whose own few events go first. What made them does not
flush meanwhile: this holds the head of the chain.
"""

import argparse
import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final, TypeAlias

import asyncpg

from bench.trail_events import DAYS, Batch, Span, Tenant
from maas.audit.domain.chain import GENESIS, micros, row_hash
from maas.audit.infrastructure.checkpoints import Batch as Stretch
from maas.audit.infrastructure.checkpoints import Last, write_checkpoints
from maas.audit.infrastructure.ledger import (
    CHAIN_COLUMNS,
    DEDUP_COLUMNS,
    LOG_COLUMNS,
    PERSONAL_COLUMNS,
    REMEMBERED,
)
from maas.audit.infrastructure.rollup_check import ROLLUPS
from maas.audit.infrastructure.signing import Ed25519Signer, load_signer
from maas.audit.infrastructure.terms import keep_terms, terms_of
from maas.embedded.endpoints import find_running
from maas.embedded.postgres import PORT, SUPERUSER
from maas.shared.domain.ids import DEFAULT_TENANT_ID, TenantId
from maas.shared.infrastructure.settings import AuditSettings

EVENTS: Final = 5_000_000
SLICE: Final = 20_000
PROCESSES: Final = 2

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
Progress: TypeAlias = Callable[[str], None]

_TABLES: Final = (
    "audit_log, audit_chain, audit_personal, audit_dedup, audit_checkpoints, audit_signing_keys,"
    " audit_terms, audit_rollup_hours, audit_rollup_days, audit_rollup_weeks, audit_tombstones,"
    " audit_erased_events, audit_watch_points, audit_watch_quiet, audit_deliveries, audit_alerts"
)
_INDEXES: Final = """
    SELECT i.indexrelid::regclass::text AS name, pg_get_indexdef(i.indexrelid) AS definition
    FROM pg_index i
    WHERE i.indrelid = ANY ('{audit_log,audit_personal}'::regclass[]) AND NOT i.indisprimary
    ORDER BY 1
"""
_PARTITIONS: Final = """
    SELECT audit_ensure_partition(class, at)
    FROM unnest('{security,operations,usage}'::text[]) AS class,
         generate_series(date_trunc('month', $1::timestamptz), $2, interval '1 month') AS at
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Filled:
    """What was filled in, for those who ask questions about it."""

    tenant: Tenant
    span: Span


@dataclass(frozen=True, slots=True)
class _Slice:
    """What one process is to write: events from number `first` on, and where."""

    connect: dict[str, Any]
    tenant_id: TenantId
    span: Span
    first: int
    count: int
    remembered_since: datetime


_tenants: dict[TenantId, Tenant] = {}


async def fill(
    connect: dict[str, Any],
    *,
    signer: Ed25519Signer,
    events: int = EVENTS,
    tenant_id: TenantId = DEFAULT_TENANT_ID,
    days: float = DAYS,
    progress: Progress = print,
) -> Filled:
    """Replace the trail by this many events; `connect` are a superuser's arguments of asyncpg."""
    control = await asyncpg.connect(**connect)
    try:
        now: datetime = await control.fetchval("SELECT clock_timestamp()")
        span = Span(now - timedelta(days=days), now - timedelta(minutes=1), events)
        await control.execute("SET session_replication_role = replica")
        await control.execute("SET lock_timeout = '60s'")
        async with _without_indexes(control, progress):
            # Until this ends no flush begins; what is recorded meanwhile waits.
            async with control.transaction():
                await control.execute("SELECT seq FROM audit_head WHERE id = 1 FOR UPDATE")
                await control.execute("SELECT seq FROM audit_watch WHERE id = 1 FOR UPDATE")
                await _clear(connect, span)
                chain = _Chain(control, signer)
                await _write(chain, connect, tenant_id, span, progress)
                # Rules would else judge millions of events while questions are measured.
                await control.execute("UPDATE audit_watch SET seq = $1", events)
                progress("counting rollups")
                await _count_rollups(control)
            progress("building indexes")
        await control.execute(f"VACUUM ANALYZE {_TABLES}")
        await control.execute("CHECKPOINT")
    finally:
        await control.close()
    return Filled(tenant=Tenant(tenant_id), span=span)


async def _count_rollups(control: Connection) -> None:
    for each in ROLLUPS:
        columns = f"tenant_id, {each.bucket}, {each.of}, retention_class, period"
        figures = "events, failures, denials, newest_seq"
        # In the order of time, as the flush would have come to them: a day's rows lie together.
        counted = f"SELECT * FROM ({each.counted}) AS counted ORDER BY 2"  # noqa: S608  fixed words
        await control.execute(f"INSERT INTO {each.table} ({columns}, {figures}) {counted}")


async def _clear(connect: dict[str, Any], span: Span) -> None:
    """Empty the trail, so that what a platform told of its start does not lie before all of it."""
    cleaner = await asyncpg.connect(**connect)
    try:
        await cleaner.execute("SET session_replication_role = replica")
        await cleaner.execute(f"TRUNCATE {_TABLES}")
        await cleaner.fetch(_PARTITIONS, span.first - timedelta(days=3), span.last)
    finally:
        await cleaner.close()


@asynccontextmanager
async def _without_indexes(control: Connection, progress: Progress) -> AsyncIterator[None]:
    """Drop the indexes but for primary keys, and build them in one go at the end."""
    indexes = await control.fetch(_INDEXES)
    for index in indexes:
        await control.execute(f"DROP INDEX {index['name']}")
    yield
    await control.execute("SET maintenance_work_mem = '1GB'")
    for index in indexes:
        began = time.perf_counter()
        await control.execute(index["definition"].replace(" ON ONLY ", " ON "))
        progress(f"  {index['name']}: {time.perf_counter() - began:.1f} s")


async def _write(
    chain: "_Chain",
    connect: dict[str, Any],
    tenant_id: TenantId,
    span: Span,
    progress: Progress,
) -> None:
    """Have slices written by several processes, and chain and sign them here, in order."""
    since = span.last - REMEMBERED
    slices = [
        _Slice(connect, tenant_id, span, first, min(SLICE, span.events - first), since)
        for first in range(0, span.events, SLICE)
    ]
    began = time.perf_counter()
    with ProcessPoolExecutor(PROCESSES) as pool:
        loop = asyncio.get_running_loop()
        waiting = [loop.run_in_executor(pool, _write_slice, each) for each in slices]
        for number, written in enumerate(waiting, 1):
            for recorded_at, leaves in await written:
                await chain.add(recorded_at, leaves)
            await chain.store()
            if number % 10 == 0 or number == len(waiting):
                seconds = time.perf_counter() - began
                progress(f"{chain.seq:,} of {span.events:,} events in {seconds:.0f} s")
    await chain.finish()


class _Chain:
    def __init__(self, connection: Connection, signer: Ed25519Signer) -> None:
        self.seq = 0
        self.hash = GENESIS
        self._connection = connection
        self._signer = signer
        self._last = Last()
        self._rows: list[tuple[object, ...]] = []

    async def add(self, recorded_at: datetime, leaves: Sequence[bytes]) -> None:
        at, first = micros(recorded_at), self.seq + 1
        for leaf in leaves:
            self.seq += 1
            self.hash = row_hash(self.hash, seq=self.seq, recorded_micros=at, leaf=leaf)
            self._rows.append((self.seq, recorded_at, leaf, self.hash))
        stretch = Stretch(first, recorded_at, leaves, self.hash)
        await write_checkpoints(self._connection, stretch, last=self._last, signer=self._signer)
        newest = await self._connection.fetchrow(
            "SELECT n, seq_to, hash, key_id FROM audit_checkpoints ORDER BY n DESC LIMIT 1"
        )
        assert newest is not None  # noqa: S101  it was written a moment ago
        self._last = Last(*newest)

    async def store(self) -> None:
        await self._connection.copy_records_to_table(
            "audit_chain", records=self._rows, columns=CHAIN_COLUMNS
        )
        self._rows = []

    async def finish(self) -> None:
        await self._connection.execute(
            "UPDATE audit_head SET seq = $1, hash = $2 WHERE id = 1", self.seq, self.hash
        )
        # No rule is to look at months of events as if they came in this moment.
        await self._connection.execute("UPDATE audit_watch SET seq = $1", self.seq)


def _write_slice(wanted: _Slice) -> list[tuple[datetime, list[bytes]]]:
    """Write the log's and the personal rows of a slice; return what the chain is made of."""
    tenant = _tenants.get(wanted.tenant_id) or Tenant(wanted.tenant_id)
    _tenants[wanted.tenant_id] = tenant
    batches = list(tenant.make(wanted.span, wanted.first, wanted.count))
    asyncio.run(_copy(wanted, batches))
    return [(batch.recorded_at, [item.leaf for item in batch.records]) for batch in batches]


async def _copy(wanted: _Slice, batches: Sequence[Batch]) -> None:
    log_rows, personal_rows, dedup_rows = [], [], []
    seq = wanted.first
    for batch in batches:
        at = batch.recorded_at
        for item in batch.records:
            seq += 1
            log_rows.append((
                seq, at, item.retention_class, item.event_id, item.tenant_id, item.occurred_at,
                item.actor_kind, item.actor_id, item.session_id, item.api_key_id, item.action,
                item.resource_kind, item.resource_id, item.outcome, item.reason, item.request_id,
                item.duration_ms, item.payload,
            ))  # fmt: skip
            personal_rows.append((
                item.event_id, item.tenant_id, item.actor_name, item.email, item.address,
                item.user_agent, item.salt, item.occurred_at,
            ))  # fmt: skip
            if at > wanted.remembered_since:
                dedup_rows.append((item.event_id, at))
    connection = await asyncpg.connect(**wanted.connect)
    try:
        # The rollups are counted in one go at the end: that is a tenth of the time.
        await connection.execute("SET session_replication_role = replica")
        await connection.execute("SET synchronous_commit = off")
        for table, columns, rows in (
            ("audit_log", LOG_COLUMNS, log_rows),
            ("audit_personal", PERSONAL_COLUMNS, personal_rows),
            ("audit_dedup", DEDUP_COLUMNS, dedup_rows),
        ):
            await connection.copy_records_to_table(table, records=rows, columns=columns)
        records = [item for batch in batches for item in batch.records]
        await keep_terms(connection, terms_of(records, erased=()))
    finally:
        await connection.close()


def superuser_arguments(data_dir: Path) -> dict[str, Any]:
    """Arguments to connect to the database of a platform that is up on this folder."""
    running = find_running(data_dir)
    if running is None:
        message = "the platform is not up"
        raise RuntimeError(message)
    return {
        "host": str(running.folder.postgres_sockets),
        "port": PORT,
        "user": SUPERUSER,
        "password": running.credentials.superuser_password,
        "database": "maas",
    }


def fill_platform(
    data_dir: Path, *, events: int = EVENTS, days: float = DAYS, progress: Progress = print
) -> Filled:
    """Fill the platform that is up on this folder, signed with its own key."""
    running = find_running(data_dir)
    if running is None:
        message = "the platform is not up"
        raise RuntimeError(message)
    settings = AuditSettings(signing_key_file=running.folder.audit_key_file)
    signer = load_signer(settings, secret_key=running.credentials.secret_key)
    arguments = superuser_arguments(data_dir)
    # What was noted of the trail that is replaced would belie this one.
    (running.folder.root / "audit" / "heads.ndjson").unlink(missing_ok=True)
    return asyncio.run(fill(arguments, signer=signer, events=events, days=days, progress=progress))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.trail_data", description=__doc__)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--events", type=int, default=EVENTS)
    arguments = parser.parse_args()
    began = time.perf_counter()
    fill_platform(arguments.data_dir, events=arguments.events)
    print(f"{arguments.events:,} events in {time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
