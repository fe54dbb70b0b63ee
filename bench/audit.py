"""The trail: how fast it is written, checked and proved, and what it costs the act itself.

A whole platform runs. Its worker is halted while the stream is filled; then it goes on, and the
ticks of Celery's beat, through the broker, are all that moves events into the log.
"""

import asyncio
import json
import random
import re
import secrets
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import asyncpg
import httpx
import psutil
from redis.asyncio import Redis

from bench.events import make_events
from bench.platform import RunningPlatform, environment, free_port, wait_until_answering
from maas.audit.application.events import QueuedEvent
from maas.audit.infrastructure.stream import STREAM, entry_fields
from maas.embedded.endpoints import Endpoints, find_running
from maas.embedded.postgres import PORT, SUPERUSER

EVENTS: Final = 200_000
BACKLOG: Final = 1_000_000
FILL_BATCH: Final = 500
COPY_BATCH: Final = 20_000
PROOFS: Final = 200
ROUNDS: Final = 7
CHANGES: Final = 300
COUNTED: Final = 200

FLUSH_GOAL: Final = 10_000.0
BACKLOG_SECONDS_GOAL: Final = 120.0
STATEMENTS_GOAL: Final = 1.0
P50_GOAL_MS: Final = 1.5
VERIFY_GOAL: Final = 20_000.0
PROOF_GOAL_MS: Final = 50.0

SETTLE_SECONDS: Final = 60.0
LOOK_SECONDS: Final = 0.02
LONGEST_SECONDS: Final = 900.0

_STATEMENT: Final = re.compile(rb"\[asked by maas_app\] LOG: +(?:execute|statement)")
_SWEEP_LOCK: Final = "SELECT pg_advisory_lock(hashtextextended('maas.audit_sweep', 0))"
_SWEEP_UNLOCK: Final = "SELECT pg_advisory_unlock(hashtextextended('maas.audit_sweep', 0))"
_KEEP: Final = """
    INSERT INTO audit_outbox (event_id, tenant_id, payload, personal, duration_ms)
    SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::bytea[], $4::jsonb[], $5::integer[])
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRow:
    """One figure and its goal; a row without a goal is there to compare with."""

    name: str
    figure: str
    goal: str = ""
    is_met: bool | None = None


class TrailStuckError(RuntimeError):
    """Not every event came through, so that the figures would say nothing."""


def measure_audit(platform: RunningPlatform, *, events: int) -> list[AuditRow]:
    """Measure with this many events: `BACKLOG` for the real thing, fewer are scaled up."""
    return asyncio.run(_measure(platform, events))


async def _measure(platform: RunningPlatform, events: int) -> list[AuditRow]:
    endpoints = find_running(platform.data_dir)
    if endpoints is None:
        message = "the platform is not up"
        raise RuntimeError(message)
    token = await asyncio.to_thread(platform.sign_in)
    postgres = await asyncpg.connect(
        host=str(endpoints.folder.postgres_sockets),
        port=PORT,
        user=SUPERUSER,
        password=endpoints.credentials.superuser_password,
        database="maas",
    )
    redis = Redis.from_url(endpoints.environment()["MAAS_REDIS__URL"])
    try:
        bench = _Bench(platform=platform, endpoints=endpoints, postgres=postgres, redis=redis)
        rows = await bench.measure_flush(events)
        rows += await bench.measure_requests(token)
        rows += await asyncio.to_thread(bench.measure_verify)
        rows += await bench.measure_proofs(token)
        return rows
    finally:
        await redis.aclose()
        await postgres.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bench:
    platform: RunningPlatform
    endpoints: Endpoints
    postgres: "asyncpg.Connection[asyncpg.Record]"
    redis: "Redis"

    async def measure_flush(self, events: int) -> list[AuditRow]:
        await self._settle()
        # The sweeper would help, as it does when there is no broker: the task alone is measured.
        await self.postgres.execute(_SWEEP_LOCK)
        try:
            with _halted(self._processes("worker")) as worker:
                first = await self._last_seq()
                await self._fill(events)
                before = _cpu_seconds(worker), _cpu_seconds(self._servers())
                began = time.perf_counter()
            await self._wait_for(first + events)
            took = time.perf_counter() - began
            after = _cpu_seconds(worker), _cpu_seconds(self._servers())
        finally:
            await self.postgres.execute(_SWEEP_UNLOCK)
        await self._check(first, events)
        copied = events / await self._copy_seconds(first)
        rate = events / took
        spent = [(now - then) / events * 1e6 for now, then in zip(after, before, strict=True)]
        rows = [
            AuditRow(
                name=f"flush of {events:,} through the Celery task",
                figure=f"{rate:,.0f} events/s",
                goal=f">= {FLUSH_GOAL:,.0f}",
                is_met=rate >= FLUSH_GOAL,
            ),
            AuditRow(name="its CPU, worker", figure=f"{spent[0]:.0f} us an event"),
            AuditRow(name="its CPU, PostgreSQL and Valkey", figure=f"{spent[1]:.0f} us an event"),
            AuditRow(name="COPY of the same rows into one such table", figure=f"{copied:,.0f}/s"),
            AuditRow(name="flush beside that COPY", figure=f"{rate / copied:.2f}x"),
        ]
        scaled = "" if events == BACKLOG else f", scaled from {events:,}"
        seconds = took * BACKLOG / events
        rows.append(
            AuditRow(
                name=f"backlog of a million drained{scaled}",
                figure=f"{seconds:.0f} s",
                goal=f"<= {BACKLOG_SECONDS_GOAL:.0f} s",
                is_met=seconds <= BACKLOG_SECONDS_GOAL,
            )
        )
        return rows

    async def measure_requests(self, token: str) -> list[AuditRow]:
        """Change models at two API processes, one of which has its trail switched off."""
        await self._settle()
        halted = [*self._processes("worker"), *self._processes("serve"), *self._processes("beat")]
        own = {"MAAS_AUDIT__ENABLED": "false"}
        with (
            _halted(halted),
            _serving(self.platform.data_dir, self.endpoints) as audited,
            _serving(self.platform.data_dir, self.endpoints, **own) as silent,
        ):
            model = _make_model(audited, token)
            extra = await self._count_statements(audited, model, token)
            extra -= await self._count_statements(silent, model, token)
            samples: dict[_Api, list[_Sample]] = {audited: [], silent: []}
            for number in range(ROUNDS + 1):
                for api, found in samples.items():
                    sample = await asyncio.to_thread(_change, api, model, token, CHANGES)
                    # The first round warms up.
                    if number:
                        found.append(sample)
        with_cpu, without_cpu = (
            statistics.median(each.cpu_us for each in found) for found in samples.values()
        )
        with_p50, without_p50 = (
            statistics.median(ms for each in found for ms in each.ms) for found in samples.values()
        )
        return [
            AuditRow(
                name="PUT /models/{id}: statements the trail adds",
                figure=f"{extra:.2f}",
                goal=f"<= {STATEMENTS_GOAL:.0f}",
                # A pool that looks after its connections adds one now and then.
                is_met=round(extra, 1) <= STATEMENTS_GOAL,
            ),
            AuditRow(
                name="PUT /models/{id}: p50 the trail adds",
                figure=f"{with_p50 - without_p50:.2f} ms",
                goal=f"<= {P50_GOAL_MS} ms",
                is_met=with_p50 - without_p50 <= P50_GOAL_MS,
            ),
            AuditRow(
                name="its p50, audited beside not",
                figure=f"{with_p50:.2f} beside {without_p50:.2f} ms",
            ),
            AuditRow(
                name="its CPU in the API, audited beside not",
                figure=f"{with_cpu:.0f} beside {without_cpu:.0f} us",
            ),
        ]

    def measure_verify(self) -> list[AuditRow]:
        done = subprocess.run(
            [sys.executable, "-m", "maas.cli", "audit", "verify", "--json"],
            env=environment(self.platform.data_dir),
            stdout=subprocess.PIPE,
            check=False,
        )
        verdict = json.loads(done.stdout)
        if verdict["integrity"] != "ok":
            message = f"the log is {verdict['integrity']}: {verdict['findings'][:3]}"
            raise TrailStuckError(message)
        rate = verdict["rows"] / verdict["seconds"]
        return [
            AuditRow(
                name=f"`maas audit verify` of {verdict['rows']:,} rows",
                figure=f"{rate:,.0f} rows/s",
                goal=f">= {VERIFY_GOAL:,.0f}",
                is_met=rate >= VERIFY_GOAL,
            )
        ]

    async def measure_proofs(self, token: str) -> list[AuditRow]:
        last = await self._last_seq()
        chance = random.Random(7)  # noqa: S311  no secret depends on it
        rows = await self.postgres.fetch(
            "SELECT event_id FROM audit_log WHERE seq = ANY ($1::bigint[])",
            [chance.randrange(1, last + 1) for _ in range(PROOFS)],
        )
        url = f"{self.platform.url}/api/v1/audit/logs"
        headers = {"Authorization": f"Bearer {token}"}

        def ask() -> list[float]:
            ms = []
            with httpx.Client(headers=headers, timeout=30) as client:
                for row in rows:
                    began = time.perf_counter()
                    answer = client.get(f"{url}/{row['event_id']}/proof")
                    ms.append((time.perf_counter() - began) * 1000)
                    answer.raise_for_status()
            return ms

        ms = await asyncio.to_thread(ask)
        p95 = statistics.quantiles(ms, n=20)[-1]
        return [
            AuditRow(
                name=f"proof of one row among {last:,}, over HTTP, p95",
                figure=f"{p95:.1f} ms",
                goal=f"<= {PROOF_GOAL_MS:.0f} ms",
                is_met=p95 <= PROOF_GOAL_MS,
            ),
            AuditRow(name="its p50", figure=f"{statistics.median(ms):.1f} ms"),
        ]

    def _processes(self, word: str) -> list[psutil.Process]:
        children = psutil.Process(self.platform.process.pid).children(recursive=True)
        return [child for child in children if word in child.cmdline()]

    def _servers(self) -> list[psutil.Process]:
        names = {"postgres", "valkey-server"}
        children = psutil.Process(self.platform.process.pid).children(recursive=True)
        return [child for child in children if child.name() in names]

    async def _last_seq(self) -> int:
        return int(await self.postgres.fetchval("SELECT seq FROM audit_head"))

    async def _settle(self) -> None:
        """Wait until nothing waits to be flushed."""
        deadline = time.monotonic() + SETTLE_SECONDS
        while await self.redis.xlen(STREAM) or await self.postgres.fetchval(
            "SELECT EXISTS (SELECT FROM audit_outbox)"
        ):
            if time.monotonic() > deadline:
                message = "the trail did not come to rest"
                raise TrailStuckError(message)
            await asyncio.sleep(LOOK_SECONDS)

    async def _fill(self, count: int) -> None:
        """Append events as the API does: all to the stream, what changed something to both."""
        batch: list[tuple[QueuedEvent, bool]] = []
        for number, event in enumerate(make_events(count, seed=count), 1):
            batch.append(event)
            if len(batch) == FILL_BATCH or number == count:
                kept = [each for each, is_change in batch if is_change]
                await self.postgres.execute(_KEEP, *_columns(kept))
                async with self.redis.pipeline(transaction=False) as pipeline:
                    for each, _ in batch:
                        pipeline.xadd(STREAM, entry_fields(each))  # type: ignore[unused-awaitable]  # a pipeline only collects
                    await pipeline.execute()
                batch.clear()

    async def _wait_for(self, seq: int) -> None:
        deadline = time.monotonic() + LONGEST_SECONDS
        while (reached := await self._last_seq()) < seq:
            if time.monotonic() > deadline:
                message = f"the log reached {reached} and not {seq}"
                raise TrailStuckError(message)
            await asyncio.sleep(LOOK_SECONDS)

    async def _check(self, first: int, events: int) -> None:
        """Fail unless each event is in the log once and nothing is left behind."""
        found = await self.postgres.fetchval(
            "SELECT count(DISTINCT event_id) FROM audit_log WHERE seq > $1 AND seq <= $2",
            first,
            first + events,
        )
        buried = await self.postgres.fetchval("SELECT count(*) FROM audit_dead_letter")
        if (found, buried) != (events, 0):
            message = f"{found} of {events} events are in the log, {buried} are buried"
            raise TrailStuckError(message)
        await self._settle()

    async def _copy_seconds(self, first: int) -> float:
        """Copy what was just flushed into a table with the same columns and indexes."""
        await self.postgres.execute("CREATE TABLE bench_copy (LIKE audit_log INCLUDING ALL)")
        took, after = 0.0, first
        try:
            while rows := await self.postgres.fetch(
                "SELECT * FROM audit_log WHERE seq > $1 ORDER BY seq LIMIT $2", after, COPY_BATCH
            ):
                records = [tuple(row) for row in rows]
                began = time.perf_counter()
                await self.postgres.copy_records_to_table(
                    "bench_copy", records=records, columns=list(rows[0].keys())
                )
                took += time.perf_counter() - began
                after = rows[-1]["seq"]
        finally:
            await self.postgres.execute("DROP TABLE bench_copy")
        return took

    async def _count_statements(self, api: "_Api", model: str, token: str) -> float:
        """Have PostgreSQL write down what it is asked, and count what one request asks."""
        log = self.endpoints.folder.log("postgres").path
        await asyncio.to_thread(_change, api, model, token, COUNTED)
        await self._set_logging(on=True)
        offset = log.stat().st_size
        await asyncio.to_thread(_change, api, model, token, COUNTED)
        await self._set_logging(on=False)
        with log.open("rb") as lines:
            lines.seek(offset)
            return sum(_STATEMENT.search(line) is not None for line in lines) / COUNTED

    async def _set_logging(self, *, on: bool) -> None:
        if on:
            await self.postgres.execute("ALTER SYSTEM SET log_line_prefix = '%p [asked by %u] '")
            await self.postgres.execute("ALTER SYSTEM SET log_statement = 'all'")
        else:
            await self.postgres.execute("ALTER SYSTEM RESET log_statement")
            await self.postgres.execute("ALTER SYSTEM RESET log_line_prefix")
        await self.postgres.execute("SELECT pg_reload_conf()")
        wanted = "all" if on else "none"
        # The postmaster tells its children soon, and not at once.
        deadline = time.monotonic() + SETTLE_SECONDS
        while await self.postgres.fetchval("SHOW log_statement") != wanted:
            if time.monotonic() > deadline:
                message = "PostgreSQL did not reload its configuration"
                raise RuntimeError(message)
            await asyncio.sleep(LOOK_SECONDS)


@dataclass(frozen=True, slots=True)
class _Api:
    url: str
    process: psutil.Process


@dataclass(frozen=True, slots=True)
class _Sample:
    ms: list[float]
    cpu_us: float


@contextmanager
def _halted(processes: Sequence[psutil.Process]) -> Iterator[Sequence[psutil.Process]]:
    for process in processes:
        process.send_signal(signal.SIGSTOP)
    try:
        yield processes
    finally:
        for process in processes:
            process.send_signal(signal.SIGCONT)


@contextmanager
def _serving(data_dir: Path, endpoints: Endpoints, **settings: str) -> Iterator[_Api]:
    """Serve the application once more, on the same servers."""
    port = free_port()
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "uvicorn", "maas.main:make_app", "--factory"),
            *("--port", str(port), "--loop", "uvloop", "--http", "httptools"),
            *("--no-access-log", "--log-level", "warning"),
        ],
        env={**environment(data_dir), **endpoints.environment(), **settings},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    try:
        wait_until_answering(f"http://127.0.0.1:{port}/health/ready", process)
        yield _Api(f"http://127.0.0.1:{port}/api/v1", psutil.Process(process.pid))
    finally:
        process.terminate()
        process.wait(30)


def _make_model(api: _Api, token: str) -> str:
    answer = httpx.post(
        f"{api.url}/models",
        json={"name": f"bench/{secrets.token_hex(4)}", "framework": "gguf"},
        headers={"Authorization": f"Bearer {token}"},
        timeout=30,
    )
    return str(answer.raise_for_status().json()["id"])


def _change(api: _Api, model: str, token: str, count: int) -> _Sample:
    """Change the model so many times, each time to something else, over one connection."""
    headers = {"Authorization": f"Bearer {token}"}
    ms = []
    before = _cpu_seconds([api.process])
    with httpx.Client(base_url=api.url, headers=headers, timeout=30) as client:
        for _ in range(count):
            body = {"description": secrets.token_hex(8)}
            began = time.perf_counter()
            answer = client.put(f"/models/{model}", json=body)
            ms.append((time.perf_counter() - began) * 1000)
            answer.raise_for_status()
    return _Sample(ms, (_cpu_seconds([api.process]) - before) / count * 1e6)


def _columns(events: Sequence[QueuedEvent]) -> list[list[Any]]:
    return [
        [event.id for event in events],
        [event.tenant_id for event in events],
        [event.payload for event in events],
        [event.personal.to_json() for event in events],
        [event.duration_ms for event in events],
    ]


def _cpu_seconds(processes: Sequence[psutil.Process]) -> float:
    times = [process.cpu_times() for process in processes if process.is_running()]
    return sum(each.user + each.system for each in times)
