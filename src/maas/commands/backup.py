"""`maas backup`: all of a platform in one folder."""

from pathlib import Path
from typing import Annotated, Any, Final

import typer

from maas.commands.copying import (
    AsJson,
    checked,
    describe,
    print_json,
    run_shown,
    say,
    settings_here,
)
from maas.terminal import load, warn

EXIT_DAMAGED_PARTS: Final = 3
MIB: Final = 1024 * 1024


def backup(
    target: Annotated[
        Path, typer.Argument(metavar="TARGET", help="The folder to make; it must not exist.")
    ],
    *,
    jobs: Annotated[
        int, typer.Option(min=1, max=32, help="Connections that read at the same time.")
    ] = 1,
    has_parts: Annotated[
        bool | None,
        typer.Option(
            "--blobs/--no-blobs",
            help="Copy the files of models, or not [those of a local folder are copied].",
        ),
    ] = None,
    has_secrets: Annotated[
        bool,
        typer.Option("--with-secrets", help="Also copy, in clear, the keys that open secrets."),
    ] = False,
    is_check: Annotated[
        bool, typer.Option("--check", help="Check the backup TARGET instead, with no server.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Copy everything into one new folder, from one snapshot, while the platform runs.

    Nobody waits for it: writers go on; migrations, retention and the collection of deleted files
    wait until it is done. TARGET appears only once it is whole, and nothing is overwritten.

    Example: maas backup /backups/maas-$(date +%F)

    Ends with 0; 3 if it is whole, but files of models were damaged or lost before; 1 if nothing was
    written; 4 if --check finds that it is not what was written.
    """
    if is_check:
        _check(target, as_json=as_json)
        return
    with settings_here() as settings:
        options = load("maas.backup.taking:BackupOptions")(
            target=target, jobs=jobs, has_parts=has_parts, has_secrets=has_secrets
        )
        taken = run_shown(
            lambda progress: load("maas.backup.taking:take_backup")(
                settings, options, progress=progress
            ),
            is_shown=not as_json,
        )
        secrets = load("maas.backup.secrets:list_secrets")(settings)
    manifest = taken.manifest
    if as_json:
        print_json(describe(target, manifest) | {"bytes": taken.bytes})
    else:
        say(
            f"The backup is in {target}: {manifest.row_count:,} rows at revision "
            f"{manifest.revision}, {len(manifest.parts):,} parts of files, "
            f"{taken.bytes / MIB:,.1f} MiB, as of {manifest.snapshot_at}."
        )
        if not manifest.has_parts:
            say("The files of models are not in it: back up their store by itself.")
        _say_secrets(secrets, has_secrets=has_secrets)
    if not taken.is_told:
        warn("the trail could not be told of this backup")
    if manifest.damaged_parts:
        warn(
            f"{len(manifest.damaged_parts)} parts of files are lost or damaged in the store, and "
            "are not in the backup; the first is " + manifest.damaged_parts[0]
        )
        raise typer.Exit(EXIT_DAMAGED_PARTS)


def _check(target: Path, *, as_json: bool) -> None:
    manifest = checked(target, is_shown=not as_json)
    if as_json:
        print_json(describe(target, manifest))
    else:
        say(
            f"{target} is whole: {len(manifest.files):,} files as they were written, "
            f"{manifest.row_count:,} rows as of {manifest.snapshot_at}, revision "
            f"{manifest.revision}, PostgreSQL {manifest.postgres}."
        )


def _say_secrets(secrets: list[Any], *, has_secrets: bool) -> None:
    if has_secrets:
        warn("its folder `secrets` opens everything in it: whoever reads the backup has both")
        return
    say("Not in it, and needed to use it; keep a copy apart (or --with-secrets):")
    for each in secrets:
        say(f"  {each.file or each.variable}  ({each.what})")
