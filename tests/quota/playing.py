"""The long form, as `make chaos ARGS="--only quota"` plays it, and proofs that it would find."""

from dataclasses import replace
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.markup import escape

from tests.chaos.invariants import Report
from tests.quota.faults import FAULTS
from tests.quota.harness import Game, play

QUOTA: Final = "quota"
CRASH: Final = next(fault for fault in FAULTS if fault.name == "PostgreSQL killed")
SECONDS: Final = 60.0
PROOF_SECONDS: Final = 8.0

console = Console(highlight=False, soft_wrap=True)


def play_quota(seed: int, kept: Path, *, prove_harness: bool) -> int:
    """Play it, print the figures and the verdict, and tell the exit code."""
    game = Game(seed=seed, seconds=SECONDS)
    console.print(f"seed {seed}")
    return _prove(game) if prove_harness else _play(game, kept / f"quota-{seed}")


def _play(game: Game, kept: Path) -> int:
    with console.status("200 callers, and what happens to them"):
        report = play(game, kept=kept)
    _show(report)
    told, looked = report.figures["settled, as callers were told"], report.figures["looked at"]
    verdict = "[green]PASS[/]" if report.is_whole else "[red]FAIL[/]"
    faults = report.figures["faults"].replace(" in ", " faults in ", 1).partition(":")[0]
    console.print(f"{verdict} budgets with seed {game.seed}: {faults}, {looked}, settled {told}")
    if not report.is_whole:
        console.print(f"Logs and the callers' books are in {kept}/.")
    return 0 if report.is_whole else 1


def _prove(game: Game) -> int:
    """Break the product twice in the database of the run, and see that both are found."""
    short = replace(
        game, seconds=PROOF_SECONDS, tenants=4, with_worker=False, fsync=False, holds=500
    )
    unchecked = replace(short, is_checked=False, faults=())
    forgetful = replace(short, is_durable=False, faults=(CRASH,) * 3)
    found = {}
    for name, played, invariant in (
        ("the check switched off", unchecked, "above a limit"),
        ("commits that are not on the disk", forgetful, "told"),
    ):
        with console.status(name):
            report = play(played)
        _show(report)
        found[name] = len(report.broken[invariant])
    verdict = "[green]PASS[/]" if all(found.values()) else "[red]FAIL[/]"
    findings = ", ".join(f"{name}: {count} found" for name, count in found.items())
    console.print(f"{verdict} {findings}")
    return 0 if all(found.values()) else 1


def _show(report: Report) -> None:
    for line in report.lines():
        colour = "red" if line.startswith("BROKEN") else "dim"
        console.print(f"  [{colour}]{escape(line)}[/]")
