"""What `maas backup` and `maas restore` share: the servers they run, progress, and words."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any, TypeVar

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

AsJson = Annotated[bool, typer.Option("--json", help="Print what came of it as JSON.")]


def checked(folder: Path, *, is_shown: bool) -> Any:
    return run_shown(
        lambda progress: load("maas.backup.restoring:check_backup")(folder, progress=progress),
        is_shown=is_shown,
    )


def folder_alone() -> Path | None:
    """Tell the data folder whose own servers would be run, if no server is up nor given."""
    given = given_settings()
    borrow(given)
    if given_settings().find("MAAS_DATABASE__URL") is not None:
        return None
    return Path(
        given.find("MAAS_DATA_DIR") or load("maas.embedded.folders:default_data_dir")()
    ).expanduser()


@contextmanager
def settings_here(source: Path | None = None, manifest: Any = None) -> Iterator[Settings]:
    """Read the settings; where nothing is up nor given, run the data folder's own servers.

    With the backup that is to be restored, a data folder is given the secrets of it that it lacks.
    """
    folder = folder_alone()
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
    say_missing(folder, load("maas.backup.secrets:find_missing")(manifest, folder))


def say_missing(folder: Path, missing: list[str]) -> None:
    if missing:
        warn(
            f"not in {folder}, and not in the backup: {', '.join(missing)}. Those that the "
            "platform had must be there first; new ones open nothing of the old"
        )


def run_shown(begin: Any, *, is_shown: bool) -> Any:
    with _progress(is_shown=is_shown) as progress:
        return run(begin(progress))


def run(work: Coroutine[Any, Any, T]) -> T:
    error = load("maas.backup.errors:BackupError")
    try:
        return asyncio.run(interruptible(work))
    except error as exc:
        raise fail(str(exc), code=exc.exit_code) from None
    except (asyncio.CancelledError, KeyboardInterrupt):
        raise fail("stopped; nothing is left of it", code=130) from None
    except InvalidSettingsError as exc:
        raise refuse_settings(exc) from None
    except (load("asyncpg:PostgresError"), OSError) as exc:
        raise fail(f"it could not be done: {exc}") from None


async def interruptible(work: Coroutine[Any, Any, T]) -> T:
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


def describe(folder: Path, manifest: Any) -> dict[str, Any]:
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


def say(text: str) -> None:
    output.print(escape(printable(text)), highlight=False, soft_wrap=True)


def print_json(document: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(document, indent=2) + "\n")
