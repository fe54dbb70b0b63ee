"""Plays one run: callers call two API processes, which are killed, and all is added up.

What is under test is the whole platform, on servers that keep their promises to the disk.
"""

import asyncio
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import asyncpg

from maas.user.infrastructure.usage_check import find_usage_differences
from tests.chaos.cluster import Cluster, running_cluster
from tests.chaos.invariants import Report, settle
from tests.quota.watch import ABOVE, GONE, add_up
from tests.streams.book import Book
from tests.streams.crowd import CROWD, Crowd, sabotage
from tests.streams.reconcile import Books, Event, Row, reconcile
from tests.streams.world import DEPLOYMENTS, make_world
from tests.upstream.process import RunningUpstream, running_upstream

LEASE_SECONDS: Final = 8
LEASES_SECONDS: Final = 60.0
"""How long until the last hold is over: a lease, the time until somebody looks, and some more."""

LOOK_SECONDS: Final = 0.005
ADD_UP_SECONDS: Final = 2.0

ROWS: Final = """
    SELECT request_id, requests, input_tokens, cached_tokens, output_tokens, reasoning_tokens,
        cost_nanos, is_estimated
    FROM usage WHERE storage_bytes = 0
"""
EVENTS: Final = """
    SELECT request_id, outcome, reason FROM audit_log WHERE action = 'inference.completed'
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Game:
    """How long callers call, and when an API process is killed: shares of that time.

    With `forgets`, processes forget to settle now and then, which must be found.
    """

    seed: int
    seconds: float
    kills: tuple[float, ...]
    forgets: float = 0.0


def play(game: Game) -> Report:
    with running_upstream() as upstream:
        settings = {
            "MAAS_OUTGOING__ALLOWED_PRIVATE_TARGETS": f"127.0.0.1:{upstream.port}",
            "CHAOS_LEASE": str(LEASE_SECONDS),
            "MAAS_LOG_LEVEL": "WARNING",
        }
        odds = {"CHAOS_FORGETS": str(game.forgets)}
        extra: Mapping[str, Mapping[str, str]] = {"api": settings | odds, "worker": settings}
        with running_cluster(extra=extra, seed=game.seed) as cluster:
            return asyncio.run(_play(game, cluster, upstream))


async def _play(game: Game, cluster: Cluster, upstream: RunningUpstream) -> Report:
    report, books = Report(), Books(callers=Book())
    world = await asyncio.to_thread(make_world, cluster.urls[0], cluster.admin_password, upstream)
    watch = Watch(cluster)
    crowd = Crowd(cluster.urls, world, books.callers, seed=game.seed)
    beside = [
        asyncio.create_task(watch.look()),
        asyncio.create_task(sabotage(upstream, seed=game.seed)),
    ]
    calling = asyncio.create_task(crowd.call())
    try:
        began = time.monotonic()
        for number, share in enumerate(game.kills):
            await asyncio.sleep(began + share * game.seconds - time.monotonic())
            # Whoever looks after the cluster starts it again.
            cluster.apis[number % len(cluster.apis)].kill()
        await asyncio.sleep(began + game.seconds - time.monotonic())
        crowd.is_over = True
        await calling
        report.figures["waited for leases (s)"] = round(await _wait_for_leases(cluster), 1)
        report.figures["waited for the trail (s)"] = round(await settle(cluster), 1)
    finally:
        for task in (*beside, calling):
            task.cancel()
        ends = await asyncio.gather(*beside, calling, return_exceptions=True)
    report.check("harness", (repr(end) for end in ends if _is_fault(end)))
    report.check("above a limit", watch.above)
    report.check("balances, at any moment", watch.different)
    await _read(books, cluster, upstream)
    await _check_the_rest(report, cluster)
    reconcile(
        books,
        report,
        prices={name: prices for name, (prices, _) in DEPLOYMENTS.items()},
        silent="silent",
    )
    report.figures |= _figures(game, books, watch)
    return report


class Watch:
    """Looks at all balances all the time, and keeps what may not be."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.samples = 0
        self.above: list[str] = []
        self.different: list[str] = []

    async def look(self) -> None:
        while True:
            with suppress(*GONE):
                async with self._cluster.superuser() as connection:
                    await self._look_with(connection)

    async def _look_with(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        added_up = time.monotonic()
        while True:
            self.above += [str(dict(row)) for row in await connection.fetch(ABOVE)]
            self.samples += 1
            if time.monotonic() - added_up > ADD_UP_SECONDS:
                self.different += await add_up(connection)
                added_up = time.monotonic()
            await asyncio.sleep(LOOK_SECONDS)


def _is_fault(end: object) -> bool:
    return isinstance(end, BaseException) and not isinstance(end, asyncio.CancelledError)


async def _wait_for_leases(cluster: Cluster) -> float:
    began = time.monotonic()
    async with cluster.superuser() as connection:
        while time.monotonic() - began < LEASES_SECONDS:
            if not await connection.fetchval("SELECT EXISTS (SELECT FROM quota_holds)"):
                break
            await asyncio.sleep(0.2)
    return time.monotonic() - began


async def _read(books: Books, cluster: Cluster, upstream: RunningUpstream) -> None:
    for call in (await asyncio.to_thread(upstream.ledger))["calls"]:
        if call["method"] == "POST":
            books.upstream[str(call["user"])].append(call)
    async with cluster.superuser() as connection:
        for row in await connection.fetch(ROWS):
            books.rows[row["request_id"]].append(
                Row(
                    requests=row["requests"],
                    input=row["input_tokens"],
                    cached=row["cached_tokens"],
                    output=row["output_tokens"],
                    reasoning=row["reasoning_tokens"],
                    cost_nanos=row["cost_nanos"],
                    is_estimated=row["is_estimated"],
                )
            )
        for row in await connection.fetch(EVENTS):
            event = Event(outcome=row["outcome"], reason=row["reason"])
            books.events[row["request_id"]].append(event)


async def _check_the_rest(report: Report, cluster: Cluster) -> None:
    """Nothing is held, all sums are those of the ledger, and the chain of the trail is whole."""
    async with cluster.superuser() as connection:
        holds = await connection.fetch("SELECT id, request_id, lease_until FROM quota_holds")
        report.check("no hold left", (str(dict(row)) for row in holds))
        report.check("balances", await add_up(connection))
        report.check("rollups", await find_usage_differences(connection))
    done = await asyncio.to_thread(
        subprocess.run,
        [*map(str, cluster.apis[0].command[:3]), "audit", "verify"],
        env=dict(cluster.apis[0].environment),
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
    )
    report.figures["audit verify"] = f"exit {done.returncode}"
    if done.returncode:
        report.check("audit chain", [(done.stdout + done.stderr)[-400:]])


def _figures(game: Game, books: Books, watch: Watch) -> dict[str, object]:
    calls = books.callers.calls.values()
    sent = [call for call in calls if call.request_id in books.upstream]
    return {
        "seed": game.seed,
        "callers": CROWD,
        "calls": len(calls),
        "sent": len(sent),
        "tries": sum(map(len, books.upstream.values())),
        "kills": len(game.kills),
        "moments": watch.samples,
        "hung up": sum(call.hangs_up and not call.is_whole for call in sent),
        "without max_tokens": sum(not call.has_limit for call in sent),
        "over 1 MiB": sum(call.body_bytes > 2**20 for call in sent),
        "below a micro-unit": sum(call.deployment == "cheap" for call in sent),
        "answers": dict(books.callers.statuses().most_common()),
    }
