"""Budgets: what reserve and settle take, beside a bare Redis script that does as little as it can.

The script adds to three counters if all stay within their limits, and another moves what was used;
it knows no ledger, no lease and no tenant. Both servers are those of a platform that is up and keep
their promises to the disk: what was answered survives a crash.
"""

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, TypeAlias
from uuid import UUID

import asyncpg
from pydantic import SecretStr
from redis.asyncio import Redis

from bench.audit import AuditRow
from bench.platform import RunningPlatform
from maas.embedded.endpoints import find_running
from maas.embedded.postgres import PORT, SUPERUSER
from maas.shared.domain.ids import AccountId, ApiKeyId, TenantId, new_id
from maas.shared.infrastructure.database import Database
from maas.shared.infrastructure.settings import DatabaseSettings
from maas.user.infrastructure.quota_budgets import PostgresBudgets
from maas.user.public import Amounts, Payer, UsageFigures

ROUNDS: Final = 5
CALLS_ALONE: Final = 100
CROWD: Final = 100
CALLS_OF_EACH: Final = 10
GOALS: Final = {1: 3.0, CROWD: 2.0}
"""By callers at once: how many times as long as the script, which writes no ledger."""

OURS: Final = "reserve + settle"
BARE: Final = "a bare Redis script for each"
LIMIT: Final = 10**15
TOKENS: Final = 1_000
NANOS: Final = 3_000_000

RESERVE: Final = """
    for i, key in ipairs(KEYS) do
        if redis.call('INCRBY', key, 0) + ARGV[1] > tonumber(ARGV[2]) then return 0 end
    end
    for i, key in ipairs(KEYS) do redis.call('INCRBY', key, ARGV[1]) end
    return 1
"""
SETTLE: Final = """
    for i, key in ipairs(KEYS) do redis.call('INCRBY', key, ARGV[1]) end
    return 1
"""

Call: TypeAlias = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Pace:
    """How long one reserve and settle took in the middle, and how many there were in a second."""

    p50_ms: float
    rate: float


def measure_quota(platform: RunningPlatform) -> list[AuditRow]:
    """Measure one caller and a crowd, with three quotas in each of three scopes."""
    return asyncio.run(_measure(platform))


async def _measure(platform: RunningPlatform) -> list[AuditRow]:
    endpoints = find_running(platform.data_dir)
    if endpoints is None:
        message = "the platform is not up"
        raise RuntimeError(message)
    environment = endpoints.environment()
    postgres = await asyncpg.connect(
        host=str(endpoints.folder.postgres_sockets),
        port=PORT,
        user=SUPERUSER,
        password=endpoints.credentials.superuser_password,
        database="maas",
    )
    database = Database(
        DatabaseSettings(
            url=SecretStr(environment["MAAS_DATABASE__URL"]),
            owner_url=SecretStr(environment["MAAS_DATABASE__OWNER_URL"]),
        )
    )
    await database.open()
    redis = Redis.from_url(environment["MAAS_REDIS__URL"], max_connections=2 * CROWD)
    budgets = PostgresBudgets(database)
    try:
        payer = await _make_payer(postgres)
        calls = {OURS: _make_call(budgets, payer), BARE: _make_script(redis)}
        return _rows(await _race(calls))
    finally:
        await budgets.close()
        await database.close()
        await redis.aclose()
        await postgres.close()


async def _make_payer(postgres: "asyncpg.Connection[asyncpg.Record]") -> Payer:
    """Make somebody bound by three quotas in each scope, which are never reached."""
    tenant_id: UUID = await postgres.fetchval(
        "INSERT INTO tenants (id, slug, name) VALUES (gen_random_uuid(), $1, 'Bench') RETURNING id",
        f"bench-{new_id().hex}",
    )
    account_id, key_id = new_id(), new_id()
    subjects = {"tenant": tenant_id, "user": account_id, "key": key_id}
    await postgres.executemany(
        "INSERT INTO quotas (id, tenant_id, scope, subject_id, meter, period, currency,"
        " limit_amount, version, created_at, updated_at)"
        " VALUES (gen_random_uuid(), $1, $2, $3, $4, 'month', $5, $6, 1, now(), now())",
        [
            (tenant_id, scope, subject, meter, "EUR" if meter == "cost" else None, LIMIT)
            for scope, subject in subjects.items()
            for meter in ("requests", "tokens", "cost")
        ],
    )
    return Payer(
        tenant_id=TenantId(tenant_id),
        account_id=AccountId(account_id),
        actor_kind="account",
        api_key_id=ApiKeyId(key_id),
    )


def _make_call(budgets: PostgresBudgets, payer: Payer) -> Call:
    wanted = Amounts(tokens=TOKENS, cost_nanos=NANOS, currency="EUR")
    used = UsageFigures(input_tokens=TOKENS // 2, cost_nanos=NANOS // 2, currency="EUR")
    lease = timedelta(minutes=1)

    async def call() -> None:
        hold = await budgets.reserve(payer, wanted, lease=lease, model="gemma", request_id="r")
        await budgets.settle(hold, used)

    return call


def _make_script(redis: "Redis") -> Call:
    name = new_id().hex
    keys = [f"bench:{name}:{scope}" for scope in ("tenant", "user", "key")]
    reserve, settle = redis.register_script(RESERVE), redis.register_script(SETTLE)

    async def call() -> None:
        await reserve(keys=keys, args=[TOKENS, LIMIT])
        await settle(keys=keys, args=[-TOKENS // 2])

    return call


async def _race(calls: Mapping[str, Call]) -> dict[tuple[str, int], list[Pace]]:
    """Run both in turns, so that what else the machine does falls on both."""
    paces: dict[tuple[str, int], list[Pace]] = {}
    for number in range(ROUNDS + 1):
        for callers, each in ((1, CALLS_ALONE), (CROWD, CALLS_OF_EACH)):
            for name, call in calls.items():
                pace = await _pace(call, callers=callers, each=each)
                if number:
                    paces.setdefault((name, callers), []).append(pace)
    return paces


async def _pace(call: Call, *, callers: int, each: int) -> Pace:
    times: list[float] = []

    async def work() -> None:
        for _ in range(each):
            began = time.perf_counter()
            await call()
            times.append(time.perf_counter() - began)

    began = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(callers)))
    took = time.perf_counter() - began
    return Pace(statistics.median(times) * 1000, len(times) / took)


def _rows(paces: Mapping[tuple[str, int], Sequence[Pace]]) -> list[AuditRow]:
    rows = []
    for name, callers in sorted(paces, key=lambda key: (key[1], key[0] != OURS)):
        of_kind = paces[name, callers]
        p50 = statistics.median(pace.p50_ms for pace in of_kind)
        rate = statistics.median(pace.rate for pace in of_kind)
        bare = statistics.median(pace.p50_ms for pace in paces[BARE, callers])
        goal = GOALS[callers] if name == OURS else None
        rows.append(
            AuditRow(
                name=f"{name}, {callers} at once" if callers > 1 else f"{name}, one caller",
                figure=f"p50 {p50:.2f} ms, {p50 / bare:.2f}x, {rate:,.0f} a second",
                goal="" if goal is None else f"<= {goal:.0f}x",
                is_met=None if goal is None else p50 <= goal * bare,
            )
        )
    return rows
