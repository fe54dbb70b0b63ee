"""`maas audit`: check the trail, prove an event, show the key that signs."""

import asyncio
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import typer
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from maas.commands.audit_export import (
    check_export,
    read_wanted,
    resume,
    say,
    say_broken,
)
from maas.commands.audit_retention import retention
from maas.shared.domain.errors import MaasError
from maas.terminal import errors, fail, load, output, printable, read_settings, spell_count

audit = typer.Typer(help="The audit trail.", no_args_is_help=True)
audit.command("resume")(resume)
audit.command("retention")(retention)

EXIT_UNCHECKED, EXIT_BROKEN, EXIT_HEAD = 1, 2, 3
MAX_LISTED = 21

Keys = Annotated[
    list[Path] | None,
    typer.Option(
        "--public-key",
        metavar="FILE",
        help="A key to trust, in PEM; may be given again. Else the database's keys are.",
    ),
]


@audit.command("verify")
def verify(
    *,
    first: Annotated[
        int | None, typer.Option("--from", min=1, metavar="SEQ", help="The first row.")
    ] = None,
    last: Annotated[
        int | None, typer.Option("--to", min=1, metavar="SEQ", help="The last row.")
    ] = None,
    head: Annotated[
        Path | None,
        typer.Option("--head", metavar="FILE", help="Exported heads that must be on the chain."),
    ] = None,
    is_fast: Annotated[
        bool, typer.Option("--fast", help="Chain, checkpoints and head only.")
    ] = False,
    public_key: Keys = None,
    proof: Annotated[
        Path | None,
        typer.Option(
            "--proof",
            metavar="FILE",
            help="Check this proof instead, with no server; with --export, against it.",
        ),
    ] = None,
    export: Annotated[
        Path | None,
        typer.Option("--export", metavar="FILE", help="Check this export instead, with no server."),
    ] = None,
    tenant: Annotated[
        UUID | None, typer.Option("--tenant", help="With --export: whose it must be.")
    ] = None,
    since: Annotated[
        str | None,
        typer.Option("--since", metavar="TIME", help="With --export: by when it must begin."),
    ] = None,
    until: Annotated[
        str | None,
        typer.Option("--until", metavar="TIME", help="With --export: until when it must go."),
    ] = None,
    is_unfiltered: Annotated[
        bool, typer.Option("--unfiltered", help="With --export: it must have no filters.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the verdict as JSON.")] = False,
) -> None:
    """Check that the trail is what was recorded, and that all of it is there.

    Ends with 0 if so, 2 if something was changed or is missing, 3 if only an exported head is not
    on the chain (its end was cut off), 1 if it could not be checked.
    """
    wanted = read_wanted(tenant, since, until, is_unfiltered=is_unfiltered)
    if export is not None:
        raise typer.Exit(check_export(export, proof, _read_keys(public_key), wanted))
    if not wanted.is_anything:
        raise fail("--tenant, --since, --until and --unfiltered are for --export")
    if proof is not None:
        raise typer.Exit(_check_proof(proof, public_key))
    verification = load("maas.audit.application.verification")
    keys, heads, unreadable = _read_keys(public_key), None, 0
    if head is not None:
        source = load("maas.audit.infrastructure.heads")
        try:
            heads, unreadable = source.read_heads(head)
        except source.UnreadableHeadsError as exc:
            raise fail(str(exc)) from None
    options = verification.VerifyOptions(
        first=first, last=last, is_fast=is_fast, heads=heads, trusted_keys=keys
    )
    settings, begun = read_settings(), time.monotonic()
    try:
        with _progress(is_shown=not as_json) as on_progress:
            verdict = asyncio.run(
                load("maas.audit.wiring:verify_trail")(settings, options, on_progress=on_progress)
            )
    except MaasError as exc:
        raise fail(f"the trail could not be checked: {exc.detail} {exc.__cause__ or ''}") from None
    seconds = time.monotonic() - begun
    if as_json:
        _print_json(verdict, seconds)
    else:
        _print_verdict(verdict, seconds, is_trusting=keys is None, unreadable=unreadable)
    raise typer.Exit(_exit_code(verdict))


def _check_proof(path: Path, public_keys: list[Path] | None) -> int:
    """Check a proof under the keys that are trusted, and under no other."""
    keys = _read_keys(public_keys)
    if keys is None:
        message = "a proof says nothing without a key to trust: give --public-key"
        raise fail(message)
    domain = load("maas.audit.domain.proof")
    try:
        fields = json.loads(path.read_bytes())
        fault = domain.find_fault(
            fields, keys=keys, is_signed=load("maas.audit.infrastructure.signing:is_signed_by")
        )
    except OSError as exc:
        raise fail(f"{path} cannot be read: {exc.strerror}") from None
    except (ValueError, ArithmeticError, RecursionError) as exc:
        raise fail(f"{path} is no proof: {exc}") from None
    if fault is not None:
        say("PROOF", "red", f"BROKEN: {fault}")
        return EXIT_BROKEN
    signed = fields["checkpoint"]
    say("PROOF", "green", f"ok: event {fields['event_id']} is row {fields['seq']:,}")
    output.print(
        escape(
            printable(
                f"Recorded by {signed['recorded_at']}, when checkpoint {signed['n']:,} was signed "
                f"with the key {signed['key_id']}."
            )
        ),
        highlight=False,
        soft_wrap=True,
        style="dim",
    )
    return 0


def _exit_code(verdict: Any) -> int:
    if verdict.findings or verdict.gaps:
        return EXIT_BROKEN
    return EXIT_HEAD if verdict.head_findings else 0


def _read_keys(paths: list[Path] | None) -> dict[str, bytes] | None:
    if not paths:
        return None
    signing = load("maas.audit.infrastructure.signing")
    try:
        keys: dict[str, bytes] = signing.read_public_keys(paths)
    except signing.UnreadableKeyError as exc:
        raise fail(str(exc)) from None
    return keys


@contextmanager
def _progress(*, is_shown: bool) -> Iterator[Callable[[int, int], None]]:
    """Show a bar in a terminal, and nothing elsewhere."""
    if not is_shown or not errors.is_terminal:
        yield load("maas.audit.application.verification:show_no_progress")
        return
    bar = Progress(
        TextColumn("Checking"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=errors,
        transient=True,
    )
    with bar:
        task = bar.add_task("rows", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _print_verdict(verdict: Any, seconds: float, *, is_trusting: bool, unreadable: int) -> None:
    bad = [*verdict.findings, *verdict.head_findings]
    count = verdict.findings.count + verdict.head_findings.count
    if not bad:
        say("INTEGRITY", "green", f"ok: {_spell_checked(verdict)}")
    else:
        say_broken(bad, count)
    if verdict.gaps:
        gaps = "; ".join(f"{gap.count:,} {gap.what}" for gap in verdict.gaps)
        say("COMPLETENESS", "red", f"INCOMPLETE: {gaps}")
    else:
        say("COMPLETENESS", "green", "ok: nothing waits, nothing was set aside, no id twice")
    notes = [f"{verdict.rows:,} rows in {seconds:.1f} s ({verdict.rows / seconds:,.0f}/s)."]
    if verdict.erased:
        notes.append(f"{spell_count(verdict.erased, 'event')} had the personal fields erased.")
    if verdict.dropped:
        under = spell_count(verdict.tombstones, "tombstone")
        notes.append(f"{spell_count(verdict.dropped, 'event')} were dropped, under {under}.")
    if is_trusting and verdict.checkpoints:
        notes.append("The keys are the database's own; --public-key checks with yours.")
    if unreadable:
        notes.append(f"{spell_count(unreadable, 'line')} of the heads could not be read.")
    output.print("\n".join(notes), highlight=False, soft_wrap=True, style="dim")


def _spell_checked(verdict: Any) -> str:
    if not verdict.rows:
        return "there are no rows yet"
    signed = ", ".join(sorted(verdict.keys))
    keys = spell_count(len(verdict.keys), "key")
    parts = [
        f"rows {verdict.first_seq:,} to {verdict.last_seq:,}",
        f"{spell_count(verdict.checkpoints, 'checkpoint')} signed by {keys} ({signed})",
    ]
    if verdict.heads:
        parts.append(f"{spell_count(verdict.heads, 'exported head')} on the chain")
    return ", ".join(parts)


def _print_json(verdict: Any, seconds: float) -> None:
    bad = [*verdict.findings, *verdict.head_findings]
    integrity = "broken" if verdict.findings else "head-mismatch" if bad else "ok"
    document = {
        "integrity": integrity,
        "completeness": "incomplete" if verdict.gaps else "ok",
        "first_bad_seq": bad[0].seq if bad else None,
        "findings": [
            {"seq": finding.seq, "subject": finding.subject, "what": finding.what}
            for finding in bad[:MAX_LISTED]
        ],
        "finding_count": verdict.findings.count + verdict.head_findings.count,
        "gaps": [{"what": gap.what, "count": gap.count} for gap in verdict.gaps],
        "first_seq": verdict.first_seq,
        "last_seq": verdict.last_seq,
        "rows": verdict.rows,
        "checkpoints": verdict.checkpoints,
        "heads": verdict.heads,
        "erased": verdict.erased,
        "dropped": verdict.dropped,
        "tombstones": verdict.tombstones,
        "keys": {
            key_id: {"first_seq": use.first_seq, "checkpoints": use.checkpoints}
            for key_id, use in verdict.keys.items()
        },
        "seconds": round(seconds, 3),
    }
    sys.stdout.write(json.dumps(document, indent=2) + "\n")


@audit.command("prove")
def prove(
    event_id: Annotated[UUID, typer.Argument(help="The event's id.")],
    *,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Where to write it.")
    ] = None,
) -> None:
    """Write a proof that an event was recorded, to be checked elsewhere with `verify --proof`."""
    try:
        proof = asyncio.run(load("maas.audit.wiring:prove_event")(read_settings(), event_id))
    except MaasError as exc:
        raise fail(exc.detail) from None
    text = json.dumps(proof.to_mapping(), indent=2, ensure_ascii=False) + "\n"
    if out is None:
        sys.stdout.write(text)
        return
    _write(out, text)
    output.print(f"The proof of row {proof.seq} is in {out}.", highlight=False, soft_wrap=True)


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as exc:
        raise fail(f"{path} cannot be written: {exc.strerror}") from None


@audit.command("key")
def key(
    *,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Where to write it.")
    ] = None,
) -> None:
    """Print the public key of the configured signing key, for whoever checks the trail."""
    signer = load("maas.audit.wiring:load_configured_signer")(read_settings())
    if out is None:
        sys.stdout.write(signer.public_pem())
        return
    _write(out, signer.public_pem())
    output.print(f"The public key {signer.key_id} is in {out}.", highlight=False, soft_wrap=True)
