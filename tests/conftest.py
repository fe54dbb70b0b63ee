"""Real servers for every test that touches one: a database of its own per worker, cleaned per test.

The process that runs the session starts PostgreSQL and Valkey once and migrates a template; every
xdist worker clones it. Tests commit for real, as `maas_app`.
"""

import asyncio
import gc
import json
import os
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import asyncpg
import hypothesis
import pytest
import structlog

from maas.shared.infrastructure.database import Database
from maas.shared.infrastructure.redis import RedisGate
from maas.shared.infrastructure.settings import Settings, load_settings
from tests.cleaner import Cleaner
from tests.servers import TEMPLATE, RunningServers, Servers, migrate_template

# The same cases every time: what a change breaks is its own doing, not the dice's.
# How slow is too slow is a matter of what else the machine does.
hypothesis.settings.register_profile(
    "repeatable", derandomize=True, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("repeatable")

# A pretty traceback shows every local variable there is: seconds of work for each one logged.
structlog.configure(
    processors=[
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.dev.set_exc_info,
        structlog.dev.ConsoleRenderer(
            colors=False, exception_formatter=structlog.dev.plain_traceback
        ),
    ]
)

ROOT = Path(__file__).resolve().parent.parent
SERVERS_VARIABLE = "MAAS_TEST_SERVERS"
WITHOUT_SERVERS = ("tests/unit", "tests/architecture", "tests/upstream")
WIDE_LIMITS = {
    "unauthenticated_per_minute": 1_000_000,
    "registrations_per_hour": 1_000_000,
    "requests_per_minute": 1_000_000,
}
"""Requests are counted as anywhere else, and nobody is held up: tests ask as fast as they can."""

TEST_SECRET = "unit-tests-only-0123456789-abcdefghijklmnopqrstuvwxyz"

_running: list[RunningServers] = []


def pytest_configure(config: pytest.Config) -> None:
    """Start the servers before any worker is, unless only unit tests were asked for."""
    is_worker = hasattr(config, "workerinput")
    wanted = [argument.split("::")[0] for argument in config.args]
    needs_none = wanted and all(
        str(Path(path)).removeprefix(f"{ROOT}/").startswith(WITHOUT_SERVERS) for path in wanted
    )
    if is_worker or needs_none or config.option.collectonly or SERVERS_VARIABLE in os.environ:
        return
    running = RunningServers()
    _running.append(running)
    migrate_template(running.servers, ROOT / "alembic.ini")
    os.environ[SERVERS_VARIABLE] = json.dumps(asdict(running.servers))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Keep the garbage collector away from what lives as long as the tests do, as the API does."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure(config: pytest.Config) -> None:
    while _running:
        _running.pop().stop()
        os.environ.pop(SERVERS_VARIABLE, None)


@pytest.fixture(scope="session")
def servers() -> Servers:
    if SERVERS_VARIABLE not in os.environ:
        pytest.fail("this test needs the servers: it belongs under tests/integration or tests/e2e")
    return Servers(**json.loads(os.environ[SERVERS_VARIABLE]))


@dataclass(frozen=True, slots=True)
class WorkerDatabase:
    """This worker's own database, and the rows it holds right after the migrations."""

    name: str
    seeds: dict[str, str]


@pytest.fixture(scope="session")
def worker_number(worker_id: str) -> int:
    return 0 if worker_id == "master" else int(worker_id.removeprefix("gw")) + 1


@pytest.fixture(scope="session")
def worker_database(servers: Servers, worker_number: int) -> Iterator[WorkerDatabase]:
    name = f"maas_worker_{worker_number}"
    yield asyncio.run(clone(servers, name))
    asyncio.run(drop(servers, name))


async def clone(servers: Servers, name: str) -> WorkerDatabase:
    connection = await servers.connect("postgres")
    await connection.execute(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE} OWNER maas_owner")
    await connection.close()
    connection = await servers.connect(name)
    seeds = {}
    for row in await connection.fetch(
        """SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
           WHERE n.nspname = 'public' AND c.relkind = 'r' AND NOT c.relispartition
             AND c.relname <> 'alembic_version'"""
    ):
        table = row["relname"]
        seeds[table] = await connection.fetchval(
            f"SELECT coalesce(jsonb_agg(to_jsonb(t)), '[]')::text FROM {table} t"
        )
    for row in await connection.fetch("SELECT relname FROM pg_class WHERE relkind = 'p'"):
        seeds[row["relname"]] = "[]"
    await connection.close()
    return WorkerDatabase(name, seeds)


async def drop(servers: Servers, name: str) -> None:
    connection = await servers.connect("postgres")
    await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await connection.close()


@pytest.fixture
async def superuser(
    servers: Servers, worker_database: WorkerDatabase, clean: None
) -> "AsyncIterator[asyncpg.Connection[asyncpg.Record]]":
    """A connection past all rules, for looking and tampering; what it left is cleaned away."""
    connection = await servers.connect(worker_database.name)
    yield connection
    await connection.close()


@pytest.fixture(scope="session")
def cleaner(servers: Servers, worker_database: WorkerDatabase) -> Iterator[Cleaner]:
    cleaner = Cleaner(servers, worker_database.name, worker_database.seeds)
    yield cleaner
    cleaner.close()


@pytest.fixture
async def clean(cleaner: Cleaner, redis_gate: RedisGate) -> AsyncIterator[None]:
    """Leave the worker's database and Redis as the migrations left them."""
    yield
    await cleaner.clean()
    await redis_gate.client.flushdb()


MakeSettings = Callable[..., Settings]


def settings_for(
    servers: Servers, database: str, *, number: int, data_dir: Path
) -> dict[str, object]:
    """Name a database and a Redis of the test servers as settings do, cheap hashing included."""
    return {
        "environment": "test",
        "secret_key": TEST_SECRET,
        "data_dir": data_dir,
        "database": {
            "url": servers.database_url(database, "maas_app"),
            "owner_url": servers.database_url(database, "maas_owner"),
            "system_url": servers.database_url(database, "maas_system"),
        },
        "redis": {
            "url": servers.redis_url(number),
            "broker_url": servers.broker_url(number),
            "timeout_ms": 2000,
        },
        "auth": {"argon2_memory_kib": 64, "argon2_time_cost": 1},
        "rate_limits": WIDE_LIMITS,
    }


@pytest.fixture
def make_settings(
    servers: Servers, worker_database: WorkerDatabase, worker_number: int, tmp_path: Path
) -> MakeSettings:
    """Make settings for this worker's servers; arguments override."""
    base = settings_for(
        servers, worker_database.name, number=worker_number, data_dir=tmp_path / "data"
    )

    def make(**overrides: object) -> Settings:
        merged = dict(base)
        for name, value in overrides.items():
            old = merged.get(name)
            merged[name] = (
                {**old, **value} if isinstance(old, dict) and isinstance(value, dict) else value
            )
        return load_settings(**merged)

    return make


@pytest.fixture
def settings(make_settings: MakeSettings) -> Settings:
    return make_settings()


@pytest.fixture
async def redis_gate(settings: Settings) -> AsyncIterator[RedisGate]:
    gate = RedisGate(settings.redis)
    yield gate
    await gate.close()


@pytest.fixture
async def database(settings: Settings, clean: None) -> AsyncIterator[Database]:
    """An open database as `maas_app`; the worker's rows are cleaned away afterwards."""
    database = Database(settings.database)
    await database.open()
    yield database
    await database.close()
