"""`maas model`: push weights to a registry, pull them, list them, name versions."""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich.markup import escape
from rich.table import Table

from maas.terminal import errors, fail, load, one_line, output, spell_count, warn

T = TypeVar("T")

EXIT_STOPPED = 130
MAX_PARALLEL = 8
MAX_COLUMNS = 1_000

model = typer.Typer(help="Models in a registry: push, pull, list, name.", no_args_is_help=True)

Url = Annotated[
    str | None,
    typer.Option("--url", help="The API's address [MAAS_API_URL, http://127.0.0.1:8000]."),
]
KeyFile = Annotated[
    Path | None,
    typer.Option(
        "--api-key-file",
        metavar="FILE",
        help="A file that holds an API key [else MAAS_API_KEY, else `maas login`].",
    ),
]
Parallel = Annotated[
    int, typer.Option("--parallel", min=1, max=MAX_PARALLEL, help="Connections at a time.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


@model.command("push")
def push(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="What the version is to hold.")],
    *,
    name: Annotated[
        str | None, typer.Option("--name", help="The model [the folder's name]; made if need be.")
    ] = None,
    version: Annotated[
        str | None, typer.Option("--version", help="The version [the next number].")
    ] = None,
    is_new: Annotated[
        bool, typer.Option("--new", help="Make a version even of what the newest one has already.")
    ] = False,
    alias: Annotated[
        str | None, typer.Option("--alias", help="A name to point at the version once it is ready.")
    ] = None,
    framework: Annotated[
        str | None, typer.Option("--framework", help="Of a new model [by the names of the files].")
    ] = None,
    is_ready: Annotated[
        bool, typer.Option("--ready/--no-ready", help="Publish it when all is there.")
    ] = True,
    with_hidden: Annotated[
        bool, typer.Option("--hidden", help="Push also names that begin with a dot.")
    ] = False,
    with_links: Annotated[
        bool, typer.Option("--follow-links", help="Push what links out of the folder lead to.")
    ] = False,
    parallel: Parallel = 4,
    url: Url = None,
    key_file: KeyFile = None,
) -> None:
    """Push a folder as a version of a model.

    What the version has already is not sent again, and where the newest version has exactly these
    files it is that one. If the line breaks, run it again: it goes on where it ended. Ends with 0
    if all is there, 3 if the line broke for good, 1 if it was refused.
    """
    if alias is not None and not is_ready:
        raise fail("an alias points at a ready version: leave out --no-ready or --alias", code=2)
    if is_new and version is not None:
        raise fail("--version names the version: leave out --new", code=2)
    push_module = load("maas.client.push")
    options = push_module.PushOptions(
        folder=folder,
        name=name,
        version=version,
        is_new=is_new,
        alias=alias,
        framework=framework,
        is_ready=is_ready,
        with_hidden=with_hidden,
        with_links=with_links,
        parallel=parallel,
    )
    done = _run(url, key_file, lambda api, board: push_module.push(api, options, board))
    size = load("maas.client.board:spell_size")(done.size)
    count = f"{done.sent} of {spell_count(done.files, 'file')}"
    say(f"{done.model} {done.version} is {done.status}: {size}, {count} sent.")


@model.command("pull")
def pull(
    reference: Annotated[
        str, typer.Argument(metavar="NAME[:VERSION|@ALIAS]", help="What to pull.")
    ],
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where to; made if need be.")],
    *,
    version: Annotated[
        str | None, typer.Option("--version", help="The version, apart from the name.")
    ] = None,
    is_forced: Annotated[
        bool, typer.Option("--force", help="Replace other files of the same names.")
    ] = False,
    with_hidden: Annotated[
        bool, typer.Option("--hidden", help="Pull also names that begin with a dot.")
    ] = False,
    parallel: Parallel = 4,
    url: Url = None,
    key_file: KeyFile = None,
) -> None:
    """Pull a version into a folder; without version and alias, the newest that is ready.

    NAME is a model of your own tenant; another tenant's goes by its id, as `ls --shared` has it.

    Each file is compared with its SHA-256, and appears under its name only when it is whole. If the
    line breaks, run it again: it goes on where it ended.
    """
    pull_module = load("maas.client.pull")
    options = pull_module.PullOptions(
        reference=reference,
        folder=folder,
        version=version,
        is_forced=is_forced,
        with_hidden=with_hidden,
        parallel=parallel,
    )
    done = _run(url, key_file, lambda api, board: pull_module.pull(api, options, board))
    size = load("maas.client.board:spell_size")(done.size)
    count = f"{done.fetched} of {spell_count(done.files, 'file')}"
    say(f"{done.model} {done.version.version} is in {folder}: {size}, {count} pulled.")


@model.command("ls")
def ls(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Its versions.")] = None,
    *,
    search: Annotated[str | None, typer.Option("--search", help="A part of the name.")] = None,
    framework: Annotated[str | None, typer.Option("--framework")] = None,
    tag: Annotated[str | None, typer.Option("--tag")] = None,
    architecture: Annotated[
        str | None, typer.Option("--architecture", help="As read in the files: gemma3, llama.")
    ] = None,
    quantisation: Annotated[
        str | None, typer.Option("--quantisation", help="As read in the files: Q4_K_M.")
    ] = None,
    is_shared: Annotated[
        bool, typer.Option("--shared", help="Other tenants' models that you may read.")
    ] = False,
    limit: Annotated[int, typer.Option("--limit", min=1, max=10_000)] = 200,
    as_json: AsJson = False,
    url: Url = None,
    key_file: KeyFile = None,
) -> None:
    """List models, newest first, or the versions of one."""
    filters = {
        "q": search,
        "framework": framework,
        "tag": tag,
        "architecture": architecture,
        "quantisation": quantisation,
        "shared": "true" if is_shared else None,
    }
    given = {key: value for key, value in filters.items() if value is not None}
    listing = load("maas.client.listing")
    if name is None:
        rows = _run(
            url,
            key_file,
            lambda api, _: listing.list_models(api, limit=limit, keeps_all=as_json, **given),
        )
    elif given:
        raise fail("filters are for the list of models: leave them out, or NAME", code=2)
    else:
        rows = _run(
            url,
            key_file,
            lambda api, _: listing.list_versions(api, name, limit=limit, keeps_all=as_json),
        )
    _print_rows(rows, as_json=as_json)


@model.command("alias")
def alias(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The model.")],
    alias_name: Annotated[
        str | None, typer.Argument(metavar="[ALIAS]", help="As `production`; without, all.")
    ] = None,
    version: Annotated[
        str | None, typer.Argument(metavar="[VERSION]", help="What it is to point at.")
    ] = None,
    *,
    reason: Annotated[str | None, typer.Option("--reason", help="Why, for the history.")] = None,
    at: Annotated[
        str | None, typer.Option("--at", metavar="TIME", help="Where it pointed at that time.")
    ] = None,
    with_history: Annotated[bool, typer.Option("--history", help="All its moves.")] = False,
    is_deleted: Annotated[bool, typer.Option("--delete", help="Take it away.")] = False,
    as_json: AsJson = False,
    url: Url = None,
    key_file: KeyFile = None,
) -> None:
    """Point an alias at a version, or tell where it points or pointed."""
    if sum((version is not None, at is not None, with_history, is_deleted)) > 1:
        raise fail("a VERSION, --at, --history and --delete exclude each other", code=2)
    if alias_name is None and (at or with_history or is_deleted):
        raise fail("name the alias", code=2)
    listing = load("maas.client.listing")
    if version is not None or is_deleted:
        done = _run(
            url,
            key_file,
            lambda api, _: listing.move_alias(api, name, alias_name, version, reason=reason),
        )
        say(done)
        return
    wanted = {} if at is None else {"at": at}
    rows = _run(
        url,
        key_file,
        lambda api, _: (
            listing.list_moves(api, name, alias_name, keeps_all=as_json, **wanted)
            if at or with_history
            else listing.list_aliases(api, name, alias_name, keeps_all=as_json)
        ),
    )
    _print_rows(rows, as_json=as_json)


def _run(url: str | None, key_file: Path | None, work: Callable[[Any, Any], Awaitable[T]]) -> T:
    with explaining():
        return asyncio.run(_with_api(url, key_file, work))


@contextmanager
def explaining() -> Iterator[None]:
    """Turn what stops the block into a message and an exit code."""
    client_error = load("maas.client.errors:ClientError")
    try:
        yield
    except client_error as exc:
        if exc.exit_code == load("maas.client.errors:EXIT_TO_BE_CONTINUED"):
            message = f"{exc.message} Run the same command again: it goes on where it ended."
            raise fail(message, code=exc.exit_code) from None
        raise fail(exc.message, code=exc.exit_code) from None
    except KeyboardInterrupt:
        errors.print("Stopped. The same command goes on where this one ended.", highlight=False)
        raise typer.Exit(EXIT_STOPPED) from None


async def _with_api(
    url: str | None, key_file: Path | None, work: Callable[[Any, Any], Awaitable[T]]
) -> T:
    access = load("maas.client.credentials:find_access")(url=url, key_file=key_file)
    if access.is_exposed:
        warn(f"the key goes to {access.url} unencrypted: anybody on the way can read it")
    with load("maas.client.board:Board")(errors) as board:
        async with load("maas.client.api:Api")(access, notice=board.notice) as api:
            return await work(api, board)


def _print_rows(rows: Any, *, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(spell_json(rows.raw) + "\n")
        return
    table = Table(box=None, header_style="bold")
    for title in rows.titles:
        table.add_column(title, overflow="fold", justify="right" if title == "size" else "left")
    for row in rows.cells:
        table.add_row(*(escape(one_line(cell)) for cell in row))
    # Where no terminal bounds a line, no cell is folded.
    output.print(table, highlight=False, width=None if output.is_terminal else MAX_COLUMNS)
    if rows.note:
        errors.print(f"[dim]{escape(one_line(rows.note))}[/]", highlight=False)


def spell_json(value: object) -> str:
    """Spell JSON for a terminal: what would steer it, or hide, is spelled out as JSON has it."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    return "".join(
        each if each == "\n" or each.isprintable() else json.dumps(each)[1:-1] for each in text
    )


def say(text: str) -> None:
    output.print(escape(one_line(text)), highlight=False, soft_wrap=True)
