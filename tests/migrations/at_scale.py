"""`make migrations`: each revision up, down and up again on a million rows, while others work.

make migrations                          a million rows in each large table
make migrations ARGS="--rows 50000"      quicker, and says less
make migrations ARGS="--only 0013,0024"  walks these alone; the others are only passed

A revision that makes a table cannot lock it: nobody works on it yet. All others are walked with
every large table full that there is by then, and at the end everything is walked back, full.
No release is out yet, so every revision counts as one that somebody may have to go through.
"""

import argparse
import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from tests.migrations.filling import Filled, fill, find_empty
from tests.migrations.old_code import OldCodeError, run_old_code
from tests.migrations.probing import Prober, Seen
from tests.servers import ROLES, SUPERUSER, RunningServers, Servers

ROOT: Final = Path(__file__).resolve().parents[2]
DATABASE: Final = "at_scale"
MAX_LOCK_SECONDS: Final = 1.0
LEAST_SECONDS: Final = 0.005
"""Shorter waits say nothing of where."""

QUIET_SECONDS: Final = 3.0
ROWS: Final = 1_000_000
TERMINATED: Final = 143
console = Console(highlight=False, soft_wrap=True)


@dataclass(slots=True, kw_only=True)
class Step:
    """One revision: seconds for each way through it, and what others felt meanwhile."""

    revision: str
    up: float = 0.0
    down: float = 0.0
    again: float = 0.0
    back: float = 0.0
    seen: dict[str, Seen] = field(default_factory=dict)

    @property
    def lock(self) -> tuple[float, str]:
        return max((each.lock_seconds, f"{each.lock_table}, {way}") for way, each in self._seen())

    @property
    def stall(self) -> float:
        return max(each.stall_seconds for _, each in self._seen())

    @property
    def failures(self) -> list[str]:
        return [f"{way}: {text}" for way, each in self._seen() for text in each.failures]

    def _seen(self) -> list[tuple[str, Seen]]:
        return list(self.seen.items()) or [("", Seen())]


@dataclass(slots=True, kw_only=True)
class Walk:
    servers: Servers
    config: Config
    prober: Prober
    rows: int
    steps: list[Step] = field(default_factory=list)
    filled: dict[str, Filled] = field(default_factory=dict)
    baseline: Seen = field(default_factory=Seen)
    old_code: list[str] = field(default_factory=list)

    def tables(self) -> list[str]:
        return asyncio.run(self._full_tables())

    def fill(self) -> None:
        asyncio.run(self._fill())

    def pass_through(self, step: Step, way: str, do: Callable[[], None]) -> float:
        """Do it while others work, and tell the seconds."""
        with self.prober.probing(self.tables(), step.seen.setdefault(way, Seen())):
            began = time.monotonic()
            do()
            return time.monotonic() - began

    async def _full_tables(self) -> list[str]:
        connection = await self.servers.connect(DATABASE)
        try:
            return [
                table
                for table in self.filled
                if await connection.fetchval("SELECT to_regclass($1)", f"public.{table}")
            ]
        finally:
            await connection.close()

    async def _fill(self) -> None:
        connection = await self.servers.connect(DATABASE)
        try:
            for table in await find_empty(connection):
                self.filled[table] = await fill(connection, table, self.rows)
        finally:
            await connection.close()


def revisions_of(config: Config) -> list[str]:
    scripts = ScriptDirectory.from_config(config)
    return [script.revision for script in scripts.walk_revisions()][::-1]


def walk(walk: Walk, only: list[str], progress: Progress) -> None:
    """Walk each revision up, down and up again, filling what it made; then all the way back."""
    revisions = revisions_of(walk.config)
    task = progress.add_task("revisions", total=2 * len(revisions))
    for revision in revisions:
        progress.update(task, description=f"{revision}: up, down, up")
        if only and not any(revision.startswith(each) for each in only):
            command.upgrade(walk.config, revision)
        else:
            walk.steps.append(_walk_one(walk, revision))
        progress.update(task, description=f"after {revision}: filling")
        walk.fill()
        progress.advance(task)
    quiet = Step(revision="none")
    walk.pass_through(quiet, "quiet", lambda: time.sleep(QUIET_SECONDS))
    walk.baseline = quiet.seen["quiet"]
    progress.update(task, description="the models say the same")
    command.check(walk.config)
    progress.update(task, description="the code before the newest revision")
    walk.old_code = run_old_code(walk.servers, DATABASE)
    for revision in revisions[::-1]:
        progress.update(task, description=f"{revision}: back, full")
        step = next((each for each in walk.steps if each.revision == revision), None)
        if step is None:
            command.downgrade(walk.config, "-1")
        else:
            step.back = walk.pass_through(
                step, "back", lambda: command.downgrade(walk.config, "-1")
            )
        progress.advance(task)


def _walk_one(walk: Walk, revision: str) -> Step:
    step = Step(revision=revision)
    step.up = walk.pass_through(step, "up", lambda: command.upgrade(walk.config, revision))
    step.down = walk.pass_through(step, "down", lambda: command.downgrade(walk.config, "-1"))
    step.again = walk.pass_through(step, "again", lambda: command.upgrade(walk.config, revision))
    return step


def _show(done: Walk) -> bool:
    table = Table(title=f"{done.rows:,} rows in each of {len(done.filled)} large tables")
    for name in ("revision", "up s", "down s", "up again s", "back, full s"):
        table.add_column(name, justify="left" if name == "revision" else "right")
    table.add_column("longest lock wait s", justify="right")
    table.add_column("where")
    table.add_column("longest stall s", justify="right")
    table.add_column(f"goal {MAX_LOCK_SECONDS:.0f} s")
    for step in done.steps:
        seconds, where = step.lock
        is_met = seconds <= MAX_LOCK_SECONDS and not step.failures
        table.add_row(
            step.revision,
            *(f"{each:.1f}" for each in (step.up, step.down, step.again, step.back)),
            f"{seconds:.2f}",
            escape(where) if seconds > LEAST_SECONDS else "",
            f"{step.stall:.2f}",
            "[green]met[/]" if is_met else "[red]missed[/]",
        )
    console.print(table)
    for step in done.steps:
        for failure in step.failures[:3]:
            console.print(f"[red]{step.revision}[/] {escape(failure)}")
    steps = sum(seen.steps for step in done.steps for seen in step.seen.values())
    seconds = sum(each.seconds for each in done.filled.values())
    console.print(
        f"{steps:,} transactions of others meanwhile; with no migration the longest took"
        f" {done.baseline.stall_seconds:.2f} s. Filling took {seconds:.0f} s."
    )
    console.print("autogenerate: empty")
    console.print(f"old code on the new schema: {', '.join(done.old_code)}")
    worst = max((step.lock[0] for step in done.steps), default=0.0)
    missed = [
        step.revision for step in done.steps if step.lock[0] > MAX_LOCK_SECONDS or step.failures
    ]
    verdict = "[red]FAIL[/]" if missed else "[green]PASS[/]"
    console.print(
        f"{verdict} {len(done.steps)} revisions up, down and up on {done.rows:,} rows a table:"
        f" longest lock wait {worst:.2f} s; too long in: {', '.join(missed) or 'none'}"
    )
    return not missed


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="make migrations",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rows", type=int, default=ROWS, help="in each large table")
    parser.add_argument("--only", default="", help="beginnings of revisions, with commas between")
    given = parser.parse_args()
    # Whoever ends this ends what it started as well.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    running = RunningServers()
    try:
        servers = running.servers
        asyncio.run(_make_database(servers))
        os.environ["MAAS_DATABASE__URL"] = servers.database_url(DATABASE, "maas_app")
        os.environ["MAAS_DATABASE__OWNER_URL"] = servers.database_url(DATABASE, "maas_owner")
        dsn = {
            "host": servers.socket_folder,
            "port": 5432,
            "user": SUPERUSER,
            "database": DATABASE,
        }
        config = Config(ROOT / "alembic.ini")
        with Prober(dsn) as prober, Progress(console=console, transient=True) as progress:
            done = Walk(servers=servers, config=config, prober=prober, rows=given.rows)
            walk(done, [each for each in given.only.split(",") if each], progress)
        return 0 if _show(done) else 1
    except OldCodeError as exc:
        console.print(f"[red]FAIL[/] the old code on the new schema: {escape(str(exc))}")
        return 1
    finally:
        running.stop()


async def _make_database(servers: Servers) -> None:
    connection = await servers.connect("postgres")
    try:
        for role, attributes in ROLES.items():
            await connection.execute(f"CREATE ROLE {role} {attributes}")
        await connection.execute(f"CREATE DATABASE {DATABASE} OWNER maas_owner")
    finally:
        await connection.close()


if __name__ == "__main__":
    sys.exit(main())
