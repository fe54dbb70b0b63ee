"""`maas restore`: a platform back from a backup, and `maas resume-collection` after it."""

import os
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from maas.commands.copying import (
    AsJson,
    checked,
    describe,
    folder_alone,
    print_json,
    run,
    run_shown,
    say,
    say_missing,
    settings_here,
)
from maas.terminal import given_settings, load, warn

EXIT_BROKEN: Final = 2
EXIT_HEAD: Final = 3
MAX_KEYS: Final = 20


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
    manifest = checked(source, is_shown=not as_json)
    if is_dry and (folder := folder_alone()) is not None:
        missing = run(load("maas.backup.restoring:check_folder")(folder, manifest))
        say_missing(folder, missing)
        _say_restorable(source)
        return
    with settings_here(source, manifest) as settings:
        kind = load("maas.backup.restoring:RestoreOptions")
        options = kind(
            source=source,
            jobs=jobs or load("maas.backup.restoring:JOBS"),
            keeps_sessions=keeps_sessions,
            owns_files=owns_files,
            is_dry=is_dry,
        )
        restored = run_shown(
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
        print_json(describe(source, manifest) | _outcome(restored))
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
    with settings_here() as settings:
        was_held = run(load("maas.backup.database:resume_collection")(settings.database))
    say("Files are deleted again when due." if was_held else "Nothing was put off.")


def _say_restorable(source: Path) -> None:
    say(f"{source} could be restored here: it is whole, and nothing is in the way.")


def _say_restored(source: Path, restored: Any, *, is_given_redis: bool) -> None:
    manifest, verdict = restored.manifest, restored.verdict
    say(
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
        say(f"  {gap.count:,} {gap.what}: see `maas audit verify` once the worker has run")
    ended = restored.ended
    say(
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
    say(
        f"{len(keys):,} API keys open as they did then. Revoke again what was revoked since; "
        "what was changed of roles, members and passwords since is undone as well:"
    )
    for key in keys[:MAX_KEYS]:
        used = f"last used {key.last_used_at}" if key.last_used_at else "never used"
        say(f"  {key.prefix}...  {key.name}, tenant {key.tenant}, {used}")
    if len(keys) > MAX_KEYS:
        say(f"  and {len(keys) - MAX_KEYS:,} more: --json lists all of them")


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
        say(
            f"The trail is as it was recorded: {rows}; its head is signed by this platform's key "
            f"{restored.head_key}."
        )
        return
    say(
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
