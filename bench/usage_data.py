"""A ledger of millions of calls, as if they had been settled over three months.

PostgreSQL makes the rows by itself, month by month, past the trigger; the rollups are added up from
them once at the end.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, TypeAlias
from uuid import UUID

import asyncpg

from maas.shared.domain.ids import DEFAULT_TENANT_ID
from maas.user.infrastructure.usage_check import FIGURES, ROLLUPS

ROWS: Final = 10_000_000
DAYS: Final = 92
KEYS: Final = 2_000
ACCOUNTS: Final = 500
MODELS: Final = 12
SLOTS: Final = 8
TABLES: Final = "usage, usage_days, usage_weeks, usage_months, usage_model_days"

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
Progress: TypeAlias = Callable[[str], None]

# Few keys make most calls, as the cube of chance has it, and each calls three models: one mostly.
# Every twentieth call is another tenant's.
_FILL: Final = """
    INSERT INTO usage (id, at, settled_at, tenant_id, account_id, actor_kind, api_key_id, model,
        provider, request_id, requests, input_tokens, cached_tokens, output_tokens,
        reasoning_tokens, storage_bytes, cost_nanos, currency, is_estimated, is_overrun)
    SELECT uuidv7(), at, at + interval '2 seconds',
        CASE WHEN n % 20 = 0 THEN '01900000-0000-7000-8000-0000000000ff'::uuid ELSE $1::uuid END,
        lpad(to_hex(key % $2), 32, '0')::uuid,
        CASE WHEN key % $2 < 50 THEN 'service_account' ELSE 'account' END,
        CASE WHEN key % 10 <> 0 THEN lpad(to_hex(key), 32, 'f')::uuid END,
        'model-' || (key * 7 + favour) % $3, 'acme', to_hex(n), 1,
        input, input / 4, output, output / 8, 0,
        CASE WHEN (key * 7 + favour) % $3 <> 0 THEN input * 150 + output * 600 ELSE 0 END,
        CASE WHEN (key * 7 + favour) % $3 = 0 THEN NULL
            WHEN (key * 7 + favour) % $3 < 3 THEN 'CNY' ELSE 'USD' END,
        n % 500 = 0, n % 5000 = 0
    FROM (
        SELECT n, $4::timestamptz + n * $5::interval AS at,
            floor(pow(random(), 3) * $6)::integer AS key,
            (array[0, 0, 0, 0, 0, 0, 0, 1, 1, 2])[1 + floor(random() * 10)::integer] AS favour,
            100 + floor(random() * 4000)::integer AS input,
            10 + floor(random() * 900)::integer AS output
        FROM generate_series($7::bigint, $8::bigint - 1) AS n
    ) AS calls
"""
_PARTITIONS: Final = """
    SELECT usage_ensure_partition(at)
    FROM generate_series(date_trunc('month', $1::timestamptz), $2, interval '1 month') AS at
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class FilledUsage:
    """What was filled in, for those who ask questions about it."""

    rows: int
    first: datetime
    last: datetime
    key: UUID
    account: UUID
    model: str


def key_id(number: int) -> UUID:
    return UUID(f"{number:x}".rjust(32, "f"))


async def fill_usage(
    connect: dict[str, Any], *, rows: int = ROWS, progress: Progress = print
) -> FilledUsage:
    """Replace the ledger by this many rows; `connect` are a superuser's arguments of asyncpg."""
    control: Connection = await asyncpg.connect(**connect)
    began = time.perf_counter()
    try:
        last: datetime = await control.fetchval("SELECT clock_timestamp()")
        first = last - timedelta(days=DAYS)
        await control.execute("SET session_replication_role = replica")
        await control.execute(f"TRUNCATE {TABLES}")
        await control.fetch(_PARTITIONS, first, last)
        half = rows // 2
        await asyncio.gather(*(
            _fill_part(connect, rows, first, part) for part in ((0, half), (half, rows))
        ))  # fmt: skip
        progress(f"{rows:,} rows in {time.perf_counter() - began:.0f} s")
        took = await add_up(control)
        progress(f"added up in {took:.0f} s")
        await control.execute(f"VACUUM (ANALYZE) {TABLES}")
        await control.execute("CHECKPOINT")
    finally:
        await control.close()
    return FilledUsage(
        rows=rows,
        first=first,
        last=last,
        key=key_id(1),
        account=UUID(int=1),
        model="model-1",
    )


async def _fill_part(
    connect: dict[str, Any], rows: int, first: datetime, part: tuple[int, int]
) -> None:
    connection = await asyncpg.connect(**connect)
    try:
        await connection.execute("SET session_replication_role = replica")
        await connection.execute("SET synchronous_commit = off")
        step = timedelta(days=DAYS) / rows
        values = (DEFAULT_TENANT_ID, ACCOUNTS, MODELS, first, step, KEYS, *part)
        await connection.execute(_FILL, *values, timeout=1_800)
    finally:
        await connection.close()


async def add_up(connection: Connection) -> float:
    """Fill the rollups from the rows; tell how many seconds that took.

    As many rows as processes and slots make of what a tenant shares: one has the sums, the rest
    have none.
    """
    began = time.perf_counter()
    # How few groups there are, no estimate knows, and sorting every row takes ten times as long.
    await connection.execute("SET work_mem = '512MB'; SET enable_sort = off")
    for rollup in ROLLUPS:
        keys, figures = ", ".join(rollup.keys), ", ".join(FIGURES)
        counted = f"({rollup.counted}) AS counted ({keys}, {figures})"
        # As time goes by a day's rows come to lie together, and so they do here.
        if rollup.table != "usage_model_days":
            added = f"({keys}, {figures}) SELECT * FROM {counted} ORDER BY {keys}"  # noqa: S608  fixed words
        else:
            spread = ", ".join(f"CASE slot WHEN 0 THEN {name} ELSE 0 END" for name in FIGURES)
            added = (
                f"({keys}, slot, {figures}) SELECT {keys}, slot, {spread} FROM {counted},"  # noqa: S608  likewise
                f" generate_series(0, {SLOTS - 1}) AS slot ORDER BY {keys}"
            )
        await connection.execute(f"INSERT INTO {rollup.table} {added}", timeout=1_800)
    return time.perf_counter() - began
