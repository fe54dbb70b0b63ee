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
    owns_files: Annotated[
        bool,
        typer.Option(
            "--own-files",
            help="The store of models' files, not in the backup, is this platform's alone: "
            "delete there what is due.",
        ),
    ] = False,
    is_dry: Annotated[
        bool, typer.Option("--dry-run", help="Only check the backup, and what is in the way.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Restore a backup into an empty platform, and check that it is all there.

    Goes into MAAS_DATABASE__URL if that is set, else into an empty data folder, whose servers it
    starts. Stop the API and the worker first. Everybody is signed out, and links in mails end; API
    keys open as they did when the backup was taken, those revoked since then too: they are listed.
    Without the files of models none is deleted from their store until `maas resume-collection`.

    Example: maas restore /backups/maas-2026-11-22 --data-dir /var/lib/maas

    Ends with 0; 2 if the trail was changed or is incomplete; 3 if only its end does not match; 1 if
    nothing was begun; 4 if the backup is damaged; 5 if something is there already; 6 if it broke
    off half-way, which leaves what does not serve and must be emptied.
    """
    if data_dir is not None:
        os.environ["MAAS_DATA_DIR"] = str(data_dir.expanduser().absolute())
    # Asked before the data folder's own are lent.
    is_given_redis = given_settings().find("MAAS_REDIS__URL") is not None
    manifest = _checked(source, is_shown=not as_json)
    if is_dry and (folder := _folder_alone()) is not None:
        missing = _run(load("maas.backup.restoring:check_folder")(folder, manifest))
        _say_missing(folder, missing)
        _say_restorable(source)
        return
    with _settings_here(source, manifest) as settings:
        kind = load("maas.backup.restoring:RestoreOptions")
        options = kind(
            source=source,
            jobs=jobs or load("maas.backup.restoring:JOBS"),
            keeps_sessions=keeps_sessions,
            owns_files=owns_files,
            is_dry=is_dry,
        )
        restored = _run_shown(
            lambda progress: load("maas.backup.restoring:restore_backup")(
                settings, options, manifest, progress=progress
            ),
            is_shown=not as_json,
        )
    if is_dry:
        _say_restorable(source)
        return
    verdict = restored.verdict
    if as_json:
        _print_json(_describe(source, manifest) | _outcome(restored))
    else:
        _say_restored(source, restored, is_given_redis=is_given_redis)
    if verdict.findings:
        raise typer.Exit(EXIT_BROKEN)
    if verdict.head_findings:
        raise typer.Exit(EXIT_HEAD)


def resume_collection() -> None:
    """Let files of models be deleted again where they are due, which a restore put off.

    A restore without these files leaves all of them in their store, for the store may be another
    platform's, as in a drill, or have files that these rows do not know yet. Say this once it is
    this platform's alone and nothing in it is missed.
    """
    with _settings_here() as settings:
        was_held = _run(load("maas.backup.database:resume_collection")(settings.database))
    _say("Files are deleted again when due." if was_held else "Nothing was put off.")


def _say_restorable(source: Path) -> None:
    _say(f"{source} could be restored here: it is whole, and nothing is in the way.")


def _say_missing(folder: Path, missing: list[str]) -> None:
    if missing:
        warn(
            f"not in {folder}, and not in the backup: {', '.join(missing)}. Those that the "
            "platform had must be there first; new ones open nothing of the old"
        )


def _say_restored(source: Path, restored: Any, *, is_given_redis: bool) -> None:
    manifest, verdict = restored.manifest, restored.verdict
    _say(
        f"Restored {source}, as of {manifest.snapshot_at}: {manifest.row_count:,} rows, each "
        f"table's number as it was, at revision {restored.revision}."
    )
    if verdict.is_sound:
        _say_trail(restored)
    else:
        findings = [*verdict.findings, *verdict.head_findings]
        warn(f"the trail is not what was recorded; first: {findings[0].subject}")
        warn("it was so in the backup already, if its files are as they were written")
    for gap in verdict.gaps:
        _say(f"  {gap.count:,} {gap.what}: see `maas audit verify` once the worker has run")
    ended = restored.ended
    _say(
        f"{ended.sessions:,} sessions, {ended.links:,} links and {ended.invitations:,} open "
        "invitations were ended."
    )
    if restored.lost_secrets:
        warn(
            f"{restored.lost_secrets} kept secrets are sealed under keys that are not here: put "
            "them back before the start, see `maas keys ls`"
        )
    _say_surroundings(restored, is_given_redis=is_given_redis)
    if restored.living_keys:
        _say_keys(restored.living_keys)


def _say_keys(keys: list[Any]) -> None:
    _say(
        f"{len(keys):,} API keys open as they did then. Revoke again what was revoked since; "
        "what was changed of roles, members and passwords since is undone as well:"
    )
    for key in keys[:MAX_KEYS]:
        used = f"last used {key.last_used_at}" if key.last_used_at else "never used"
        _say(f"  {key.prefix}...  {key.name}, tenant {key.tenant}, {used}")
    if len(keys) > MAX_KEYS:
        _say(f"  and {len(keys) - MAX_KEYS:,} more: --json lists all of them")


def _say_surroundings(restored: Any, *, is_given_redis: bool) -> None:
    if not restored.manifest.has_parts:
        warn(
            "the backup has no files of models. To replace the platform, give it the store of "
            "then; beside a platform that lives (a drill), another bucket"
        )
    if restored.holds_files:
        warn(
            "nothing is deleted from the store until you say that it is this platform's alone: "
            "`maas resume-collection`"
        )
    if is_given_redis:
        warn(
            "beside a platform that lives give another Redis: of two on one, each takes the "
            "other's events"
        )
    if restored.is_open:
        warn(
            "every role of the server may connect to this database, for rights on a database are "
            "in no backup: run the last two statements of docs/operating/install.md again"
        )


def _say_trail(restored: Any) -> None:
    verdict = restored.verdict
    rows = f"{verdict.rows:,} rows to {verdict.last_seq:,}"
    if restored.head_key is not None:
        _say(
            f"The trail is as it was recorded: {rows}; its head is signed by this platform's key "
            f"{restored.head_key}."
        )
        return
    _say(
        f"The trail agrees with the keys and the head in the backup: {rows}. That they are the "
        "platform's own only a head that was kept elsewhere proves: `maas audit verify --head`."
    )


def _outcome(restored: Any) -> dict[str, Any]:
    verdict = restored.verdict
    return {
        "restored_revision": restored.revision,
        "sessions_ended": restored.ended.sessions,
        "links_ended": restored.ended.links,
        "invitations_ended": restored.ended.invitations,
        "collection_held": restored.holds_files,
        "open_to_every_role": restored.is_open,
        "head_key": restored.head_key,
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


def _folder_alone() -> Path | None:
    """Tell the data folder whose own servers would be run, if no server is up nor given."""
    given = given_settings()
    borrow(given)
    if given_settings().find("MAAS_DATABASE__URL") is not None:
        return None
    return Path(
        given.find("MAAS_DATA_DIR") or load("maas.embedded.folders:default_data_dir")()
    ).expanduser()


@contextmanager
def _settings_here(source: Path | None = None, manifest: Any = None) -> Iterator[Settings]:
    """Read the settings; where nothing is up nor given, run the data folder's own servers.

    With the backup that is to be restored, a data folder is given the secrets of it that it lacks.
    """
    folder = _folder_alone()
    if folder is None:
        yield read_settings()
        return
    alone, given = load("maas.embedded.alone"), given_settings()
    if source is None and not alone.has_database(folder):
        # Says which variable is missing, as every command does.
        yield read_settings()
        return
    if source is not None:
        _put_back(source, manifest, folder)
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


def _put_back(source: Path, manifest: Any, folder: Path) -> None:
    try:
        folder.mkdir(mode=0o711, parents=True, exist_ok=True)
        names = load("maas.backup.secrets:put_back")(manifest, source, folder)
    except load("maas.backup.errors:BackupError") as exc:
        raise fail(str(exc), code=exc.exit_code) from None
    except OSError as exc:
        raise fail(f"{folder} cannot be written: {exc.strerror or exc}") from None
    for name in names:
        errors.print(f"[dim]{escape(name)} is the backup's[/]", highlight=False)
    _say_missing(folder, load("maas.backup.secrets:find_missing")(manifest, folder))


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
        # `nohup` ignores SIGHUP on purpose.
        if number is signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:
            continue
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
