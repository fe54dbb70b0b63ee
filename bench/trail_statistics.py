"""Statistics over a tenant's millions: how fast over HTTP, and whether they are what the rows are.

Thirty days that are over are asked about, so that nothing is added to them meanwhile.
"""

import asyncio
import statistics
import time
from collections import Counter
from datetime import datetime, timedelta
from typing import Any, Final, TypeAlias

import asyncpg
import httpx
import psutil

from bench.platform import RunningPlatform, cpu_ms_of
from bench.trail import TrailRow
from bench.trail_data import Filled, superuser_arguments
from maas.audit.infrastructure.rollup_check import ROLLUPS
from maas.shared.domain.ids import TenantId

P95_GOAL_MS: Final = 50.0
DAYS: Final = timedelta(days=30)
ASKED: Final = 60
STATS: Final = "/audit/stats"

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
Query: TypeAlias = list[tuple[str, str]]

QUESTIONS: Final[dict[str, Query]] = {
    "by action": [],
    "by outcome": [("group_by", "outcome")],
    "by actor": [("group_by", "actor")],
    "by hour": [("group_by", "hour")],
    "by day": [("group_by", "day")],
    "by day and action": [("group_by", "day"), ("group_by", "action")],
    "by day and outcome": [("group_by", "day"), ("group_by", "outcome")],
    "by day and actor": [("group_by", "day"), ("group_by", "actor")],
    "by hour and outcome": [("group_by", "hour"), ("group_by", "outcome")],
    "by hour and action, top 3": [("group_by", "hour"), ("group_by", "action"), ("limit", "3")],
    "failures by action": [("outcome", "failure")],
    "denied by actor": [("group_by", "actor"), ("outcome", "denied")],
    "auth.* by day": [("group_by", "day"), ("action", "auth.*")],
}

_COUNTED: Final = """
    SELECT action, outcome, actor_kind || ' ' || coalesce(actor_id::text, '') AS actor,
        date_trunc('hour', occurred_at, 'UTC') AS hour,
        date_trunc('day', occurred_at, 'UTC') AS day, count(*) AS events
    FROM audit_log WHERE tenant_id = $1 AND occurred_at >= $2 AND occurred_at < $3
    GROUP BY 1, 2, 3, 4, 5
"""


def measure_statistics(platform: RunningPlatform, filled: Filled) -> list[TrailRow]:
    """Ask each question of a platform that was filled past the trigger."""
    return asyncio.run(_measure(platform, filled))


async def _measure(platform: RunningPlatform, filled: Filled) -> list[TrailRow]:
    connection = await asyncpg.connect(**superuser_arguments(platform.data_dir))
    until = filled.span.last.replace(hour=0, minute=0, second=0, microsecond=0)
    try:
        took = await recount(connection)
        rows = await count_rows(connection, filled.tenant.id, since=until - DAYS, until=until)
    finally:
        await connection.close()
    span = [("since", _spell(until - DAYS)), ("until", _spell(until))]
    headers = {"Authorization": f"Bearer {platform.sign_in()}"}
    supervisor = psutil.Process(platform.process.pid)
    with httpx.Client(base_url=f"{platform.url}/api/v1", headers=headers, timeout=60) as client:
        asked = [
            row
            for name, query in QUESTIONS.items()
            for row in _ask(client, supervisor, name, [*span, *query], rows)
        ]
    return [*asked, TrailRow(name="rollups counted anew from all rows", figure=f"{took:.0f} s")]


async def recount(connection: Connection) -> float:
    """Fill the rollups from the rows, as a superuser; tell how many seconds that took."""
    began = time.perf_counter()
    async with connection.transaction():
        await connection.execute("SET LOCAL enable_sort = off")
        for rollup in ROLLUPS:
            await connection.execute(f"TRUNCATE {rollup.table}")
            # In the order of time, as the flush comes to them: a day's rows lie together.
            counted = f"SELECT * FROM ({rollup.counted}) AS counted ORDER BY 2"  # noqa: S608  fixed words
            await connection.execute(f"INSERT INTO {rollup.table} {counted}")
    await connection.execute(f"ANALYZE {', '.join(rollup.table for rollup in ROLLUPS)}")
    return time.perf_counter() - began


async def count_rows(
    connection: Connection, tenant_id: TenantId, *, since: datetime, until: datetime
) -> list[dict[str, Any]]:
    """Count the rows themselves, by all that may be asked."""
    found = await connection.fetch(_COUNTED, tenant_id, since, until, timeout=600)
    return [{**dict(row), "hour": _spell(row["hour"]), "day": _spell(row["day"])} for row in found]


def _ask(
    client: httpx.Client,
    supervisor: psutil.Process,
    name: str,
    query: Query,
    rows: list[dict[str, Any]],
) -> list[TrailRow]:
    parameters = httpx.QueryParams([*query])
    answer = client.get(STATS, params=parameters)
    ms, before = [], cpu_ms_of(supervisor)
    for _ in range(ASKED):
        began = time.perf_counter()
        answer = client.get(STATS, params=parameters)
        ms.append((time.perf_counter() - began) * 1000)
        answer.raise_for_status()
    p95, cpu = statistics.quantiles(ms, n=20)[-1], (cpu_ms_of(supervisor) - before) / ASKED
    difference = find_difference(answer.json(), dict(query), rows)
    return [
        TrailRow(
            name=f"statistics of 30 days {name}: p50, p95, CPU of all processes",
            figure=f"{statistics.median(ms):.1f}, {p95:.1f}, {cpu:.1f} ms",
            goal=f"<= {P95_GOAL_MS:.0f} ms",
            is_met=p95 <= P95_GOAL_MS,
        ),
        TrailRow(
            name="its figures, beside a count over the rows",
            figure=difference or f"equal: {answer.json()['total']:,} events",
            goal="equal",
            is_met=not difference,
        ),
    ]


def find_difference(
    answer: dict[str, Any], query: dict[str, str], rows: list[dict[str, Any]]
) -> str:
    """Name the first figure of an answer that is not what the rows add up to."""
    wanted = [row for row in rows if _is_meant(row, query)]
    groups = answer["group_by"]
    counted: Counter[tuple[str, ...]] = Counter()
    for row in wanted:
        counted[tuple(row[group] for group in groups)] += row["events"]
    for item in answer["items"]:
        actor = item["actor"] and f"{item['actor']['kind']} {item['actor']['id'] or ''}"
        values = {**item, "actor": actor, "hour": item["at"], "day": item["at"]}
        key = tuple(values[group] for group in groups)
        if counted[key] != item["events"]:
            return f"{' '.join(key)}: {item['events']}, not {counted[key]}"
    total = counted.total()
    if (answer["total"], answer["other_events"]) != (
        total, total - sum(item["events"] for item in answer["items"]),
    ):  # fmt: skip
        return f"total: {answer['total']}, not {total}"
    return ""


def _is_meant(row: dict[str, Any], query: dict[str, str]) -> bool:
    if query.get("outcome", row["outcome"]) != row["outcome"]:
        return False
    return str(row["action"]).startswith(query.get("action", "").removesuffix("*"))


def _spell(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")
