"""What is broken: PostgreSQL and Valkey of its own, processes of callers, and who ends leases."""

import asyncio
import json
import re
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass
from os import environ, pathsep
from pathlib import Path
from typing import Final

import asyncpg

from maas.embedded.locator import find_postgres_binaries
from tests.chaos.cluster import (
    DATABASE,
    ROOT,
    SUPERUSER,
    TEND_SECONDS,
    _postgres,
    _url,
    _valkey,
)
from tests.chaos.programs import Program
from tests.pair import WIDE_LIMITS
from tests.quota.world import Tenant, install, make_world
from tests.servers import ROLES, TEMPLATE, Servers

PROCESSES: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What callers read when they start, and again when they were killed."""

    seed: int
    tenants: int
    holds: int
    callers: int
    lease_seconds: float


@dataclass(slots=True, kw_only=True)
class Rig:
    folder: Path
    plan: Plan
    world: list[Tenant]
    postgres: Program
    valkey: Program
    callers: list[Program]
    helpers: list[Program]
    """Those that end leases: a small process, or a worker and beat."""

    port: int
    restarts: int = 0

    @property
    def programs(self) -> list[Program]:
        return [self.postgres, self.valkey, *self.callers, *self.helpers]

    @property
    def books(self) -> list[Path]:
        return sorted(self.folder.glob("book-*.ndjson"))

    @asynccontextmanager
    async def superuser(self) -> "AsyncIterator[asyncpg.Connection[asyncpg.Record]]":
        """Connect with every right, which sees all tenants."""
        connection = await asyncpg.connect(
            host="127.0.0.1", port=self.port, user=SUPERUSER, database=DATABASE, timeout=10
        )
        try:
            yield connection
        finally:
            await connection.close(timeout=5)

    def be_calm(self, tenants: int) -> None:
        """Let callers do nothing odd any more, and go on with so many tenants."""
        self._put("calm", str(tenants))

    def end(self) -> None:
        self._put("over", "")

    def begin_again(self) -> None:
        """Have callers start anew where they had ended."""
        for name in ("calm", "over"):
            (self.folder / name).unlink()
        for program in self.callers:
            program.launch()

    def _put(self, name: str, text: str) -> None:
        # All at once, for it is read while it is written.
        part = self.folder / f"{name}.part"
        part.write_text(text)
        part.rename(self.folder / name)

    async def tend(self) -> None:
        """Start again at once what died and is wanted, until cancelled."""
        while True:
            for program in (*self.callers, *self.helpers, self.valkey):
                if program.wanted and not program.is_running:
                    program.send_to_all(signal.SIGKILL)
                    program.launch()
                    self.restarts += 1
            await asyncio.sleep(TEND_SECONDS)

    async def wait_for_callers(self, *, seconds: float = 30.0) -> None:
        deadline = time.monotonic() + seconds
        while not all(program.is_ready() for program in self.callers):
            if time.monotonic() > deadline:
                raise TimeoutError("\n".join(program.tail() for program in self.callers))
            await asyncio.sleep(TEND_SECONDS)

    async def wait_for_the_end(self, *, seconds: float = 20.0) -> list[str]:
        """Wait until the callers have left by themselves; name those who did not, or not well."""
        deadline = time.monotonic() + seconds
        for program in self.callers:
            await asyncio.to_thread(program.reap, seconds=max(0.1, deadline - time.monotonic()))
        return [
            f"{program.name}: {program.tail()}"
            for program in self.callers
            if program.process is not None and program.process.poll() != 0
        ]


@contextmanager
def running_rig(
    plan: Plan, *, with_worker: bool, fsync: bool = True, like: Servers | None = None
) -> Iterator[Rig]:
    """Start the servers with an empty world, and leave nothing behind.

    The tables are copied from a test session's servers, where there are any: that is faster.
    """
    with tempfile.TemporaryDirectory(prefix="maas-quota-") as name:
        folder = Path(name)
        # The servers run as another user where this runs as root.
        folder.chmod(0o755)
        rig = _build(folder, plan, with_worker=with_worker, fsync=fsync)
        try:
            rig.postgres.start()
            rig.valkey.start()
            asyncio.run(_make_database(rig.port))
            _migrate(rig, like)
            asyncio.run(_install(rig))
            for program in (*rig.helpers, *rig.callers):
                program.launch()
            yield rig
        finally:
            for program in reversed(rig.programs):
                program.wanted = False
                program.send_to_all(signal.SIGCONT)
                program.kill()


def _build(folder: Path, plan: Plan, *, with_worker: bool, fsync: bool) -> Rig:
    postgres, port = _postgres(folder, fsync=fsync)
    valkey, valkey_port, password = _valkey(folder)
    (folder / "world.json").write_text(json.dumps(asdict(plan)))
    (folder / "data").mkdir()
    shared = {
        **{name: value for name, value in environ.items() if not re.match("MAAS_", name)},
        "PYTHONPATH": f"{ROOT}{pathsep}{ROOT / 'src'}",
        "MAAS_ENVIRONMENT": "development",
        "MAAS_SECRET_KEY": secrets.token_urlsafe(48),
        "MAAS_LOG_FORMAT": "json",
        "MAAS_DATA_DIR": str(folder / "data"),
        "MAAS_DATABASE__URL": _url("maas_app", port),
        "MAAS_DATABASE__OWNER_URL": _url("maas_owner", port),
        "MAAS_DATABASE__SYSTEM_URL": _url("maas_system", port),
        "MAAS_REDIS__URL": f"redis://:{password}@127.0.0.1:{valkey_port}/0",
        **WIDE_LIMITS,
    }
    callers = [_caller(folder, number, shared) for number in range(1, PROCESSES + 1)]
    helpers = {"worker": ["worker", "--concurrency", "1"], "beat": ["beat"]}
    return Rig(
        folder=folder,
        plan=plan,
        world=make_world(plan.seed, tenants=plan.tenants, holds=plan.holds),
        postgres=postgres,
        valkey=valkey,
        callers=callers,
        helpers=[
            _program(folder, name, ["maas.cli", *command], shared)
            for name, command in helpers.items()
        ]
        if with_worker
        else [_program(folder, "expirer", ["tests.quota.expirer"], shared)],
        port=port,
    )


def _caller(folder: Path, number: int, environment: Mapping[str, str]) -> Program:
    program = _program(
        folder,
        f"callers-{number}",
        ["tests.quota.caller", str(folder), str(number)],
        environment,
    )
    program.is_ready = (folder / f"ready-{number}").exists
    return program


def _program(folder: Path, name: str, module: list[str], environment: Mapping[str, str]) -> Program:
    return Program(
        name=name,
        command=[sys.executable, "-m", *module],
        environment=environment,
        log=folder / f"{name}.log",
    )


async def _make_database(port: int) -> None:
    connection = await asyncpg.connect(
        host="127.0.0.1", port=port, user=SUPERUSER, database="postgres"
    )
    try:
        for role, attributes in ROLES.items():
            await connection.execute(f"CREATE ROLE {role} {attributes}")
        await connection.execute(f"CREATE DATABASE {DATABASE} OWNER maas_owner")
    finally:
        await connection.close()


def _migrate(rig: Rig, like: Servers | None) -> None:
    if like is None:
        command = [sys.executable, "-m", "alembic", "-c", str(ROOT / "alembic.ini")]
        environment = dict(rig.callers[0].environment)
        subprocess.run([*command, "upgrade", "head"], check=True, env=environment, cwd=rig.folder)
        return
    binaries = find_postgres_binaries()
    dump = subprocess.run(
        [binaries / "pg_dump", "-h", like.socket_folder, "-U", SUPERUSER, TEMPLATE],
        check=True,
        capture_output=True,
    )
    address = ["-h", "127.0.0.1", "-p", str(rig.port), "-U", SUPERUSER]
    subprocess.run(
        [binaries / "psql", *address, "-v", "ON_ERROR_STOP=1", "-q", "-1", DATABASE],
        check=True,
        input=dump.stdout,
        stdout=subprocess.DEVNULL,
    )


async def _install(rig: Rig) -> None:
    async with rig.superuser() as connection:
        await install(connection, rig.world)
