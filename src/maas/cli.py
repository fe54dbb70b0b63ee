"""The `maas` command: run the platform, migrate it, mend it, ask what it is set to."""

import asyncio
import json
import logging
import secrets
import sys
from importlib.metadata import version
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from maas.commands.audit import audit
from maas.commands.backup import backup
from maas.commands.keys import keys, refuse_lost_keys
from maas.commands.login import login, logout
from maas.commands.model import model
from maas.commands.restore import restore, resume_collection
from maas.commands.runtime import runtime
from maas.commands.servers import beat, serve, worker
from maas.commands.up import make_first_admin, up
from maas.shared.domain.errors import MaasError
from maas.shared.infrastructure.core_dumps import forbid_core_dumps
from maas.shared.infrastructure.setting_sources import explain_settings
from maas.shared.infrastructure.settings import (
    InvalidSettingsError,
    Settings,
    load_settings,
)
from maas.shared.infrastructure.worker_connections import WORKER_PROCESSES
from maas.terminal import (
    borrow,
    fail,
    given_settings,
    load,
    output,
    read_settings,
)

app = typer.Typer(
    name="maas",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
)
admin = typer.Typer(help="Administrators.", no_args_is_help=True)
config = typer.Typer(help="Settings.", no_args_is_help=True)

RUN, USE, KEEP = "Run it", "Use it", "Keep it well"
"""The panels of `maas --help`."""

for run in (up, serve, worker, beat, runtime):
    app.command(rich_help_panel=RUN)(run)
for use in (login, logout):
    app.command(rich_help_panel=USE)(use)
app.add_typer(model, name="model", rich_help_panel=USE)
for keep in (backup, restore, resume_collection):
    app.command(rich_help_panel=KEEP)(keep)
for name, group in {"admin": admin, "audit": audit, "config": config, "keys": keys}.items():
    app.add_typer(group, name=name, rich_help_panel=KEEP)


def _print_version(wanted: bool) -> None:  # noqa: FBT001  typer calls it so
    if wanted:
        output.print(version("maas-platform"), highlight=False)
        raise typer.Exit


@app.callback()
def main(
    *,
    show_version: Annotated[  # noqa: ARG001  its own callback answers
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Its version.")
    ] = False,
) -> None:
    """Run the back office of a company's own model platform. Start with `maas up`."""
    # Each command may hold secrets: the settings', or a person's key.
    forbid_core_dumps()


@app.command(rich_help_panel=KEEP)
def migrate() -> None:
    """Bring the database up to date, and make the configured first administrator."""
    given = given_settings()
    borrow(given)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    logging.getLogger("alembic.runtime.plugins").setLevel(logging.WARNING)
    try:
        load("maas.shared.infrastructure.migrations:migrate")()
    except InvalidSettingsError as exc:
        raise fail("\n".join(exc.problems), code=2) from None
    except (
        load("maas.shared.infrastructure.roles:RolesMissingError"),
        load("maas.shared.infrastructure.migrations:RestoreBrokeOffError"),
    ) as exc:
        raise fail(str(exc)) from None
    except OSError as exc:
        raise fail(f"the database cannot be reached: {exc}") from None
    if given.find("MAAS_BOOTSTRAP__ADMIN_USERNAME"):
        settings = read_settings()
        refuse_lost_keys(settings)
        asyncio.run(make_first_admin(settings))
    output.print("The database is up to date.")


@admin.command("create")
def admin_create(
    *,
    username: Annotated[str, typer.Option(help="What the administrator signs in as.")],
    email: Annotated[str, typer.Option(help="The administrator's address.")],
    password_stdin: Annotated[
        bool, typer.Option("--password-stdin", help="Read the password from standard input.")
    ] = False,
) -> None:
    """Make an administrator of the platform and of the default tenant."""
    settings = read_settings()
    if password_stdin:
        password = sys.stdin.readline().rstrip("\r\n")
    elif sys.stdin.isatty():
        password = typer.prompt("Password", hide_input=True, confirmation_prompt=True)
    else:
        message = "no terminal to ask for a password at: use --password-stdin"
        raise fail(message, code=2)
    refuse_lost_keys(settings)
    try:
        account_id = asyncio.run(_create_admin(settings, username, email, password))
    except MaasError as exc:
        raise fail(exc.detail) from None
    except OSError as exc:
        raise fail(f"the database cannot be reached: {exc}") from None
    output.print(f"Administrator {username} was made ({account_id}).", highlight=False)


async def _create_admin(settings: Settings, username: str, email: str, password: str) -> object:
    bootstrap, account = load("maas.bootstrap"), load("maas.user.domain.account")
    name, address = account.Username(username), account.EmailAddress(email)
    async with (
        bootstrap.open_platform(settings) as platform,
        bootstrap.acting_as_operator(platform, "admin.created"),
    ):
        return await platform.accounts.create_admin(username=name, email=address, password=password)


@config.command("show")
def config_show() -> None:
    """Print the settings in force and where each comes from; secrets are masked."""
    borrowed = borrow(given_settings())
    lines = explain_settings(read_settings(), borrowed=borrowed)
    if not output.is_terminal:
        for line in lines:
            sys.stdout.write(f"{line.variable}={line.value}  # {line.source}\n")
        return
    table = Table(box=None, header_style="bold")
    for title in ("setting", "value", "from"):
        table.add_column(title, overflow="fold")
    for line in lines:
        table.add_row(line.variable, escape(line.value), line.source)
    output.print(table)


@app.command(rich_help_panel=KEEP)
def openapi() -> None:
    """Print the OpenAPI document."""
    settings = load_settings(
        secret_key=secrets.token_urlsafe(48),
        database={"url": "postgresql://unused"},
        redis={"url": "redis://unused"},
    )
    document = load("maas.main:create_app")(settings).openapi()
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False, sort_keys=True) + "\n")


@app.command(rich_help_panel=KEEP)
def doctor(
    *,
    concurrency: Annotated[
        int, typer.Option(min=1, help="Processes of the worker that runs beside the API.")
    ] = WORKER_PROCESSES,
) -> None:
    """Say what is wrong with this installation, and how to mend it."""
    settings = read_settings()
    findings = asyncio.run(load("maas.doctor:examine")(settings, worker_processes=concurrency))
    for finding in findings:
        mark = {"ok": "[green]ok[/]  ", "warning": "[yellow]warn[/]", "error": "[red]FAIL[/]"}
        output.print(
            f"{mark[finding.level]} {escape(finding.text)}", highlight=False, soft_wrap=True
        )
    if any(finding.level == "error" for finding in findings):
        raise typer.Exit(1)


if __name__ == "__main__":
    app()
