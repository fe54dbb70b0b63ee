"""The platform under test: servers of its own, two API processes, two workers, faulty links.

Nothing here is shared with anything else on the machine. PostgreSQL and Valkey keep their promises
to the disk, as production's do; every process reaches each of them through a proxy of its own.
"""

import asyncio
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg
import httpx
from redis import Redis
from redis.exceptions import RedisError

from maas.embedded.accounts import get_server_account
from maas.embedded.locator import (
    find_postgres_binaries,
    find_valkey_binary,
    reachable_postgres,
    reachable_valkey,
)
from tests.chaos.programs import Program
from tests.fault_proxy import FaultProxy
from tests.pair import WIDE_LIMITS
from tests.servers import ROLES

ROOT = Path(__file__).resolve().parents[2]
DATABASE = "maas"
SUPERUSER = "postgres"
APIS, WORKERS = 2, 2
TEND_SECONDS = 0.1
BACK_SECONDS = 0.3
"""After this long a dead program is started again, as an init system would."""

POSTGRES_OPTIONS = {
    "listen_addresses": "127.0.0.1",
    "fsync": "on",
    "synchronous_commit": "on",
    "max_connections": "200",
    "shared_buffers": "128MB",
    "restart_after_crash": "on",
}


@dataclass(kw_only=True)
class Cluster:
    """What the faults are done to."""

    folder: Path
    postgres: Program
    valkey: Program
    apis: list[Program]
    workers: list[Program]
    beat: Program
    links: dict[str, FaultProxy]
    urls: list[str]
    postgres_port: int
    valkey_url: str
    admin_password: str
    _tending: threading.Thread | None = None
    _ends: threading.Event = field(default_factory=threading.Event)
    restarts: dict[str, int] = field(default_factory=dict)

    @property
    def programs(self) -> list[Program]:
        return [self.postgres, self.valkey, *self.apis, *self.workers, self.beat]

    @property
    def data_dirs(self) -> list[Path]:
        return [self.folder / program.name for program in (*self.apis, *self.workers)]

    def links_to(self, server: str) -> list[FaultProxy]:
        """List the links to `postgres` or `valkey`."""
        return [link for name, link in self.links.items() if name.endswith(f">{server}")]

    @asynccontextmanager
    async def superuser(self) -> "AsyncIterator[asyncpg.Connection[asyncpg.Record]]":
        """Connect past the proxies, with every right."""
        connection = await asyncpg.connect(
            host="127.0.0.1", port=self.postgres_port, user=SUPERUSER, database=DATABASE, timeout=20
        )
        try:
            yield connection
        finally:
            await connection.close(timeout=5)

    def redis(self) -> "Redis":
        """Connect past the proxies."""
        return Redis.from_url(self.valkey_url, socket_timeout=10, socket_connect_timeout=5)

    def heal(self) -> None:
        """Take every fault away: links pass, and whatever should run runs."""
        for link in self.links.values():
            link.heal()
        for program in self.programs:
            program.send_to_all(signal.SIGCONT)
            program.wanted = True

    async def wait_until_well(self, *, seconds: float = 60.0) -> float:
        """Wait until every program runs and both APIs are ready; tell for how long."""
        began = time.monotonic()
        while True:
            if all(program.is_running for program in self.programs):
                ready = [await asyncio.to_thread(is_ok, f"{url}/health/ready") for url in self.urls]
                if all(ready):
                    return time.monotonic() - began
            if time.monotonic() - began > seconds:
                ill = [program.name for program in self.programs if not program.is_running]
                tails = "\n".join(f"--- {api.name}\n{api.tail()}" for api in self.apis)
                raise TimeoutError(f"not well after {seconds:.0f} s; down: {ill}\n{tails}")
            await asyncio.sleep(TEND_SECONDS)

    def tend(self) -> None:
        """Start again what died and is wanted, until `stop_tending`."""
        self._ends.clear()
        self._tending = threading.Thread(target=self._tend, daemon=True)
        self._tending.start()

    def stop_tending(self) -> None:
        self._ends.set()
        if self._tending is not None:
            self._tending.join(10)

    def _tend(self) -> None:
        dead_since: dict[str, float] = {}
        while not self._ends.wait(TEND_SECONDS):
            for program in self.programs:
                if program.is_running or not program.wanted or program.process is None:
                    dead_since.pop(program.name, None)
                    continue
                since = dead_since.setdefault(program.name, time.monotonic())
                if time.monotonic() - since >= BACK_SECONDS:
                    # What it forked may hold its port, or its data folder.
                    program.send_to_all(signal.SIGKILL)
                    program.launch()
                    self.restarts[program.name] = self.restarts.get(program.name, 0) + 1


def is_ok(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2, trust_env=False).is_success
    except httpx.HTTPError:
        return False


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running_cluster(
    *, extra: Mapping[str, Mapping[str, str]] | None = None, seed: int = 0
) -> Iterator[Cluster]:
    """Start everything in a folder of its own, and leave nothing behind.

    `extra` has more environment for programs by name (`api-1`, `worker-2`) or for `api`, `worker`.
    """
    with tempfile.TemporaryDirectory(prefix="maas-chaos-") as name:
        folder = Path(name)
        # The servers run as another user where this runs as root.
        folder.chmod(0o755)
        with ExitStack() as stack:
            cluster = _build(folder, extra or {}, seed, stack)
            try:
                _start(cluster)
                cluster.tend()
                yield cluster
            finally:
                cluster.stop_tending()
                for program in reversed(cluster.programs):
                    program.send_to_all(signal.SIGCONT)
                    program.wanted = False
                    program.kill()


def _build(
    folder: Path, extra: Mapping[str, Mapping[str, str]], seed: int, stack: ExitStack
) -> Cluster:
    postgres, postgres_port = _postgres(folder)
    valkey, valkey_port, password = _valkey(folder)
    valkey_url = f"redis://:{password}@127.0.0.1:{valkey_port}/0"
    links: dict[str, FaultProxy] = {}
    shared = {
        **{name: value for name, value in os.environ.items() if not re.match("MAAS_|CHAOS_", name)},
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'src'}",
        "MAAS_ENVIRONMENT": "development",
        "MAAS_SECRET_KEY": secrets.token_urlsafe(48),
        "MAAS_LOG_LEVEL": "INFO",
        "MAAS_LOG_FORMAT": "json",
        "MAAS_STORAGE__URL": (folder / "store").as_uri(),
        # A login costs one hash; here it is the pipeline that is under test, not argon2.
        "MAAS_AUTH__ARGON2_TIME_COST": "1",
        "MAAS_AUTH__ARGON2_MEMORY_KIB": "64",
        # Clients give wrong passwords on purpose, and ask as fast as they can.
        "MAAS_AUTH__LOGIN_THROTTLE": "false",
        **WIDE_LIMITS,
    }
    (folder / "store").mkdir()

    def environment_of(name: str) -> dict[str, str]:
        for server, port in (("postgres", postgres_port), ("valkey", valkey_port)):
            proxy = FaultProxy(("127.0.0.1", port), seed=seed)
            links[f"{name}>{server}"] = stack.enter_context(proxy)
        through = links[f"{name}>postgres"].port
        redis = links[f"{name}>valkey"].port
        (folder / name).mkdir()
        return {
            **shared,
            "MAAS_DATA_DIR": str(folder / name),
            "MAAS_DATABASE__URL": _url("maas_app", through),
            "MAAS_DATABASE__OWNER_URL": _url("maas_owner", through),
            "MAAS_DATABASE__SYSTEM_URL": _url("maas_system", through),
            "MAAS_REDIS__URL": f"redis://:{password}@127.0.0.1:{redis}/0",
            **extra.get(name.partition("-")[0], {}),
            **extra.get(name, {}),
        }

    urls, apis, workers = [], [], []
    for number in range(1, APIS + 1):
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        urls.append(url)
        apis.append(
            _program(
                folder,
                f"api-{number}",
                ["serve", "--port", str(port)],
                environment_of(f"api-{number}"),
                ready_at=f"{url}/health/live",
            )
        )
    for number in range(1, WORKERS + 1):
        name = f"worker-{number}"
        command = ["worker", "--concurrency", "1"]
        workers.append(_program(folder, name, command, environment_of(name)))
    beat = _program(folder, "beat", ["beat"], environment_of("beat"))
    return Cluster(
        folder=folder,
        postgres=postgres,
        valkey=valkey,
        apis=apis,
        workers=workers,
        beat=beat,
        links=links,
        urls=urls,
        postgres_port=postgres_port,
        valkey_url=valkey_url,
        admin_password=secrets.token_urlsafe(16),
    )


def _url(role: str, port: int) -> str:
    return f"postgresql+asyncpg://{role}@127.0.0.1:{port}/{DATABASE}"


def _program(
    folder: Path,
    name: str,
    command: list[str],
    environment: Mapping[str, str],
    *,
    ready_at: str | None = None,
) -> Program:
    return Program(
        name=name,
        command=[sys.executable, "-m", "tests.chaos.entry", *command],
        environment=environment,
        log=folder / f"{name}.log",
        is_ready=(lambda: True) if ready_at is None else (lambda: is_ok(ready_at)),
    )


def _account() -> dict[str, object]:
    account = get_server_account()
    if not account.is_switched:
        return {}
    return {"user": account.uid, "group": account.gid, "extra_groups": []}


def _owned_folder(path: Path) -> Path:
    path.mkdir(mode=0o700)
    account = get_server_account()
    if account.is_switched:
        os.chown(path, account.uid, account.gid)
    return path


def _postgres(folder: Path, *, fsync: bool = True) -> tuple[Program, int]:
    """Make a server; without fsync it survives what is done to processes, and no power failure."""
    account = get_server_account()
    copies = _owned_folder(folder / "postgres-programs")
    binaries = reachable_postgres(find_postgres_binaries(), copies=copies, account=account)
    data = _owned_folder(folder / "postgres")
    subprocess.run(
        [
            *(str(binaries / "initdb"), "-D", str(data), "-U", SUPERUSER, "-A", "trust"),
            *("-E", "UTF8", "--locale=C", "--locale-provider=builtin"),
            "--builtin-locale=C.UTF-8",
            *(() if fsync else ("--no-sync",)),
        ],
        check=True,
        capture_output=True,
        cwd="/",
        **_account(),  # type: ignore[call-overload]  # the account is one mapping
    )
    port = free_port()
    options = {
        **POSTGRES_OPTIONS,
        "fsync": "on" if fsync else "off",
        "port": str(port),
        "unix_socket_directories": "",
    }
    settings = [part for item in options.items() for part in ("-c", "=".join(item))]

    def answers() -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return _is_postgres_ready(data)
        return False

    program = Program(
        name="postgres",
        command=[binaries / "postgres", "-D", data, *settings],
        environment=os.environ,
        log=folder / "postgres.log",
        is_ready=answers,
        account=_account(),
    )
    return program, port


def _is_postgres_ready(data: Path) -> bool:
    try:
        return (data / "postmaster.pid").read_text().splitlines()[7].strip() == "ready"
    except (OSError, IndexError):
        return False


def _valkey(folder: Path) -> tuple[Program, int, str]:
    account = get_server_account()
    data = _owned_folder(folder / "valkey")
    port, password = free_port(), secrets.token_urlsafe(16)
    config = folder / "valkey.conf"
    config.write_text(
        f"bind 127.0.0.1\nport {port}\ndir {data}\nappendonly yes\nappendfsync always\nsave ''\n"
        f"maxmemory-policy noeviction\nrequirepass {password}\nenable-debug-command local\n"
        "aof-load-truncated yes\n"
    )
    config.chmod(0o644)
    binary = reachable_valkey(
        find_valkey_binary(), copies=_owned_folder(folder / "valkey-programs"), account=account
    )
    url = f"redis://:{password}@127.0.0.1:{port}/0"

    def answers() -> bool:
        with suppress(RedisError), Redis.from_url(url, socket_timeout=2) as client:
            return bool(client.ping())
        return False

    program = Program(
        name="valkey",
        command=[binary, config],
        environment=os.environ,
        log=folder / "valkey.log",
        is_ready=answers,
        account=_account(),
    )
    return program, port, password


def _start(cluster: Cluster) -> None:
    cluster.postgres.start()
    cluster.valkey.start()
    asyncio.run(_make_database(cluster))
    environment = dict(cluster.apis[0].environment)
    for command, text in (
        (["migrate"], None),
        (
            [
                *("admin", "create", "--username", "root", "--email", "root@example.com"),
                "--password-stdin",
            ],
            cluster.admin_password,
        ),
    ):
        subprocess.run(
            [sys.executable, "-m", "maas.cli", *command],
            check=True,
            env=environment,
            input=text,
            text=True,
            stdout=subprocess.DEVNULL,
            cwd="/",
        )
    for program in (*cluster.apis, *cluster.workers, cluster.beat):
        program.launch()
    for api in cluster.apis:
        api.wait_until_ready()


async def _make_database(cluster: Cluster) -> None:
    connection = await asyncpg.connect(
        host="127.0.0.1", port=cluster.postgres_port, user=SUPERUSER, database="postgres"
    )
    try:
        for role, attributes in ROLES.items():
            await connection.execute(f"CREATE ROLE {role} {attributes}")
        await connection.execute(f"CREATE DATABASE {DATABASE} OWNER maas_owner")
    finally:
        await connection.close()


def keep(folder: Path, target: Path) -> None:
    """Copy what explains a failure before it goes: the logs, and the clients' book."""
    target.mkdir(parents=True, exist_ok=True)
    for file in [*folder.glob("*.log"), *folder.glob("*.ndjson")]:
        shutil.copy(file, target)
