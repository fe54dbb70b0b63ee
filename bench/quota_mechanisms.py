"""Ways to keep budgets, in turns: `python -m bench.quota_mechanisms`; ADR 0027 has a run.

A pair is a reserve and a settle, with a quota of tokens in each of three scopes:

- group: ours, in PostgreSQL, what is asked together in one transaction;
- call: the same by the meter of calls, with prices and the event of each in its settlement;
- single: the same function, a transaction a call, over a pool of ten;
- redis: a script over three counters and a set of leases, `appendfsync always`, and a row in the
  ledger in PostgreSQL at the settlement, added in groups and waited for.

Both servers are those of a platform that is up, and keep their promises to the disk. Ways that are
named as arguments are the only ones: `python -m bench.quota_mechanisms group call`.
"""

import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Final
from uuid import UUID

import asyncpg
import psutil
import uvloop
from pydantic import SecretStr
from redis.asyncio import Redis
from rich.console import Console
from rich.table import Table

from bench.platform import RunningPlatform, run_platform
from maas.audit.public import AuditScope, ComposedEvent, EventComposer
from maas.audit.wiring import build_event_composer
from maas.embedded.endpoints import find_running
from maas.embedded.postgres import PORT, SUPERUSER
from maas.inference.application.metering import Meter
from maas.inference.application.ports import AttemptFacts
from maas.inference.domain.call import Ask, TokenCounts
from maas.inference.domain.route import (
    Endpoint,
    Origin,
    Route,
    RouteLimits,
    RouteTarget,
    TargetLimits,
    TargetPrice,
)
from maas.inference.infrastructure.replays import PostgresReplays
from maas.inference.public import DeploymentId, TargetId
from maas.shared.domain.call import Call, Outcome, serving
from maas.shared.domain.ids import DEFAULT_TENANT_ID, AccountId, ApiKeyId, new_id
from maas.shared.domain.pricing import Price, Prices
from maas.shared.infrastructure.clock import SystemClock
from maas.shared.infrastructure.database import Database
from maas.shared.infrastructure.settings import DatabaseSettings
from maas.user.infrastructure.quota_batches import APPLY
from maas.user.infrastructure.quota_budgets import PostgresBudgets
from maas.user.public import Amounts, Payer, UsageFigures

CROWDS: Final = (1, 16, 64)
ROUNDS: Final = 3
ROUND_SECONDS: Final = 2.0
LIMIT: Final = 10**15
HELD, USED = 500, 200

RESERVE: Final = """
    for _, key in ipairs(KEYS) do
        if redis.call('INCRBY', key, 0) + ARGV[1] > tonumber(ARGV[2]) then return 0 end
    end
    for _, key in ipairs(KEYS) do redis.call('INCRBY', key, ARGV[1]) end
    redis.call('ZADD', 'bench:leases', ARGV[3], ARGV[4])
    return 1
"""
SETTLE: Final = """
    if redis.call('ZREM', 'bench:leases', ARGV[2]) == 0 then return 0 end
    for _, key in ipairs(KEYS) do redis.call('INCRBY', key, ARGV[1]) end
    return 1
"""
RECORD: Final = """
    INSERT INTO usage (id, at, tenant_id, account_id, actor_kind, api_key_id, model, request_id,
        requests, input_tokens, cached_tokens, output_tokens, reasoning_tokens, storage_bytes,
        cost_nanos, is_estimated, is_overrun)
    SELECT id, clock_timestamp(), $1, account, 'account', key, 'm', 'r',
        1, 200, 0, 0, 0, 0, 0, false, false
    FROM unnest($2::uuid[], $3::uuid[], $4::uuid[]) AS r(id, account, key)
"""

Reserve = Callable[[Payer], Awaitable[object]]
Settle = Callable[[Payer, object], Awaitable[None]]


@dataclass(slots=True)
class Timings:
    reserves: list[float] = field(default_factory=list)
    settles: list[float] = field(default_factory=list)
    seconds: float = 0.0
    cpu_seconds: float = 0.0


class Recorder:
    """Adds rows to the ledger, those that come while others are added together."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: list[tuple[UUID, Payer, asyncio.Future[None]]] = []
        self._is_busy = False

    async def record(self, hold_id: UUID, payer: Payer) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((hold_id, payer, future))
        if not self._is_busy:
            self._is_busy = True
            while self._waiting:
                batch, self._waiting = self._waiting, []
                await self._add(batch)
                for _, _, done in batch:
                    done.set_result(None)
            self._is_busy = False
        await future

    async def _add(self, batch: list[tuple[UUID, Payer, "asyncio.Future[None]"]]) -> None:
        async with self._database.acquire() as connection:
            await connection.execute(f"BEGIN; SET LOCAL maas.tenant_id = '{DEFAULT_TENANT_ID}'")
            await connection.execute(
                RECORD,
                DEFAULT_TENANT_ID,
                [hold_id for hold_id, _, _ in batch],
                [payer.account_id for _, payer, _ in batch],
                [payer.api_key_id for _, payer, _ in batch],
            )
            await connection.execute("COMMIT")


def expect(outcome: object) -> None:
    """Stop the run if a call did not do what it is timed for."""
    if not outcome:
        message = "a call was refused"
        raise RuntimeError(message)


def in_groups(budgets: PostgresBudgets) -> tuple[Reserve, Settle]:
    async def reserve(payer: Payer) -> object:
        return await budgets.reserve(
            payer,
            Amounts(tokens=HELD),
            lease=timedelta(minutes=5),
            model="m",
            request_id="r",
        )

    async def settle(_: Payer, hold: object) -> None:
        await budgets.settle(hold, UsageFigures(input_tokens=USED))  # type: ignore[arg-type]  # as `reserve` gave it

    return reserve, settle


@dataclass(frozen=True, slots=True)
class UnofferedTrail:
    """Composes as the trail does; the sweep of the outbox finds the events."""

    composer: EventComposer
    is_on: bool = True

    def compose(self, scope: AuditScope, call: Call) -> ComposedEvent:
        return self.composer.compose(scope, call)

    def offer(self, event: ComposedEvent) -> None:
        """Leave it in the outbox."""


class NoRecorder:
    async def record(self, *, action: str, outcome: Outcome, reason: str | None = None) -> None:
        """Record nothing: each call ends with its settlement."""


def by_the_meter(meter: Meter) -> tuple[Reserve, Settle]:
    price = TargetPrice(
        id=None,
        prices=Prices(currency="USD", input=Price(Decimal("2.5")), output=Price(Decimal(10))),
    )
    endpoint = Endpoint(
        protocol="openai", reach="public", provider_kind="openai", urls={}, model="m", headers={}
    )
    target = RouteTarget(
        id=TargetId(new_id()),
        priority=0,
        weight=1,
        endpoint=endpoint,
        origin=Origin(provider_name="supplier"),
        price=price,
        limits=TargetLimits(),
    )
    route = Route(
        deployment_id=DeploymentId(new_id()),
        tenant_id=DEFAULT_TENANT_ID,
        name="m",
        revision=1,
        targets=[target],
        unfit={},
        limits=RouteLimits(),
    )
    ask = Ask(
        kind="chat", model="m", body={}, most_input=HELD - 100, likely_input=0, most_output=100
    )
    facts = AttemptFacts(
        target=target, tries=[], decision="the only one", status=200, first_byte=timedelta()
    )

    async def reserve(payer: Payer) -> object:
        call = Call(request_id="r", recorder=NoRecorder(), address="192.0.2.1", user_agent="bench")
        with serving(call):
            return await meter.begin(payer=payer, route=route, ask=ask, request_id="r")

    async def settle(_: Payer, charge: object) -> None:
        used = TokenCounts(input=USED)
        await meter.settle(
            charge,  # type: ignore[arg-type]  # as `reserve` gave it
            facts=facts,
            counts=used,
            seen=used,
            outcome="success",
        )

    return reserve, settle


def one_by_one(database: Database) -> tuple[Reserve, Settle]:
    async def apply(call: Mapping[str, object]) -> None:
        work = [{"tenant": str(DEFAULT_TENANT_ID), "calls": [{"n": 0, "again": False, **call}]}]
        async with database.reads.acquire() as connection:
            row = await connection.fetchrow(APPLY, json.dumps(work))
        expect(row is not None and row["outcome"] in {"granted", "done"})

    async def reserve(payer: Payer) -> object:
        hold_id = str(new_id())
        await apply(
            {
                "op": "reserve", "id": hold_id, "account": str(payer.account_id),
                "kind": "account", "key": str(payer.api_key_id), "model": "m", "request": "r",
                "lease": 300, "requests": 1, "tokens": HELD, "cost": 0, "storage": 0,
            }
        )  # fmt: skip
        return hold_id

    async def settle(_: Payer, hold: object) -> None:
        await apply(
            {
                "op": "settle", "id": hold, "input": USED, "cached": 0, "output": 0,
                "reasoning": 0, "cost": 0, "storage": 0, "estimated": False,
            }
        )  # fmt: skip

    return reserve, settle


def in_redis(redis: "Redis", recorder: Recorder) -> tuple[Reserve, Settle]:
    reserving, settling = redis.register_script(RESERVE), redis.register_script(SETTLE)

    def keys(payer: Payer) -> list[str]:
        subjects = (payer.tenant_id, payer.account_id, payer.api_key_id)
        return [f"bench:{subject}" for subject in subjects]

    async def reserve(payer: Payer) -> object:
        hold_id = new_id()
        lease = int(time.time()) + 300
        expect(await reserving(keys(payer), [HELD, LIMIT, lease, str(hold_id)]) == 1)
        return hold_id

    async def settle(payer: Payer, hold: object) -> None:
        await recorder.record(hold, payer)  # type: ignore[arg-type]  # as `reserve` gave it
        expect(await settling(keys(payer), [USED - HELD, str(hold)]) == 1)

    return reserve, settle


def cpu_of(process: psutil.Process) -> float:
    """Sum the CPU of this process and of both servers, in seconds, ended children included."""
    seconds = time.process_time()
    for child in process.children(recursive=True):
        # A child may end while it is looked at.
        with suppress(psutil.NoSuchProcess):
            if child.name().startswith(("postgres", "valkey")):
                seconds += sum(child.cpu_times()[:4])
    return seconds


async def run(
    mechanism: tuple[Reserve, Settle], payers: list[Payer], timings: Timings, of: psutil.Process
) -> None:
    reserve, settle = mechanism
    cpu, began = cpu_of(of), time.perf_counter()

    async def call(payer: Payer) -> None:
        while time.perf_counter() - began < ROUND_SECONDS:
            start = time.perf_counter()
            hold = await reserve(payer)
            middle = time.perf_counter()
            await settle(payer, hold)
            timings.reserves.append(middle - start)
            timings.settles.append(time.perf_counter() - middle)

    await asyncio.gather(*(call(payer) for payer in payers))
    timings.seconds += time.perf_counter() - began
    timings.cpu_seconds += cpu_of(of) - cpu


async def measure(platform: RunningPlatform) -> dict[tuple[int, str], Timings]:
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
    redis = Redis.from_url(environment["MAAS_REDIS__URL"], max_connections=2 * max(CROWDS))
    budgets = PostgresBudgets(database)
    payers = [await make_payer(postgres) for _ in range(max(CROWDS))]
    trail = UnofferedTrail(build_event_composer(SystemClock()))
    replays = PostgresReplays(database, secret_key="")
    meter = Meter(budgets=budgets, trail=trail, replays=replays)
    mechanisms = {
        "group": in_groups(budgets),
        "call": by_the_meter(meter),
        "single": one_by_one(database),
        "redis": in_redis(redis, Recorder(database)),
    }
    wanted = sys.argv[1:] or list(mechanisms)
    mechanisms = {name: mechanisms[name] for name in wanted}
    found = {(crowd, name): Timings() for crowd in CROWDS for name in mechanisms}
    process = psutil.Process(platform.process.pid)
    for mechanism in mechanisms.values():
        # Connections are made, and plans.
        await run(mechanism, payers[:16], Timings(), process)
    for _ in range(ROUNDS):
        for (crowd, name), timings in found.items():
            await run(mechanisms[name], payers[:crowd], timings, process)
    await meter.close()
    await budgets.close()
    await database.close()
    await redis.aclose()
    await postgres.close()
    return found


async def make_payer(postgres: "asyncpg.Connection[asyncpg.Record]") -> Payer:
    payer = Payer(
        tenant_id=DEFAULT_TENANT_ID,
        account_id=AccountId(new_id()),
        actor_kind="account",
        api_key_id=ApiKeyId(new_id()),
    )
    for scope, subject in (
        ("tenant", payer.tenant_id),
        ("user", payer.account_id),
        ("key", payer.api_key_id),
    ):
        await postgres.execute(
            "INSERT INTO quotas (id, tenant_id, scope, subject_id, meter, period, limit_amount,"
            " version, created_at, updated_at)"
            " VALUES ($1, $2, $3, $4, 'tokens', 'month', $5, 1, now(), now())"
            " ON CONFLICT DO NOTHING",
            *(new_id(), payer.tenant_id, scope, subject, LIMIT),
        )
    return payer


def milliseconds(times: list[float], share: float) -> str:
    return f"{1000 * sorted(times)[int(share * (len(times) - 1))]:.2f}"


def main() -> None:
    console = Console()
    with tempfile.TemporaryDirectory(prefix="maas-bench-") as folder:
        # The servers may run as another user than whoever starts them.
        Path(folder).chmod(0o711)
        with run_platform(Path(folder) / "data") as platform:
            load = psutil.getloadavg()[0]
            found = uvloop.run(measure(platform))
    table = Table(title=f"load before: {load:.1f}")
    for head in ("callers", "way", "pairs/s", "reserve p50 ms", "p99", "settle p50 ms", "p99"):
        table.add_column(head, justify="right")
    table.add_column("CPU us a pair", justify="right")
    for (crowd, name), timings in found.items():
        pairs = len(timings.reserves)
        table.add_row(
            str(crowd),
            name,
            f"{pairs / timings.seconds:,.0f}",
            milliseconds(timings.reserves, 0.5),
            milliseconds(timings.reserves, 0.99),
            milliseconds(timings.settles, 0.5),
            milliseconds(timings.settles, 0.99),
            f"{1e6 * timings.cpu_seconds / pairs:,.0f}",
        )
    console.print(table)


if __name__ == "__main__":
    main()
