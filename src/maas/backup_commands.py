"""`maas backup` and `maas restore`: all of a platform in one folder, and back from it."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

import typer
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn

from maas.shared.infrastructure.settings import InvalidSettingsError, Settings
from maas.terminal import (
    borrow,
    errors,
    fail,
    given_settings,
    load,
    output,
    printable,
    read_settings,
    refuse_settings,
    warn,
)

T = TypeVar("T")

EXIT_BROKEN: Final = 2
EXIT_HEAD: Final = 3
EXIT_DAMAGED_PARTS: Final = 3
MAX_KEYS: Final = 20
MIB: Final = 1024 * 1024

AsJson = Annotated[bool, typer.Option("--json", help="Print what came of it as JSON.")]


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
    with _settings_here() as settings:
        options = load("maas.backup.taking:BackupOptions")(
            target=target, jobs=jobs, has_parts=has_parts, has_secrets=has_secrets
        )
        taken = _run_shown(
            lambda progress: load("maas.backup.taking:take_backup")(
                settings, options, progress=progress
            ),
            is_shown=not as_json,
        )
        secrets = load("maas.backup.secrets:list_secrets")(settings)
    manifest = taken.manifest
    if as_json:
        _print_json(_describe(target, manifest) | {"bytes": taken.bytes})
    else:
        _say(
            f"The backup is in {target}: {manifest.row_count:,} rows at revision "
            f"{manifest.revision}, {len(manifest.parts):,} parts of files, "
            f"{taken.bytes / MIB:,.1f} MiB, as of {manifest.snapshot_at}."
        )
        if not manifest.has_parts:
            _say("The files of models are not in it: back up their store by itself.")
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
    manifest = _checked(target, is_shown=not as_json)
    if as_json:
        _print_json(_describe(target, manifest))
    else:
        _say(
            f"{target} is whole: {len(manifest.files):,} files as they were written, "
            f"{manifest.row_count:,} rows as of {manifest.snapshot_at}, revision "
            f"{manifest.revision}, PostgreSQL {manifest.postgres}."
        )


def _say_secrets(secrets: list[Any], *, has_secrets: bool) -> None:
    if has_secrets:
        warn("its folder `secrets` opens everything in it: whoever reads the backup has both")
        return
    _say("Not in it, and needed to use it; keep a copy apart (or --with-secrets):")
    for each in secrets:
        _say(f"  {each.file or each.variable}  ({each.what})")


def restore(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="A folder of `maas backup`.")],
    *,
    data_dir: Annotated[
        Path | None,
        typer.Option(help="An empty data folder to restore into [MAAS_DATA_DIR]."),
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, max=32, help="Tables restored at the same time.")
    ] = None,
    keeps_sessions: Annotated[
        bool,
        typer.Option("--keep-sessions", help="Leave everybody signed in who was so then."),
    ] = False,
    is_dry: Annotated[
        bool, typer.Option("--dry-run", help="Only check the backup, and what is in the way.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Restore a backup into an empty platform, and check that it is all there.

    Goes into MAAS_DATABASE__URL if that is set, else into an empty data folder, whose servers it
    starts. Stop the API and the worker first. Everybody is signed out; API keys open as they did
    when the backup was taken, those revoked since then too: they are listed.

    Example: maas restore /backups/maas-2026-11-22 --data-dir /var/lib/maas

    Ends with 0; 2 if the trail was changed or is incomplete; 3 if only its end does not match; 1 if
    nothing was begun; 4 if the backup is damaged; 5 if something is there already; 6 if it broke
    off half-way, which leaves what does not serve and must be emptied.
    """
    if data_dir is not None:
        os.environ["MAAS_DATA_DIR"] = str(data_dir.expanduser().absolute())
    manifest = _checked(source, is_shown=not as_json)
    with _settings_here(secrets=source / load("maas.backup.manifest:SECRETS")) as settings:
        kind = load("maas.backup.restoring:RestoreOptions")
        options = kind(
            source=source,
            jobs=jobs or load("maas.backup.restoring:JOBS"),
            keeps_sessions=keeps_sessions,
            is_dry=is_dry,
        )
        restored = _run_shown(
            lambda progress: load("maas.backup.restoring:restore_backup")(
                settings, options, manifest, progress=progress
            ),
            is_shown=not as_json,
        )
    if is_dry:
        _say(f"{source} could be restored here: it is whole, and nothing is in the way.")
        return
    verdict = restored.verdict
    if as_json:
        _print_json(_describe(source, manifest) | _outcome(restored))
    else:
        _say_restored(source, restored)
    if verdict.findings:
        raise typer.Exit(EXIT_BROKEN)
    if verdict.head_findings:
        raise typer.Exit(EXIT_HEAD)


def _say_restored(source: Path, restored: Any) -> None:
    manifest, verdict = restored.manifest, restored.verdict
    _say(
        f"Restored {source}, as of {manifest.snapshot_at}: {manifest.row_count:,} rows, each "
        f"table's number as it was, at revision {restored.revision}."
    )
    if verdict.is_sound:
        _say(f"The trail is as it was recorded: {verdict.rows:,} rows to {verdict.last_seq:,}.")
    else:
        findings = [*verdict.findings, *verdict.head_findings]
        warn(f"the trail is not what was recorded; first: {findings[0].subject}")
        warn("it was so in the backup already, if its files are as they were written")
    for gap in verdict.gaps:
        _say(f"  {gap.count:,} {gap.what}: see `maas audit verify` once the worker has run")
    _say(f"{restored.sessions_ended:,} sessions were ended.")
    if restored.lost_secrets:
        warn(
            f"{restored.lost_secrets} kept secrets are sealed under keys that are not here: put "
            "them back before the start, see `maas keys ls`"
        )
    if not manifest.has_parts:
        warn("the backup has no files of models: their store must be the one of then")
    if keys := restored.living_keys:
        _say(
            f"{len(keys):,} API keys open as they did then. Revoke again what was revoked since; "
            "what was changed of roles, members and passwords since is undone as well:"
        )
        for key in keys[:MAX_KEYS]:
            used = f"last used {key.last_used_at}" if key.last_used_at else "never used"
            _say(f"  {key.prefix}...  {key.name}, tenant {key.tenant}, {used}")
        if len(keys) > MAX_KEYS:
            _say(f"  and {len(keys) - MAX_KEYS:,} more: --json lists all of them")


def _outcome(restored: Any) -> dict[str, Any]:
    verdict = restored.verdict
    return {
        "restored_revision": restored.revision,
        "sessions_ended": restored.sessions_ended,
        "lost_secrets": restored.lost_secrets,
        "api_keys": [
            {
                "prefix": key.prefix,
                "name": key.name,
                "tenant": key.tenant,
                "last_used_at": key.last_used_at,
            }
            for key in restored.living_keys
        ],
        "integrity": "ok" if verdict.is_sound else "broken",
        "trail_rows": verdict.rows,
        "gaps": [{"what": gap.what, "count": gap.count} for gap in verdict.gaps],
    }


def _describe(folder: Path, manifest: Any) -> dict[str, Any]:
    return {
        "folder": str(folder),
        "backup_id": manifest.backup_id,
        "product_version": manifest.product_version,
        "revision": manifest.revision,
        "postgres": manifest.postgres,
        "started_at": manifest.started_at,
        "snapshot_at": manifest.snapshot_at,
        "finished_at": manifest.finished_at,
        "rows": manifest.row_count,
        "parts": len(manifest.parts),
        "damaged_parts": list(manifest.damaged_parts),
        "has_parts": manifest.has_parts,
        "has_secrets": manifest.has_secrets,
        "audit_head": manifest.audit_head,
    }


def _checked(folder: Path, *, is_shown: bool) -> Any:
    return _run_shown(
        lambda progress: load("maas.backup.restoring:check_backup")(folder, progress=progress),
        is_shown=is_shown,
    )


@contextmanager
def _settings_here(*, secrets: Path | None = None) -> Iterator[Settings]:
    """Read the settings; where nothing is up nor given, run the data folder's own servers.

    With `secrets`, those of a backup, a data folder that has none yet is given them.
    """
    given = given_settings()
    borrow(given)
    if given_settings().find("MAAS_DATABASE__URL") is not None:
        yield read_settings()
        return
    alone = load("maas.embedded.alone")
    folder = Path(
        given.find("MAAS_DATA_DIR") or load("maas.embedded.folders:default_data_dir")()
    ).expanduser()
    if secrets is None and not alone.has_database(folder):
        # Says which variable is missing, as every command does.
        yield read_settings()
        return
    if secrets is not None and secrets.is_dir():
        folder.mkdir(mode=0o711, parents=True, exist_ok=True)
        for name in load("maas.backup.secrets:put_back")(secrets, folder):
            errors.print(f"[dim]{escape(name)} is the backup's[/]", highlight=False)
    try:
        with alone.private_servers(
            folder, with_valkey=given.find("MAAS_REDIS__URL") is None
        ) as variables:
            kept = {name: text for name, text in variables.items() if given.find(name) is None}
            os.environ.update({**kept, "MAAS_DATA_DIR": variables["MAAS_DATA_DIR"]})
            yield load("maas.shared.infrastructure.settings:load_settings")()
    except load("maas.embedded.errors:EmbeddedError") as exc:
        raise fail(f"{exc.message} {exc.hint}", code=exc.exit_code) from None
    except InvalidSettingsError as exc:
        raise refuse_settings(exc) from None


def _run_shown(begin: Any, *, is_shown: bool) -> Any:
    with _progress(is_shown=is_shown) as progress:
        return _run(begin(progress))


def _run(work: Coroutine[Any, Any, T]) -> T:
    error = load("maas.backup.errors:BackupError")
    try:
        return asyncio.run(_interruptible(work))
    except error as exc:
        raise fail(str(exc), code=exc.exit_code) from None
    except (asyncio.CancelledError, KeyboardInterrupt):
        raise fail("stopped; nothing is left of it", code=130) from None
    except InvalidSettingsError as exc:
        raise refuse_settings(exc) from None
    except (load("asyncpg:PostgresError"), OSError) as exc:
        raise fail(f"it could not be done: {exc}") from None


async def _interruptible(work: Coroutine[Any, Any, T]) -> T:
    """Let the signals that stop a process break the work off, which clears away behind itself."""
    task = asyncio.ensure_future(work)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        with suppress(ValueError):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    return await task


@contextmanager
def _progress(*, is_shown: bool) -> Iterator[Any]:
    """Show a bar in a terminal, and nothing elsewhere."""
    if not is_shown or not errors.is_terminal:
        yield load("maas.backup.manifest:show_nothing")
        return
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TimeElapsedColumn(),
        console=errors,
        transient=True,
    )
    steps: dict[str, Any] = {}
    with bar:

        def show(step: str, done: int, total: int | None) -> None:
            if step not in steps:
                steps[step] = bar.add_task(step, total=None)
            bar.update(steps[step], completed=done, total=total)

        yield show


def _say(text: str) -> None:
    output.print(escape(printable(text)), highlight=False, soft_wrap=True)


def _print_json(document: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(document, indent=2) + "\n")
