"""`maas up`: the whole platform on this machine."""

import asyncio
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from maas.commands.keys import refuse_lost_keys
from maas.commands.runtime import is_runtime_installed
from maas.commands.servers import Host, Port
from maas.embedded.address import find_free_port
from maas.embedded.folders import default_data_dir
from maas.embedded.platform import Prepared, UpOptions, run_platform
from maas.shared.infrastructure.setting_sources import GivenSettings
from maas.shared.infrastructure.settings import Settings
from maas.shared.infrastructure.worker_connections import WORKER_PROCESSES
from maas.terminal import fail, given_settings, load, read_settings

EMBEDDED_DRAIN_SECONDS = "6"
_OFF = frozenset({"false", "f", "0", "no", "n", "off"})

DataDir = Annotated[
    Path | None,
    typer.Option(envvar="MAAS_DATA_DIR", help="Where data, secrets and logs are kept."),
]


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
    return asyncio.run(make_first_admin(settings))


async def make_first_admin(settings: Settings) -> Prepared:
    bootstrap = load("maas.bootstrap")
    async with bootstrap.open_platform(settings) as platform:
        if settings.bootstrap.admin_username:
            is_made = await bootstrap.ensure_configured_admin(platform)
            notes = ["The administrator of MAAS_BOOTSTRAP__ADMIN_USERNAME was made."]
            return Prepared(notes=notes if is_made else [])
        password = await bootstrap.generate_first_admin(platform)
    username = bootstrap.FIRST_ADMIN_USERNAME if password else None
    return Prepared(one_time_password=password, admin_username=username)
