"""The `maas` command: run the platform, migrate it, mend it, ask what it is set to."""

import asyncio
import json
import logging
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import psutil
import typer
import uvicorn
from rich.markup import escape
from rich.table import Table

from maas.audit_commands import audit
from maas.backup_commands import backup, restore, resume_collection
from maas.embedded.address import check_free, find_free_port
from maas.embedded.errors import PortTakenError
from maas.embedded.folders import default_data_dir
from maas.embedded.platform import Prepared, UpOptions, run_platform
from maas.keys_commands import keys, refuse_lost_keys
from maas.login_commands import login, logout
from maas.model_commands import model
from maas.runtime_commands import is_runtime_installed, runtime
from maas.shared.domain.errors import MaasError
from maas.shared.infrastructure.core_dumps import forbid_core_dumps
from maas.shared.infrastructure.setting_sources import GivenSettings, explain_settings
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
    seconds_to_finish,
)

app = typer.Typer(
    name="maas",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
)
admin = typer.Typer(help="Administrators.", no_args_is_help=True)
config = typer.Typer(help="Settings.", no_args_is_help=True)
app.add_typer(admin, name="admin")
app.add_typer(config, name="config")
app.add_typer(audit, name="audit")
app.add_typer(model, name="model")
app.add_typer(keys, name="keys")
app.command("login")(login)
app.command("logout")(logout)
app.command("runtime")(runtime)
app.command("backup")(backup)
app.command("restore")(restore)
app.command("resume-collection")(resume_collection)

EMBEDDED_DRAIN_SECONDS = "6"
_OFF = frozenset({"false", "f", "0", "no", "n", "off"})


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


Host = Annotated[
    str | None, typer.Option(envvar="MAAS_HOST", help="Address to listen on [127.0.0.1].")
]
Port = Annotated[
    int | None, typer.Option(envvar="MAAS_PORT", min=1, max=65535, help="Port [8000].")
]
DataDir = Annotated[
    Path | None,
    typer.Option(envvar="MAAS_DATA_DIR", help="Where data, secrets and logs are kept."),
]


@app.command()
def up(
    *,
    host: Host = None,
    port: Port = None,
    data_dir: DataDir = None,
    workers: Annotated[int | None, typer.Option(min=1, help="API processes [1].")] = None,
    concurrency: Annotated[
        int, typer.Option(min=1, help="Celery worker processes.")
    ] = WORKER_PROCESSES,
) -> None:
    """Run everything on this machine: PostgreSQL, Valkey, API, worker, beat, and the runtime.

    Needs no settings. With MAAS_DATABASE__URL or MAAS_REDIS__URL set, that server is used instead
    of a private one.
    """
    given = given_settings()
    folder = data_dir or Path(given.find("MAAS_DATA_DIR") or default_data_dir())
    # The platform's own key would win over one that only a file names.
    if (secret_key := given.find("MAAS_SECRET_KEY")) is not None:
        os.environ["MAAS_SECRET_KEY"] = secret_key
    # Ten seconds from signal to silence leave this much for answers under way.
    if given.find("MAAS_SERVER__DRAIN_TIMEOUT_SECONDS") is None:
        os.environ["MAAS_SERVER__DRAIN_TIMEOUT_SECONDS"] = EMBEDDED_DRAIN_SECONDS
    options = UpOptions(
        data_dir=folder.expanduser().absolute(),
        host=host or given.find("MAAS_SERVER__HOST") or "127.0.0.1",
        port=port or _number(given, "MAAS_SERVER__PORT", 8000),
        start_postgres=given.find("MAAS_DATABASE__URL") is None,
        start_valkey=given.find("MAAS_REDIS__URL") is None,
        make_signing_key=_wants_signing_key(given),
        make_audit_key=_wants_audit_key(given),
        runtime_port=find_free_port() if _wants_runtime(given) else None,
        api_workers=workers or _number(given, "MAAS_SERVER__WORKERS", 1),
        worker_concurrency=concurrency,
    )
    raise typer.Exit(run_platform(options, prepare=_prepare))


def _wants_signing_key(given: GivenSettings) -> bool:
    variables = ("MAAS_AUTH__PRIVATE_KEY", "MAAS_AUTH__PRIVATE_KEY_FILE")
    is_given = any(given.find(variable) is not None for variable in variables)
    return given.find("MAAS_AUTH__ALGORITHM") == "ES256" and not is_given


def _wants_audit_key(given: GivenSettings) -> bool:
    variables = ("MAAS_AUDIT__SIGNING_KEY", "MAAS_AUDIT__SIGNING_KEY_FILE")
    return all(given.find(variable) is None for variable in variables)


def _wants_runtime(given: GivenSettings) -> bool:
    """Tell whether weights can be run here, and nobody said that they are run elsewhere or not."""
    is_off = (given.find("MAAS_RUNTIME__ENABLED") or "true").lower() in _OFF
    return not is_off and given.find("MAAS_RUNTIME__URL") is None and is_runtime_installed()


def _number(given: GivenSettings, variable: str, default: int) -> int:
    value = given.find(variable)
    if value is None:
        return default
    if not value.isascii() or not value.isdecimal():
        raise fail(f"{variable} must be a whole number", code=2)
    return int(value)


def _prepare(environment: Mapping[str, str]) -> Prepared:
    """Migrate, and make the first administrator (a step of `up`, in its process)."""
    os.environ.update(environment)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    load("maas.shared.infrastructure.migrations:migrate")()
    settings = read_settings()
    refuse_lost_keys(settings)
    return asyncio.run(_first_admin(settings))


async def _first_admin(settings: Settings) -> Prepared:
    bootstrap = load("maas.bootstrap")
    async with bootstrap.open_platform(settings) as platform:
        if settings.bootstrap.admin_username:
            is_made = await bootstrap.ensure_configured_admin(platform)
            notes = ["The administrator of MAAS_BOOTSTRAP__ADMIN_USERNAME was made."]
            return Prepared(notes=notes if is_made else [])
        password = await bootstrap.generate_first_admin(platform)
    username = bootstrap.FIRST_ADMIN_USERNAME if password else None
    return Prepared(one_time_password=password, admin_username=username)


@app.command()
def serve(
    *,
    host: Host = None,
    port: Port = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes.")] = None,
) -> None:
    """Serve the API."""
    if workers is not None:
        # Also for the processes to come, which read the settings themselves.
        os.environ["MAAS_SERVER__WORKERS"] = str(workers)
    settings = read_settings()
    try:
        check_free(host or settings.server.host, port or settings.server.port)
    except PortTakenError as exc:
        raise fail(f"{exc.message} {exc.hint}") from None
    refuse_lost_keys(settings)
    _refuse_unfit_servers(settings)
    folder = _share_metrics(settings)
    try:
        uvicorn.run(
            "maas.main:make_app",
            factory=True,
            host=host or settings.server.host,
            port=port or settings.server.port,
            workers=settings.server.workers,
            loop="uvloop",
            http=load("maas.shared.interface.http_protocol:HeaderTimeoutProtocol"),
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=True,
            proxy_headers=False,
            timeout_keep_alive=5,
            timeout_graceful_shutdown=seconds_to_finish(settings),
            backlog=1024,
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _refuse_unfit_servers(settings: Settings, *, worker_processes: int = WORKER_PROCESSES) -> None:
    """Stop before the first request where production could lose what it promises to keep."""
    if settings.environment != "production":
        return
    find = load("maas.doctor:find_misconfigurations")
    findings = asyncio.run(find(settings, worker_processes=worker_processes))
    if findings:
        raise fail("\n".join(finding.text for finding in findings))


def _share_metrics(settings: Settings) -> Path:
    """Give the API's processes one folder to count in, so that /metrics is true for all of them."""
    parent = settings.data_dir if settings.data_dir and settings.data_dir.is_dir() else None
    for left in parent.glob("metrics-*") if parent else ():
        owner = left.name.split("-")[1]
        if owner.isdecimal() and not psutil.pid_exists(int(owner)):
            shutil.rmtree(left, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=f"metrics-{os.getpid()}-", dir=parent))
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
    return folder


@app.command()
def worker(
    *,
    concurrency: Annotated[int, typer.Option(min=1, help="Processes.")] = WORKER_PROCESSES,
) -> None:
    """Run the Celery worker: it flushes the audit trail, among other tasks."""
    settings = read_settings()
    refuse_lost_keys(settings)
    _refuse_unfit_servers(settings, worker_processes=concurrency)
    celery = load("maas.worker:app")
    celery.worker_main(
        [
            "worker",
            "--loglevel",
            settings.effective_log_level,
            "--concurrency",
            str(concurrency),
            "--without-gossip",
            "--without-mingle",
        ]
    )


@app.command()
def beat() -> None:
    """Run Celery beat, the clock of the recurring tasks; exactly one of it."""
    settings = read_settings()
    celery = load("maas.worker:app")
    # The schedule is all in code, so nothing is kept on disk that a crash could tear.
    celery.start(
        [
            "beat",
            "--loglevel",
            settings.effective_log_level,
            "--scheduler",
            "celery.beat:Scheduler",
            "--pidfile=",
        ]
    )


@app.command()
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
        asyncio.run(_first_admin(settings))
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


@app.command()
def openapi() -> None:
    """Print the OpenAPI document."""
    settings = load_settings(
        secret_key=secrets.token_urlsafe(48),
        database={"url": "postgresql://unused"},
        redis={"url": "redis://unused"},
    )
    document = load("maas.main:create_app")(settings).openapi()
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False, sort_keys=True) + "\n")


@app.command()
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
