"""Plays one run: callers call, things break, balances are watched; at the end all is added up."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import asyncpg

from tests.chaos.cluster import keep
from tests.chaos.invariants import Report
from tests.quota.book import read_book
from tests.quota.faults import Fault, draw
from tests.quota.rig import PROCESSES, Plan, Rig, running_rig
from tests.quota.verify import USABLE, measure_use, verify
from tests.quota.watch import Watch
from tests.quota.world import HOLDS, SCOPES
from tests.servers import Servers

SPENT_SECONDS: Final = 90.0
"""How long callers may need to use up, in calm, what they began with."""

LEASES_SECONDS: Final = 20.0
NOTICED_SECONDS: Final = 20.0

ROOM: Final = "CONTINUE WHEN want = 0 OR want <= room AND NOT closed[i];"
"""The line of `quota_reserve` that checks; without it everything is covered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Game:
    """What is played. `faults` are given by name in this order, or drawn for so many seconds."""

    seed: int
    seconds: float
    faults: Sequence[Fault] = ()
    tenants: int = 24
    holds: int = HOLDS
    callers: int = 100
    lease_seconds: float = 5.0
    with_worker: bool = True
    fsync: bool = True
    """Off, all is faster, and as safe from whatever is done to processes."""

    is_checked: bool = True
    is_durable: bool = True
    then_unchecked: bool = False
    """Whether to switch the check off at the end, and see that this is noticed."""


@dataclass(slots=True)
class Run:
    """What happened, beside what the report says."""

    report: Report = field(default_factory=Report)
    faults: Counter[str] = field(default_factory=Counter)


def play(game: Game, *, kept: Path | None = None, like: Servers | None = None) -> Report:
    """Play it on servers of its own; with a folder, keep what explains a failure there."""
    plan = Plan(
        seed=game.seed,
        tenants=game.tenants,
        holds=game.holds,
        callers=game.callers,
        lease_seconds=game.lease_seconds,
    )
    with running_rig(plan, with_worker=game.with_worker, fsync=game.fsync, like=like) as rig:
        report = asyncio.run(_play(game, rig))
        if kept is not None and not report.is_whole:
            keep(rig.folder, kept)
        return report


async def _play(game: Game, rig: Rig) -> Report:
    run, watch = Run(), Watch(rig)
    if not game.is_checked:
        await switch_off_check(rig)
    if not game.is_durable:
        await forget_commits(rig)
    beside = [asyncio.create_task(rig.tend()), asyncio.create_task(watch.look())]
    try:
        await rig.wait_for_callers()
        began = time.monotonic()
        await _break(game, rig, run)
        load_seconds = time.monotonic() - began
        await _spend_the_rest(rig, run, watch)
        for program in rig.callers:
            program.wanted = False
        rig.end()
        run.report.check("callers", await rig.wait_for_the_end())
        await _wait_for_leases(rig)
    finally:
        for task in beside:
            task.cancel()
        ends = await asyncio.gather(*beside, return_exceptions=True)
    # Whoever looked away saw nothing.
    run.report.check("watch", (repr(end) for end in ends if not _is_cancelled(end)))
    calls = read_book(rig.books)
    run.report.figures |= {
        "seed": game.seed,
        "callers": f"{game.callers * PROCESSES} in {PROCESSES} processes",
        "faults": f"{run.faults.total()} in {load_seconds:.0f} s: "
        + ", ".join(f"{count} {name}" for name, count in sorted(run.faults.items())),
        "looked at": f"{watch.samples:,} moments, {watch.sums:,} added up",
    }
    run.report.check("above a limit", watch.above)
    run.report.check("balances, at any moment", watch.different)
    async with rig.superuser() as connection:
        await verify(connection, calls, run.report)
    if game.then_unchecked and not await _notices(rig):
        run.report.check("harness", ["nothing was noticed without the check"])
    return run.report


async def _notices(rig: Rig) -> bool:
    """Let callers go on without the check, and tell whether the watch sees it."""
    await switch_off_check(rig)
    rig.begin_again()
    watch = Watch(rig)
    look = asyncio.create_task(watch.look())
    with suppress(TimeoutError):
        await asyncio.wait_for(watch.has_seen.wait(), NOTICED_SECONDS)
    look.cancel()
    await asyncio.gather(look, return_exceptions=True)
    return bool(watch.above)


def _is_cancelled(end: BaseException | None) -> bool:
    return isinstance(end, asyncio.CancelledError)


async def _break(game: Game, rig: Rig, run: Run) -> None:
    """Let faults happen for as long as the game lasts, or one after the other in that time."""
    dice = random.Random(f"faults-{game.seed}")  # noqa: S311  a schedule to be repeated
    end = time.monotonic() + game.seconds
    given = list(game.faults)
    pause = game.seconds / (len(given) + 1)
    while given or time.monotonic() < end:
        await asyncio.sleep(pause if game.faults else dice.uniform(0.3, 2.5))
        if game.faults and not given:
            continue
        fault = given.pop(0) if game.faults else draw(dice)
        await fault.do(rig, dice)
        run.faults[fault.name] += 1


async def _spend_the_rest(rig: Rig, run: Run, watch: Watch) -> None:
    """Have what was begun used up in calm, and see how much of each limit could be used."""
    async with rig.superuser() as connection:
        begun = await _count_begun(connection, rig)
        rig.be_calm(begun)
        world = rig.world[:begun]
        deadline = time.monotonic() + SPENT_SECONDS
        use = await measure_use(connection, world)
        while time.monotonic() < deadline:
            await asyncio.sleep(0.5)
            before, use = use, await measure_use(connection, world)
            if watch.above or (use.least >= USABLE and before == use):
                break
    run.report.figures["usable"] = (
        f"{use.least:.1%} of what binds the payer who got least, in {begun} tenants; used up: "
        + ", ".join(f"{count} of {scope}" for scope, count in use.exhausted.items())
    )
    if use.least < USABLE:
        run.report.check("usable", [f"{use.least:.1%} of a limit, {USABLE:.0%} promised"])
    for scope in SCOPES:
        if not use.exhausted[scope]:
            run.report.check("usable", [f"no limit of a {scope} was reached: this tells nothing"])


async def _count_begun(connection: "asyncpg.Connection[asyncpg.Record]", rig: Rig) -> int:
    rows = await connection.fetch(
        "SELECT DISTINCT tenant_id FROM quota_balances WHERE settled + held > 0"
    )
    begun = {row["tenant_id"] for row in rows}
    return max(number for number, tenant in enumerate(rig.world, 1) if tenant.id in begun)


async def _wait_for_leases(rig: Rig) -> None:
    """Wait until nothing is held, as long as whoever ends leases may take."""
    deadline = time.monotonic() + rig.plan.lease_seconds + LEASES_SECONDS
    while time.monotonic() < deadline:
        with suppress(OSError, asyncpg.PostgresError):
            async with rig.superuser() as connection:
                if not await connection.fetchval("SELECT count(*) FROM quota_holds"):
                    return
        await asyncio.sleep(0.2)


async def switch_off_check(rig: Rig) -> None:
    """Have this database cover everything: a harness that works finds it."""
    async with rig.superuser() as connection:
        source = await connection.fetchval(
            "SELECT pg_get_functiondef('quota_reserve(uuid, jsonb, timestamptz)'::regprocedure)"
        )
        assert source.count(ROOM) == 1, "quota_reserve checks in another way now"
        await connection.execute(source.replace(ROOM, "CONTINUE;"))


async def forget_commits(rig: Rig) -> None:
    """Have commits confirmed before they are on the disk: a crash then loses what callers know."""
    async with rig.superuser() as connection:
        await connection.execute("ALTER SYSTEM SET wal_writer_delay = '10s'")
        await connection.execute("SELECT pg_reload_conf()")
        await connection.execute("ALTER ROLE maas_app SET synchronous_commit = off")
