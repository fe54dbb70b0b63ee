"""Where the journey is walked: `maas up` on one machine, or processes apart on servers by URL."""

import asyncio
import re
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from os import environ
from pathlib import Path
from typing import Final

import asyncpg
import httpx

from maas.embedded.address import find_free_port
from tests.acceptance.platforms import running
from tests.own_valkey import OwnValkey
from tests.servers import ROLES, SUPERUSER, RunningServers, Servers

READY_SECONDS: Final = 120.0
STOP_SECONDS: Final = 30.0
COMMAND_SECONDS: Final = 120.0
LOOK_SECONDS: Final = 0.05
ADMIN: Final = "admin"

CommandLine = tuple[str, ...]
MAAS: Final[CommandLine] = (sys.executable, "-P", "-m", "maas.cli")


class CommandError(Exception):
    """A `maas` command did not end as it should; the message holds what it said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A platform as its operator has it: where it answers, and what its commands are told."""

    urls: tuple[str, ...]
    password: str
    operator: Mapping[str, str]
    folder: Path

    def maas(self, *words: str) -> str:
        """Type a command as the operator."""
        return run_maas(*words, environment=self.operator, folder=self.folder)


def run_maas(*words: str, environment: Mapping[str, str], folder: Path, text_in: str = "") -> str:
    """Type a command, and tell what it said.

    Raises:
        CommandError: it ended with another code than 0.
    """
    done = subprocess.run(
        [*MAAS, *words],
        # Away from a checkout whose `.env` would be read.
        cwd=folder,
        env={**kept_environment(), **environment},
        input=text_in,
        capture_output=True,
        text=True,
        check=False,
        timeout=COMMAND_SECONDS,
    )
    if done.returncode != 0:
        message = f"maas {' '.join(words)}: {done.returncode}, {done.stdout}{done.stderr}"
        raise CommandError(message)
    return done.stdout


def kept_environment() -> dict[str, str]:
    return {name: value for name, value in environ.items() if not re.match("MAAS_|XDG_", name)}


@contextmanager
def embedded(folder: Path) -> Iterator[Place]:
    """Run `maas up`, with nothing but a folder and a port; the password is in its panel."""
    with running(folder) as platform:
        yield Place(
            urls=(platform.url,),
            password=platform.one_time_password(),
            operator={"MAAS_DATA_DIR": str(platform.data_dir)},
            folder=folder,
        )


@contextmanager
def external(folder: Path) -> Iterator[Place]:
    """Start a PostgreSQL and a Valkey, and on their URLs alone all that is ours, as processes.

    Two of the API, two workers, one clock and one runtime, as on several machines.
    """
    with ExitStack() as stack:
        servers = RunningServers()
        stack.callback(servers.stop)
        valkey = OwnValkey()
        stack.callback(valkey.stop)
        database = f"maas_{secrets.token_hex(4)}"
        asyncio.run(_make_database(servers.servers, database))
        runtime_port = find_free_port()
        operator = {
            "MAAS_SECRET_KEY": secrets.token_urlsafe(48),
            "MAAS_DATABASE__URL": servers.servers.database_url(database, "maas_app"),
            "MAAS_DATABASE__OWNER_URL": servers.servers.database_url(database, "maas_owner"),
            "MAAS_DATABASE__SYSTEM_URL": servers.servers.database_url(database, "maas_system"),
            "MAAS_REDIS__URL": valkey.url,
            "MAAS_RUNTIME__URL": f"http://127.0.0.1:{runtime_port}",
            "MAAS_DATA_DIR": str(folder / "data"),
            "MAAS_LOG_LEVEL": "WARNING",
        }
        (folder / "data").mkdir()
        password = secrets.token_urlsafe(18)
        run_maas("migrate", environment=operator, folder=folder)
        run_maas(
            *("admin", "create", "--username", ADMIN, "--email", "admin@example.com"),
            "--password-stdin",
            environment=operator,
            folder=folder,
            text_in=password,
        )
        ports = (find_free_port(), find_free_port())
        commands = {
            **{f"api-{port}": ("serve", "--port", str(port)) for port in ports},
            "worker-1": ("worker", "--concurrency", "1"),
            "worker-2": ("worker", "--concurrency", "1"),
            "beat": ("beat",),
            "runtime": ("runtime", "--port", str(runtime_port)),
        }
        processes: dict[str, subprocess.Popen[bytes]] = {}
        stack.callback(_stop, processes)
        for name, words in commands.items():
            with (folder / f"{name}.log").open("wb") as log:
                processes[name] = subprocess.Popen(
                    [*MAAS, *words],
                    cwd=folder,
                    env={**kept_environment(), **operator},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
        urls = tuple(f"http://127.0.0.1:{port}" for port in ports)
        for path in (
            *(f"{url}/health/ready" for url in urls),
            f"{operator['MAAS_RUNTIME__URL']}/health",
        ):
            _wait_for(path, processes, folder)
        yield Place(urls=urls, password=password, operator=operator, folder=folder)


async def _make_database(servers: Servers, name: str) -> None:
    connection = await servers.connect("postgres", SUPERUSER)
    try:
        for role, attributes in ROLES.items():
            with suppress(asyncpg.DuplicateObjectError):
                await connection.execute(f"CREATE ROLE {role} {attributes}")
        await connection.execute(f"CREATE DATABASE {name} OWNER maas_owner")
    finally:
        await connection.close()


def _wait_for(
    address: str, processes: Mapping[str, "subprocess.Popen[bytes]"], folder: Path
) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        for name, process in processes.items():
            if process.poll() is not None:
                told = (folder / f"{name}.log").read_text(encoding="utf-8", errors="replace")
                message = f"{name} ended with {process.returncode}: {told[-600:]}"
                raise CommandError(message)
        with suppress(httpx.HTTPError):
            if httpx.get(address, timeout=2, trust_env=False).is_success:
                return
        time.sleep(LOOK_SECONDS)
    message = f"{address} was not ready after {READY_SECONDS:.0f} s"
    raise CommandError(message)


def _stop(processes: Mapping[str, "subprocess.Popen[bytes]"]) -> None:
    for process in processes.values():
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
    for process in processes.values():
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
