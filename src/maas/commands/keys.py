"""`maas keys`: the keys that kept secrets are sealed under, and the change from one to the next."""

import asyncio
import json
import sys
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Annotated, Any, Final, TypeVar

import typer
from rich.table import Table

from maas.shared.infrastructure.settings import Settings
from maas.terminal import fail, load, output, read_settings, warn

T = TypeVar("T")

keys = typer.Typer(help="The keys that kept secrets are sealed under.", no_args_is_help=True)

FINGERPRINT_CHARS: Final = 16
COUNT_SECONDS: Final = 5


@keys.command("add")
def add() -> None:
    """Make a key and put it into the file; it opens at once, and seals once it is rotated to.

    With a KMS the file holds it wrapped. Where processes read copies of the file, give them all the
    new one before `maas keys rotate`.
    """
    settings = read_settings()
    key_id = _run(load("maas.sealed:add_key")(settings))
    path = load("maas.shared.infrastructure.sealing_keys:key_file_path")(settings)
    output.print(
        f"Key {key_id} is in {path}: `maas keys rotate` lets it seal.",
        highlight=False,
        soft_wrap=True,
    )


@keys.command("rotate")
def rotate() -> None:
    """Let the newest key seal from now on, and the worker hand over what is sealed so far."""
    settings = read_settings()
    key_id = _run(load("maas.sealed:rotate_key")(settings))
    # The next tick does it all the same.
    with suppress(Exception):  # whatever the broker's client raises
        sender = load("maas.shared.infrastructure.task_queue:TaskSender")
        sender(settings.redis, task="sealing.rewrap", queue="default").send()
    output.print(
        f"Key {key_id} seals. The worker hands over what is sealed under older ones; "
        "`maas keys ls` says when nothing is left, and `maas keys retire` takes them out.",
        highlight=False,
    )


@keys.command("retire")
def retire(
    key_id: Annotated[str, typer.Argument(help="The key, as `maas keys ls` names it.")],
    *,
    lose_unreadable: Annotated[
        bool,
        typer.Option("--lose-unreadable", help="Also if values are left that it does not open."),
    ] = False,
) -> None:
    """Take an older key out, if nothing is sealed under it; nothing ever is again.

    Backups from before need it still: keep a copy of it as long as them.
    """
    settings = read_settings()
    if len(key_id) != FINGERPRINT_CHARS or set(key_id) - set("0123456789abcdef"):
        raise fail("a key is named by 16 hexadecimal digits, as `maas keys ls` shows them", code=2)
    where = _run(load("maas.sealed:retire_key")(settings, key_id, may_lose=lose_unreadable))
    output.print(f"Key {key_id} is retired: nothing is sealed under it any more.", highlight=False)
    if where == load("maas.sealed:DERIVED_FROM"):
        output.print(f"{where} stays as it is: tokens are signed with it.", highlight=False)
    elif where != load("maas.sealed:IN_FILE"):
        output.print(f"Take it out of {where} when it is convenient.", highlight=False)


@keys.command("ls")
def ls(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print the keys as JSON.")] = False,
) -> None:
    """List the keys, the newest first, and how many values are sealed under each."""
    settings = read_settings()
    lines: Sequence[Any] = _run(load("maas.sealed:list_keys")(settings))
    if as_json:
        sys.stdout.write(json.dumps({"keys": [asdict(line) for line in lines]}, indent=2) + "\n")
        return
    table = Table(box=None, header_style="bold")
    for title in ("key", "state", "kept in", "made at", "values"):
        table.add_column(title, justify="right" if title == "values" else "left")
    for line in lines:
        table.add_row(
            line.id, line.state, line.kept_in or "", line.made_at or "", f"{line.values:,}"
        )
    output.print(table)
    if any(line.state == "unknown" for line in lines):
        warn("values are sealed under a key that is not here: is this the right file?")
    if any(line.state == "refused" for line in lines):
        warn("the key that seals here is retired, so new secrets are refused: see `maas doctor`")


def refuse_lost_keys(settings: Settings) -> None:
    """Stop where no secret could be kept: the keys that seal are not the ones of the others.

    Those that no key here opens are warned of: they may have been lost long ago.
    """
    find = load("maas.shared.infrastructure.sealing_faults:find_key_faults")
    faults = asyncio.run(find(settings))
    if faults:
        raise fail("\n".join(faults))
    # A database that is away is told of elsewhere.
    with suppress(load("asyncpg:PostgresError"), OSError, TimeoutError):
        count = load("maas.sealed:count_lost")
        lost = asyncio.run(asyncio.wait_for(count(settings), COUNT_SECONDS))
        if lost:
            warn(f"{lost} kept secrets are sealed under keys that are not here: see `maas doctor`")


def _run(work: Coroutine[Any, Any, T]) -> T:
    told = (
        load("maas.shared.infrastructure.sealing_ring:UnfitRingError"),
        load("maas.shared.infrastructure.sealing_key_file:KeyChangeRefusedError"),
        load("maas.shared.infrastructure.settings:InvalidSettingsError"),
    )
    try:
        return asyncio.run(work)
    except told as exc:
        raise fail(str(exc)) from None
    except load("asyncpg:LockNotAvailableError"):
        raise fail("somebody is writing secrets all the while: try again") from None
    except (load("asyncpg:PostgresError"), OSError, TimeoutError) as exc:
        raise fail(f"it could not be done and recorded: {exc}") from None
