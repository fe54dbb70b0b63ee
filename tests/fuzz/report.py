"""What a fuzz says at its end, and whether it passed."""

import argparse
from typing import Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tests.fuzz.stage import Stage
from tests.fuzz.tally import Tally
from tests.fuzz.watch import Figures, Held

MAX_GROWTH_MIB: Final = 50.0
SPARE: Final = 10
"""Pools keep some of what a crowd has opened."""


def show(
    console: Console,
    tally: Tally,
    figures: Figures,
    *,
    stage: Stage,
    options: argparse.Namespace,
    seconds: float,
) -> int:
    """Print it all; 0 if every promise was kept."""
    table = Table(title=f"{tally.total:,} requests in {seconds:.0f} s, {tally.people} people")
    table.add_column("role")
    table.add_column("requests", justify="right")
    for role, count in sorted(tally.requests.items()):
        table.add_row(role, f"{count:,}")
    console.print(table)
    told = "  ".join(f"{status}: {count:,}" for status, count in sorted(tally.statuses.items()))
    console.print(f"statuses  {told}")
    _operations(console, tally, stage, options)
    for fault in tally.faults.values():
        console.rule(
            escape(f"{fault.check}: {fault.operation} -> {fault.status}"), style="red", align="left"
        )
        console.print(f"{tally.counts[fault.kind]} times, here as {fault.role}")
        console.print(escape(fault.message), soft_wrap=True)
        console.print(fault.curl, markup=False, soft_wrap=True, highlight=False)
    for error, count in tally.errors.items():
        console.print(f"[red]no answer[/] {count} x {escape(error)}", soft_wrap=True)
    return _judge(console, tally, figures, options)


def _operations(console: Console, tally: Tally, stage: Stage, options: argparse.Namespace) -> None:
    labels = {
        f"{method.upper()} {path}"
        for path, item in stage.document["paths"].items()
        for method in item
        if not options.only or path in options.only
    }
    reached = {label for label in labels if tally.reached[label]}
    console.print(
        f"operations  {len(labels)}; asked {len(labels & tally.operations.keys())}, "
        f"answered with what was asked for {len(reached)}"
    )
    for label in sorted(labels - reached):
        console.print(
            f"  never more than refused: {label} ({tally.operations[label]} requests)",
            soft_wrap=True,
        )


def _judge(console: Console, tally: Tally, figures: Figures, options: argparse.Namespace) -> int:
    idle, warm, after = figures.idle, figures.warm, figures.after
    growth = after.memory_mib - warm.memory_mib
    errors = sum(count for status, count in tally.statuses.items() if status >= 500)
    lines = [
        (tally.total >= options.requests, f"{tally.total:,} of {options.requests:,} requests"),
        (errors == 0, f"{errors} answers of 500 and above"),
        (not tally.faults, f"{len(tally.faults)} kinds of fault, {tally.counts.total()} times"),
        (not tally.errors, f"{len(tally.errors)} operations not generated, or not answered"),
        (
            tally.slow == 0,
            f"{tally.slow} answers took over {options.slow} s, the slowest {tally.slowest:.2f} s",
        ),
        (
            growth <= MAX_GROWTH_MIB,
            f"memory {growth:+.0f} MiB, at most {MAX_GROWTH_MIB:.0f}: {_of(idle, warm, after)}",
        ),
        (
            after.descriptors <= idle.descriptors + SPARE,
            f"descriptors {idle.descriptors} idle, {after.descriptors} after",
        ),
        (
            after.connections <= idle.connections + SPARE,
            f"connections to PostgreSQL {idle.connections} idle, {after.connections} after",
        ),
    ]
    for is_kept, line in lines:
        console.print(f"[green]PASS[/] {line}" if is_kept else f"[red]MISS[/] {line}")
    console.print(f"again: make fuzz ARGS='--seed {options.seed} --requests {options.requests}'")
    return 0 if all(is_kept for is_kept, _ in lines) else 1


def _of(idle: Held, warm: Held, after: Held) -> str:
    figures = (f"{held.memory_mib:.0f}" for held in (idle, warm, after))
    return "{} idle, {} warm, {} after".format(*figures)
