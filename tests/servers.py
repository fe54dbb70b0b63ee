"""The PostgreSQL and Valkey of a test session: real ones, private, on a folder of their own."""

import asyncio
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from maas.embedded.accounts import ServerAccount, get_server_account
from maas.embedded.locator import (
    find_postgres_binaries,
    find_valkey_binary,
    reachable_postgres,
    reachable_valkey,
)

BOOT_SECONDS = 30
SUPERUSER = "postgres"
TEMPLATE = "maas_template"
ROLES = {
    "maas_owner": "LOGIN",
    "maas_app": "LOGIN NOBYPASSRLS",
    "maas_system": "LOGIN BYPASSRLS",
}
# Fast and forgetful: what survives a crash is tested on the servers of `maas up`.
POSTGRES_OPTIONS = {
    "listen_addresses": "",
    "jit": "off",
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "max_connections": "200",
    "shared_buffers": "64MB",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Servers:
    """Where the servers are; plain values, so that they can be handed to xdist's workers."""

    socket_folder: str
    valkey_socket: str
    valkey_port: int
    valkey_password: str

    def database_url(self, database: str, user: str) -> str:
        return f"postgresql+asyncpg://{user}@/{database}?host={self.socket_folder}&port=5432"

    def redis_url(self, number: int) -> str:
        return f"unix://:{self.valkey_password}@{self.valkey_socket}?db={number}"

    def broker_url(self, number: int) -> str:
        return f"redis://:{self.valkey_password}@127.0.0.1:{self.valkey_port}/{number}"

    async def connect(
        self, database: str, user: str = SUPERUSER
    ) -> "asyncpg.Connection[asyncpg.Record]":
        return await asyncpg.connect(
            host=self.socket_folder, port=5432, user=user, database=database
        )


class RunningServers:
    """Starts both servers and stops them; only the process that runs the session holds one."""

    def __init__(self) -> None:
        self._account = get_server_account()
        self._folder = Path(tempfile.mkdtemp(prefix="maas-tests-"))
        self._hand_over(self._folder)
        self._processes: list[subprocess.Popen[bytes]] = []
        sockets = self._make_folder("sockets")
        port, password = _free_port(), secrets.token_urlsafe(16)
        valkey_socket = self._start_valkey(port, password)
        self._start_postgres(sockets)
        self.servers = Servers(
            socket_folder=str(sockets),
            valkey_socket=str(valkey_socket),
            valkey_port=port,
            valkey_password=password,
        )

    def _start_postgres(self, sockets: Path) -> None:
        data, copies = self._make_folder("postgres"), self._make_folder("binaries")
        binaries = reachable_postgres(
            find_postgres_binaries(), copies=copies, account=self._account
        )
        self._spawn(
            [
                *(binaries / "initdb", "-D", data, "-U", SUPERUSER, "-A", "trust", "-E", "UTF8"),
                *("--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
                "--no-sync",
            ]
        ).wait(BOOT_SECONDS)
        settings = [part for item in POSTGRES_OPTIONS.items() for part in ("-c", "=".join(item))]
        server = self._spawn([binaries / "postgres", "-D", data, "-k", sockets, *settings])
        self._processes.append(server)
        _wait_until(lambda: _is_ready(data / "postmaster.pid"))

    def _start_valkey(self, port: int, password: str) -> Path:
        folder = self._make_folder("valkey")
        config = folder / "valkey.conf"
        config.write_text(
            f"bind 127.0.0.1\nport {port}\ndir {folder}\nappendonly no\nsave ''\ndatabases 64\n"
            f"unixsocket {folder}/socket\nunixsocketperm 700\nrequirepass {password}\n"
        )
        self._hand_over(config)
        binary = reachable_valkey(
            find_valkey_binary(), copies=self._make_folder("copies"), account=self._account
        )
        self._processes.append(self._spawn([binary, config]))
        _wait_until((folder / "socket").exists)
        return folder / "socket"

    def _make_folder(self, name: str) -> Path:
        folder = self._folder / name
        folder.mkdir(mode=0o700)
        self._hand_over(folder)
        return folder

    def _hand_over(self, path: Path) -> None:
        if self._account.is_switched:
            os.chown(path, self._account.uid, self._account.gid)

    def _spawn(self, command: Sequence[object]) -> "subprocess.Popen[bytes]":
        arguments = [str(part) for part in command]
        with (self._folder / "servers.log").open("ab") as log:
            return _start_as(self._account, arguments, log.fileno())

    def stop(self) -> None:
        for process in self._processes:
            process.send_signal(signal.SIGINT)
        for process in self._processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)


def _start_as(account: ServerAccount, arguments: list[str], log: int) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        arguments,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        cwd="/",
        start_new_session=True,
        user=account.uid if account.is_switched else None,
        group=account.gid if account.is_switched else None,
        extra_groups=[] if account.is_switched else None,
    )


def migrate_template(servers: Servers, alembic_ini: Path) -> None:
    """Make the database that every worker's own is copied from, as CI would: with Alembic."""
    asyncio.run(_make_template(servers))
    environment = {
        **os.environ,
        "MAAS_DATABASE__URL": servers.database_url(TEMPLATE, "maas_app"),
        "MAAS_DATABASE__OWNER_URL": servers.database_url(TEMPLATE, "maas_owner"),
    }
    subprocess.run(
        [sys.executable, "-m", "alembic", "-c", str(alembic_ini), "upgrade", "head"],
        check=True,
        env=environment,
    )


async def _make_template(servers: Servers) -> None:
    connection = await servers.connect("postgres")
    try:
        for role, attributes in ROLES.items():
            await connection.execute(f"CREATE ROLE {role} {attributes}")
        await connection.execute(f"CREATE DATABASE {TEMPLATE} OWNER maas_owner")
    finally:
        await connection.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _is_ready(pid_file: Path) -> bool:
    try:
        return pid_file.read_text().splitlines()[7].strip() == "ready"
    except (OSError, IndexError):
        return False


def _wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + BOOT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "a test server did not start in time"
        time.sleep(0.01)
