"""`maas audit retention`: what the log keeps until when, and the dropping of what it need not."""

import asyncio
import json
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from maas.shared.domain.errors import MaasError
from maas.terminal import errors, fail, load, output, read_settings

EXIT_LEFT, EXIT_BROKEN = 1, 2
COLOURS = {"dropped": "green", "put_off": "yellow", "unfinished": "yellow", "refused": "red"}


def retention(
    *,
    is_dry: Annotated[
        bool, typer.Option("--dry-run", help="Say what would go, and change nothing.")
    ] = False,
    is_sure: Annotated[bool, typer.Option("--yes", help="Drop without asking.")] = False,
    check_archives: Annotated[
        bool,
        typer.Option("--check-archives", help="Check the archives against their tombstones."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the outcome as JSON.")] = False,
) -> None:
    """Drop the events that the policy no longer keeps, each month of them under a tombstone.

    Ends with 0 if nothing due is left, 1 if something is (it is in use, or the archive cannot be
    written), 2 if a partition does not match the chain or an archive is not what was signed.
    """
    settings = read_settings()
    clock = load("maas.shared.infrastructure.clock:SystemClock")()
    if check_archives:
        raise typer.Exit(_check_archives(settings, as_json=as_json))
    wiring = load("maas.audit.retention_wiring")
    try:
        prospects = asyncio.run(wiring.foresee_retention(settings, clock=clock))
        due = [prospect for prospect in prospects if prospect.is_due]
        if is_dry:
            _show_prospects(prospects, as_json=as_json)
            raise typer.Exit(0)
        if due and not is_sure:
            _ask(prospects, len(due), as_json=as_json)
        shown = [prospect.partition for prospect in due]
        report = asyncio.run(
            wiring.retain(settings, clock=clock, actor="operator", run_seconds=None, only=shown)
        )
    except MaasError as exc:
        raise fail(f"retention stopped: {exc.detail} {exc.__cause__ or ''}") from None
    raise typer.Exit(_show_report(report, as_json=as_json))


def _ask(prospects: Sequence[Any], due: int, *, as_json: bool) -> None:
    """Have a person say that they mean it; nobody else can."""
    if as_json or not errors.is_terminal or not sys.stdin.isatty():
        message = f"{due} partitions would be dropped: say --yes, or --dry-run to see which"
        raise fail(message)
    _show_prospects(prospects, as_json=False)
    if not typer.confirm(f"Drop {due} of them for good?", err=True):
        raise typer.Exit(EXIT_LEFT)


def _show_prospects(prospects: Sequence[Any], *, as_json: bool) -> None:
    if as_json:
        _print([_spell_prospect(prospect) for prospect in prospects], "partitions")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title, side in (("class", "left"), ("month", "left"), ("rows", "right"), ("size", "right")):
        table.add_column(title, justify=side)  # type: ignore[arg-type]  # two of its words
    table.add_column("kept until")
    for prospect in prospects:
        partition, until = prospect.partition, "for ever"
        if prospect.until is not None:
            until = f"{prospect.until:%Y-%m-%d}"
        if prospect.is_due:
            until = f"[red]{until}, would be dropped[/]"
        rows = "?" if partition.rows is None else f"{partition.rows:,}"
        table.add_row(
            partition.retention_class,
            f"{partition.period:%Y-%m}",
            rows,
            _spell_size(partition.size_bytes),
            until,
        )
    output.print(table)
    due = [prospect for prospect in prospects if prospect.is_due]
    text = "Nothing is due."
    if due:
        size = _spell_size(sum(prospect.partition.size_bytes for prospect in due))
        text = f"{len(due)} of {len(prospects)} partitions are due, {size} in all."
    note = "Rows are estimates. The chain, its checkpoints and tombstones stay for ever."
    output.print(f"{text}\n[dim]{note}[/]", highlight=False, soft_wrap=True)


def _show_report(report: Any, *, as_json: bool) -> int:
    if not report.is_alone:
        message = "another retention run is under way; try again once it is over"
        raise fail(message)
    if as_json:
        outcomes = [
            {
                "class": outcome.partition.retention_class,
                "month": f"{outcome.partition.period:%Y-%m}",
                "fate": outcome.fate,
                "why": outcome.why,
            }
            for outcome in report.outcomes
        ]
        _print(outcomes, "outcomes")
    else:
        if not report.outcomes:
            output.print("Nothing is due; partitions are there for the next three months.")
        for outcome in report.outcomes:
            colour, fate = COLOURS[outcome.fate], outcome.fate.replace("_", " ")
            line = f"{outcome.partition.label:<20} [{colour}]{fate}[/] {escape(outcome.why)}"
            output.print(line, highlight=False, soft_wrap=True)
    fates = {outcome.fate for outcome in report.outcomes}
    if any(outcome.is_unsound for outcome in report.outcomes):
        return EXIT_BROKEN
    return EXIT_LEFT if fates - {"dropped"} else 0


def _check_archives(settings: Any, *, as_json: bool) -> int:
    wiring = load("maas.audit.retention_wiring")
    try:
        checked = asyncio.run(wiring.check_archives(settings))
    except MaasError as exc:
        raise fail(f"the archives could not be checked: {exc.detail}") from None
    if as_json:
        archives = [
            {"tombstone": each.n, "archive": each.name, "fault": each.fault} for each in checked
        ]
        _print(archives, "archives")
    else:
        for each in checked:
            text = "[green]ok[/]" if each.fault is None else f"[red]{escape(each.fault)}[/]"
            name = escape(each.name or "no archive was kept")
            output.print(f"tombstone {each.n}: {name} {text}", highlight=False, soft_wrap=True)
        if not checked:
            output.print("Nothing was dropped yet.")
    return EXIT_BROKEN if any(each.fault is not None for each in checked) else 0


def _spell_prospect(prospect: Any) -> dict[str, object]:
    partition, until = prospect.partition, prospect.until
    return {
        "class": partition.retention_class,
        "month": f"{partition.period:%Y-%m}",
        "rows": partition.rows,
        "size_bytes": partition.size_bytes,
        "is_due": prospect.is_due,
        "kept_until": None if until is None else until.isoformat(),
    }


def _spell_size(size: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:  # noqa: PLR2004  that is what the units mean
            return f"{size:,.0f} {unit}"
        size /= 1024
    return f"{size:,.1f} GiB"


def _print(items: Sequence[Any], name: str) -> None:
    sys.stdout.write(json.dumps({name: items}, indent=2) + "\n")
