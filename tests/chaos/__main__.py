"""`make chaos`: break everything under load, then check that nothing was lost, doubled or made up.

make chaos                              the gate: named faults, then a minute of random ones
make chaos ARGS="--seed 7"              the same schedule again
make chaos ARGS="--only C08,C14"        single rows of the fault matrix, each on a new cluster
make chaos ARGS="--all"                 every row
make chaos SEEDS=30                     a minute of random faults for each of 30 seeds
make chaos ARGS="--prove-harness"       with the outbox switched off: losses must be found
make chaos ARGS="--only quota"          200 callers on budgets for a minute; --prove-harness as well
"""

import argparse
import asyncio
import os
import secrets
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import uvloop
from rich.console import Console
from rich.markup import escape

from tests.chaos.cluster import keep, running_cluster
from tests.chaos.invariants import Report, settle, usage_of, verify
from tests.chaos.load import Book
from tests.chaos.scenarios import ELSEWHERE, GATE, SCENARIOS
from tests.chaos.stage import at_work
from tests.quota.playing import QUOTA, play_quota

KEPT = Path("chaos-failures")
console = Console(highlight=False, soft_wrap=True)


@dataclass(slots=True)
class Played:
    """What one cluster went through."""

    report: Report
    faults: int
    load_seconds: float
    notes: list[str] = field(default_factory=list)


async def _play(
    names: Sequence[str], *, seed: int, extra: Mapping[str, Mapping[str, str]]
) -> Played:
    book = Book()
    with console.status("starting PostgreSQL, Valkey, two API processes and two workers"):
        context = running_cluster(extra=extra, seed=seed)
        cluster = await asyncio.to_thread(context.__enter__)
    try:
        book.open(cluster.folder)
        async with at_work(cluster, book, seed=seed, run=f"s{seed}") as stage:
            before, began = usage_of(cluster), time.monotonic()
            for name in names:
                scenario, faults = SCENARIOS[name], stage.faults
                if scenario.needs_root and os.geteuid() != 0:
                    console.print(f"  {name} {scenario.title}: left out, it mounts a disk as root")
                    continue
                with console.status(f"{name} {scenario.title}"):
                    await scenario.play(stage)
                console.print(f"  {name} {scenario.title}: {stage.faults - faults} faults")
            load_seconds = time.monotonic() - began
        with console.status("settling"):
            settled = await settle(cluster)
        with console.status("verifying"):
            report = await verify(
                cluster,
                book,
                before=before,
                dead_letters=stage.dead_letters,
                excuse_class_b=stage.excuse_class_b,
                settled_seconds=settled,
            )
        report.check("scenario", stage.findings)
        book.close()
        if not report.is_whole:
            keep(cluster.folder, KEPT / f"{'-'.join(names)}-{seed}")
        return Played(report, stage.faults, load_seconds, stage.notes)
    finally:
        await asyncio.to_thread(context.__exit__, None, None, None)


def _show(played: Played, title: str) -> bool:
    for line in played.report.lines():
        colour = "red" if line.startswith("BROKEN") else "dim"
        console.print(f"  [{colour}]{escape(line)}[/]")
    verdict = "[green]PASS[/]" if played.report.is_whole else "[red]FAIL[/]"
    acknowledged = played.report.figures["acknowledged"]
    console.print(
        f"{verdict} {escape(title)}: {acknowledged:,} acknowledged over {played.faults} faults in "
        f"{played.load_seconds:.0f} s; {played.report.figures['lost']} lost, "
        f"{played.report.figures['doubled']} doubled, {played.report.figures['phantoms']} phantoms"
    )
    return played.report.is_whole


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="make chaos", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000))
    parser.add_argument("--seeds", type=int, default=0, help="random minutes, one for each seed")
    parser.add_argument("--only", default="", help="rows of the matrix, with commas between")
    parser.add_argument("--all", action="store_true", help="every row, each on a new cluster")
    parser.add_argument("--prove-harness", action="store_true", help="losses must be found")
    return parser.parse_args()


def _prove(seed: int) -> int:
    """Switch the outbox off, and see that what is lost is found."""
    extra = {"api": {"CHAOS_OUTBOX": "off"}}
    played = uvloop.run(_play(["C01", "C07"], seed=seed, extra=extra))
    found = bool(played.report.figures["lost"] or played.report.figures["silent changes"])
    _show(played, "with the outbox switched off")
    console.print("[green]PASS[/] the losses were found" if found else "[red]FAIL[/] no loss seen")
    return 0 if found else 1


def _choose(given: argparse.Namespace) -> list[tuple[list[str], int]]:
    """List what is played, each with its seed, on a cluster of its own."""
    if given.all or given.only:
        names = given.only.split(",") if given.only else [n for n in SCENARIOS if n != "C08-long"]
        return [([name], given.seed) for name in names]
    if given.seeds:
        return [(["C40"], given.seed + number) for number in range(given.seeds)]
    return [(list(GATE), given.seed)]


def main() -> int:
    given = _arguments()
    if given.only == QUOTA:
        return play_quota(given.seed, KEPT, prove_harness=given.prove_harness)
    console.print(f"seed {given.seed} (argon2 parameters are cheap, the login throttle is off)")
    if given.prove_harness:
        return _prove(given.seed)
    is_whole = True
    for chosen, seed in _choose(given):
        title = "the gate" if chosen == list(GATE) else f"{','.join(chosen)} with seed {seed}"
        is_whole &= _show(uvloop.run(_play(chosen, seed=seed, extra={})), title)
    if given.all:
        for name, where in ELSEWHERE.items():
            console.print(f"[dim]{name}: {where}[/]")
    if not is_whole:
        console.print(
            f"Logs and the clients' book are in {KEPT}/. Repeat with --seed {given.seed}."
        )
    return 0 if is_whole else 1


if __name__ == "__main__":
    sys.exit(main())
