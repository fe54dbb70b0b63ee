"""`maas audit verify --export` and `maas audit resume`: files of an export, with no server."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import typer
from rich.markup import escape

from maas.terminal import fail, load, one_line, output, printable, spell_count

EXIT_UNCHECKED, EXIT_BROKEN = 1, 2
MAX_LISTED = 21
_TABLES = {".csv": "csv", ".parquet": "parquet"}


def read_wanted(
    tenant: UUID | None, since: str | None, until: str | None, *, is_unfiltered: bool
) -> Any:
    """Read what an export is expected to be of."""
    return load("maas.audit.domain.export_wanted").Wanted(
        tenant_id=tenant,
        since=_read_time("--since", since),
        until=_read_time("--until", until),
        is_unfiltered=is_unfiltered,
    )


def _read_time(option: str, text: str | None) -> Any:
    if text is None:
        return None
    try:
        return load("maas.audit.domain.export").instant(text)
    except (ValueError, ArithmeticError):
        raise fail(f"{option} takes a time with a zone, as in 2026-03-01T00:00:00Z") from None


def check_export(path: Path, proof: Path | None, keys: dict[str, bytes] | None, wanted: Any) -> int:
    """Check an export under the keys that are trusted, and under no other."""
    begun = time.monotonic()
    if path.suffix.lower() in _TABLES:
        if proof is None and not wanted.is_anything:
            raise fail("what a CSV or Parquet file is of stands in its proof: give --proof")
        return _check_table(path, proof, keys, wanted, begun)
    if proof is not None:
        raise fail("--proof beside --export is for CSV and Parquet; NDJSON proves itself")
    check = _make_check(keys)
    try:
        for _ in _rows_of_lines(path, check):
            pass
    except OSError as exc:
        raise fail(f"{path} cannot be read: {exc.strerror}") from None
    check.finish()
    if check.findings:
        say_broken(list(check.findings), check.findings.count)
        return EXIT_BROKEN
    say("INTEGRITY", "green", _spell_stretch(check))
    return _say_completeness(check, wanted, begun)


def _make_check(keys: dict[str, bytes] | None) -> Any:
    if keys is None:
        raise fail("an export says nothing without a key to trust: give --public-key")
    return load("maas.audit.domain.export_check").ExportCheck(
        keys=keys, is_signed=load("maas.audit.infrastructure.signing:is_signed_by")
    )


def _rows_of_lines(path: Path, check: Any) -> Iterator[Any]:
    """Take the lines of a file; yield the rows of the tenant's own events."""
    malformed = load("maas.audit.domain.export:MalformedExportError")
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                # Torn: what is missing after it is said at the end.
                return
            try:
                row = check.take(line)
            except malformed as exc:
                raise fail(f"{path} line {number} is no line of an export: {exc}") from None
            if row is not None:
                yield row


def _check_table(
    path: Path, proof: Path | None, keys: dict[str, bytes] | None, wanted: Any, begun: float
) -> int:
    """Check rows against their own payloads and, with a proof, against the signed chain."""
    kind, tables = _TABLES[path.suffix.lower()], load("maas.audit.domain.export_table_check")
    check = None if proof is None else _make_check(keys)
    own = None if proof is None else _rows_of_lines(proof, check)
    findings = load("maas.audit.domain.findings:Findings")() if check is None else check.findings
    table = tables.TableCheck(findings=findings, own=own, is_guarded=kind == "csv")
    rows = load(f"maas.audit.infrastructure.export_files:read_{kind}")
    unreadable = load("maas.audit.infrastructure.export_files:UnreadableTableError")
    try:
        for values in rows(path):
            table.take(values)
        table.finish()
    except unreadable as exc:
        raise fail(f"{path} is no export: {exc}") from None
    except OSError as exc:
        raise fail(f"{exc.filename or path} cannot be read: {exc.strerror}") from None
    if check is not None:
        check.finish()
    if findings:
        say_broken(list(findings), findings.count)
        return EXIT_BROKEN
    say("INTEGRITY", "green", f"ok: {spell_count(table.rows, 'row')}, each as its payload says")
    if check is None:
        say("COMPLETENESS", "yellow", "unknown: give an export of content=proof with --proof")
        return EXIT_UNCHECKED
    say("PROOF", "green", _spell_stretch(check))
    return _say_completeness(check, wanted, begun)


def _spell_stretch(check: Any) -> str:
    first, last = check.header.start.seq, check.header.seq_to
    if last < first:
        return f"ok: no rows; the log went to row {last:,} then"
    signed = spell_count(check.counts.checkpoints, "checkpoint")
    keys = spell_count(len(check.chain.key_uses), "key")
    return (
        f"ok: rows {first:,} to {last:,}, recorded from {spell_time(check.recorded_from)} to "
        f"{spell_time(check.recorded_to)}, {signed} signed by {keys}"
    )


def _say_completeness(check: Any, wanted: Any, begun: float) -> int:
    header, counts = check.header, check.counts
    for tombstone in check.tombstones:
        say("DROPPED", "yellow", _spell_tombstone(tombstone))
    if check.is_attested:
        events = spell_count(counts.events, "event")
        text = f"ok: all {events} of tenant {header.tenant_id}{_spell_header(check)}, as signed"
        say("COMPLETENESS", "green", text)
    else:
        text = "unknown: the last line is not signed, so events of the tenant may be left out"
        say("COMPLETENESS", "yellow", text)
    rows, seconds = counts.events + counts.others, time.monotonic() - begun
    output.print(f"{rows:,} rows in {seconds:.1f} s.", highlight=False, style="dim")
    unmet = wanted.find_unmet(header, check.recorded_to)
    if unmet:
        say("EXPECTED", "red", f"NOT MET: {', '.join(unmet)}")
        return EXIT_BROKEN
    return 0 if check.is_attested else EXIT_UNCHECKED


def _spell_tombstone(tombstone: Any) -> str:
    events, days = spell_count(tombstone.rows, "event"), spell_count(tombstone.policy_days, "day")
    return (
        f"{events} of all tenants, of class {tombstone.retention_class} and recorded in "
        f"{tombstone.period:%Y-%m}, went after {days} under tombstone {tombstone.n}; the tenant's "
        "among them may be missing"
    )


def _spell_header(check: Any) -> str:
    """Spell which events these are; what is recorded after an export is made is in none."""
    header, recorded_to = check.header, check.recorded_to
    since = None if header.since is None else f"from {spell_time(header.since)} on"
    until = None if header.until is None else f"before {spell_time(header.until)}"
    times = " ".join(filter(None, (since, until)))
    clauses = [
        "are kept" if check.tombstones else None,
        f"occurred {times}" if times else None,
        None if recorded_to is None else f"were recorded by {spell_time(recorded_to)}",
    ]
    filters = ", ".join(f"{name}={value}" for name, value in header.wanted.items())
    spelled = " and ".join(filter(None, clauses))
    return (f" that {spelled}" if spelled else "") + (f" with {filters}" if filters else "")


def spell_time(at: Any) -> str:
    text: str = at.strftime("%Y-%m-%dT%H:%M:%SZ")
    return text


def say_broken(bad: Sequence[Any], count: int) -> None:
    where = f"the first is {bad[0].subject}: {bad[0].what}"
    say("INTEGRITY", "red", f"BROKEN in {spell_count(count, 'place')}; {where}")
    for finding in bad[:MAX_LISTED]:
        line = escape(one_line(f"{finding.subject}: {finding.what}"))
        output.print(f"  {line}", highlight=False, soft_wrap=True)
    if count > MAX_LISTED:
        output.print(f"  and {count - MAX_LISTED:,} more", highlight=False)


def say(title: str, colour: str, text: str) -> None:
    line = escape(one_line(text))
    output.print(f"[bold]{title:<13}[/][{colour}]{line}[/]", highlight=False, soft_wrap=True)


def resume(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="An NDJSON or CSV export.")],
) -> None:
    """Cut a broken download behind the last place it can go on from, and print how.

    For NDJSON it prints a cursor, for CSV the number of the last whole row: send it as `cursor` or
    `after_seq`, and append the answer to FILE. Ends with 3, and leaves FILE alone, if nothing is
    missing; with 1 if it has to be started anew.
    """
    files = load("maas.audit.infrastructure.export_files")
    try:
        cut = files.find_cut(path)
        if cut.is_whole:
            typer.echo(printable(f"{path} is whole"), err=True)
            raise typer.Exit(3)
        if cut.go_on is None:
            raise fail(f"{path} holds too little to go on from: start it anew")
        files.cut_off(path, cut.size)
    except files.UnreadableTableError as exc:
        raise fail(f"{path} is no export: {exc}") from None
    except OSError as exc:
        raise fail(f"{path} cannot be read or cut: {exc.strerror}") from None
    typer.echo(cut.go_on)
