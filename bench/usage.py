"""Usage over ten million calls, asked over HTTP as `maas_app`, and what settling at once costs.

The rollups are held against the rows first, so that a quick answer is also the right one.
"""

import asyncio
import statistics
import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final, TypeAlias
from uuid import UUID

import asyncpg
import httpx
import psutil

from bench.platform import RunningPlatform, cpu_ms_of
from bench.trail import TrailRow
from bench.trail_data import superuser_arguments
from bench.usage_data import FilledUsage, Progress, fill_usage
from maas.shared.domain.ids import DEFAULT_TENANT_ID, new_id
from maas.user.infrastructure.usage_check import find_usage_differences

P95_GOAL_MS: Final = 100.0
ASKED: Final = 40
USAGE: Final = "/usage"

SETTLING_SECONDS: Final = 4.0
SETTLERS: Final = 4
BATCH: Final = 20

Query: TypeAlias = list[tuple[str, str]]
Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


def measure_usage(
    platform: RunningPlatform, *, rows: int, progress: Progress = print
) -> list[TrailRow]:
    """Fill a platform's ledger, past the trigger, and ask it everything."""
    arguments = superuser_arguments(platform.data_dir)
    filled = asyncio.run(fill_usage(arguments, rows=rows, progress=progress))
    checked = asyncio.run(_check(arguments))
    headers = {"Authorization": f"Bearer {platform.sign_in()}"}
    supervisor = psutil.Process(platform.process.pid)
    asked, all_ms = [], list[float]()
    with httpx.Client(base_url=f"{platform.url}/api/v1", headers=headers, timeout=60) as client:
        for name, query in _questions(filled).items():
            row, ms = _ask(client, supervisor, name, query)
            asked.append(row)
            all_ms += ms
    p95 = statistics.quantiles(all_ms, n=20)[-1]
    everything = TrailRow(
        name="usage, all of these: p50, p95",
        figure=f"{statistics.median(all_ms):.1f}, {p95:.1f} ms",
        goal=f"p95 <= {P95_GOAL_MS:.0f} ms",
        is_met=p95 <= P95_GOAL_MS,
    )
    return [checked, *asked, everything, *asyncio.run(_settle(arguments))]


def _questions(filled: FilledUsage) -> dict[str, Query]:
    month = (filled.last - timedelta(days=30), filled.last)
    quarter = (filled.first, filled.last)
    key, account = str(filled.key), str(filled.account)
    return {
        "this month by day": [],
        "this month by key": _by("key"),
        "this month by user": _by("user"),
        "30 days by day": _by("day", span=month),
        "30 days by day and model": _by("day", "model", span=month),
        "30 days by key": _by("key", span=month),
        "30 days by user": _by("user", span=month),
        "30 days by key and model": _by("key", "model", span=month),
        "30 days by day and key": _by("day", "key", span=month),
        "30 days of a key by day": _by("day", span=month, api_key_id=key),
        "30 days of a user by day and model": _by("day", "model", span=month, account_id=account),
        "30 days of a model by key": _by("key", span=month, model=filled.model),
        "92 days by day": _by("day", span=quarter),
        "92 days by model and currency": _by("model", "currency", span=quarter),
        "92 days by key": _by("key", span=quarter),
        "92 days by user": _by("user", span=quarter),
        "92 days by day and user": _by("day", "user", span=quarter),
        "92 days of a key by day and model": _by("day", "model", span=quarter, api_key_id=key),
        "92 days of a model by user": _by("user", span=quarter, model=filled.model),
    }


def _by(*groups: str, span: tuple[datetime, datetime] | None = None, **filters: str) -> Query:
    query = [("group_by", group) for group in groups]
    if span is not None:
        query += [("since", _spell(span[0])), ("until", _spell(span[1]))]
    return [*query, *filters.items()]


def _spell(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")


def _ask(
    client: httpx.Client, supervisor: psutil.Process, name: str, query: Query
) -> tuple[TrailRow, list[float]]:
    """Ask for the first page and for those that follow, as long as there are any."""
    ms, before, cursor = list[float](), cpu_ms_of(supervisor), None
    for _ in range(ASKED):
        parameters = httpx.QueryParams([*query, *([("cursor", cursor)] if cursor else [])])
        began = time.perf_counter()
        answer = client.get(USAGE, params=parameters)
        ms.append((time.perf_counter() - began) * 1000)
        cursor = answer.raise_for_status().json()["next_cursor"]
    p95, cpu = statistics.quantiles(ms, n=20)[-1], (cpu_ms_of(supervisor) - before) / ASKED
    return TrailRow(
        name=f"usage, {name}: p50, p95, CPU of all processes",
        figure=f"{statistics.median(ms):.1f}, {p95:.1f}, {cpu:.1f} ms",
        goal=f"p95 <= {P95_GOAL_MS:.0f} ms",
        is_met=p95 <= P95_GOAL_MS,
    ), ms


async def _check(arguments: dict[str, Any]) -> TrailRow:
    connection = await asyncpg.connect(**arguments, command_timeout=1_800)
    try:
        await connection.execute("SET work_mem = '512MB'; SET enable_sort = off")
        began = time.perf_counter()
        found = await find_usage_differences(connection)
        took = time.perf_counter() - began
        total = await connection.fetchval("SELECT sum(requests) FROM usage_days")
    finally:
        await connection.close()
    return TrailRow(
        name="usage, the rollups beside the rows",
        figure=found[0] if found else f"equal: {int(total):,} calls, compared in {took:.0f} s",
        goal="equal",
        is_met=not found,
    )


async def _settle(arguments: dict[str, Any]) -> list[TrailRow]:
    """Insert as settling does, from several connections: with rollups and without, hot and not."""
    rates = {}
    for name, keys, role in (
        ("keys of their own", SETTLERS * BATCH, "origin"),
        ("one key", 1, "origin"),
        ("one key, past the rollups", 1, "replica"),
    ):
        ids = [new_id() for _ in range(keys)]
        settled = await asyncio.gather(*(
            _settle_for_a_while(arguments, ids[each::SETTLERS] or ids, role)
            for each in range(SETTLERS)
        ))  # fmt: skip
        rates[name] = sum(settled) / SETTLING_SECONDS
    return [
        TrailRow(
            name=f"usage, {SETTLERS} connections settling {BATCH} calls at a time of {name}",
            figure=f"{rate:,.0f} calls/s",
        )
        for name, rate in rates.items()
    ]


_INSERT: Final = """
    INSERT INTO usage (id, at, tenant_id, actor_kind, api_key_id, model, request_id, requests,
        input_tokens, cached_tokens, output_tokens, reasoning_tokens, storage_bytes, cost_nanos,
        currency, is_estimated, is_overrun)
    SELECT uuidv7(), clock_timestamp(), $1, 'account', key, 'model-1', 'bench', 1, 900, 0, 100, 0,
        0, 195000, 'USD', false, false
    FROM unnest($2::uuid[]) AS key
    ON CONFLICT (at, id) DO NOTHING
"""


async def _settle_for_a_while(arguments: dict[str, Any], keys: Sequence[UUID], role: str) -> int:
    connection: Connection = await asyncpg.connect(**arguments)
    settled, until = 0, time.perf_counter() + SETTLING_SECONDS
    try:
        await connection.execute(f"SET session_replication_role = {role}")
        batch = [keys[number % len(keys)] for number in range(BATCH)]
        while time.perf_counter() < until:
            await connection.execute(_INSERT, DEFAULT_TENANT_ID, batch)
            settled += BATCH
    finally:
        await connection.close()
    return settled
