"""What every command shares: where it prints, how it fails, and which settings it reads."""

import os
from pkgutil import resolve_name
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape

from maas.embedded.lending import lend_running
from maas.shared.infrastructure.setting_sources import GivenSettings, read_given
from maas.shared.infrastructure.settings import InvalidSettingsError, Settings, load_settings

CLOSING_SECONDS = 2
"""Of the time there is to stop: telling who is cut off, settling their calls, closing."""

output = Console()
errors = Console(stderr=True)


def load(name: str) -> Any:
    """Import what one command needs; all of it together would slow every other command down."""
    return resolve_name(name)


def seconds_to_finish(settings: Settings) -> int:
    """Tell how long requests may go on once a server is stopped, so that all is over in time."""
    return max(1, round(settings.server.drain_timeout_seconds) - CLOSING_SECONDS)


def printable(text: str) -> str:
    """Spell out what would steer the terminal, or hide; lines stay lines."""
    if text.isprintable():
        return text
    return "".join(
        each if each == "\n" or each.isprintable() else each.encode("unicode_escape").decode()
        for each in text
    )


def one_line(text: str) -> str:
    """Spell a text of others as one line that steers nothing and passes for no verdict of ours."""
    return printable(text).replace("\n", "\\n")


def spell_count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def fail(message: str, *, code: int = 1) -> typer.Exit:
    text = escape(printable(message))
    errors.print(f"[bold red]error:[/] {text}", highlight=False, soft_wrap=True)
    return typer.Exit(code)


def warn(message: str) -> None:
    text = escape(printable(message))
    errors.print(f"[yellow]warning:[/] {text}", highlight=False, soft_wrap=True)


def refuse_settings(exc: InvalidSettingsError) -> typer.Exit:
    for problem in exc.problems:
        errors.print(f"[bold red]error:[/] {escape(problem)}", highlight=False, soft_wrap=True)
    return typer.Exit(2)


def given_settings() -> GivenSettings:
    try:
        return read_given()
    except InvalidSettingsError as exc:
        raise refuse_settings(exc) from None


def borrow(given: GivenSettings) -> frozenset[str]:
    lent = lend_running(given)
    if lent.has_servers:
        errors.print(f"[dim]using the platform that is up on {lent.folder}[/]", highlight=False)
    os.environ.update(lent.variables)
    return frozenset(lent.variables)


def read_settings() -> Settings:
    """Read the settings; a platform that is up on the data folder lends what nobody gave."""
    borrow(given_settings())
    try:
        return load_settings()
    except InvalidSettingsError as exc:
        raise refuse_settings(exc) from None
