"""The registry at 10,000 models beside MLflow's on the same PostgreSQL, in interleaved rounds.

What is counted is the CPU of every process that a call keeps busy: ours with the worker that chains
the audit event and with Valkey, MLflow's server, and PostgreSQL for whichever is asked. What our
platform spends with nobody asking is taken off: on a busy machine a call takes longer, not more.
"""

import asyncio
import itertools
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

import asyncpg
import httpx
import psutil

from bench.load import Target, send_each
from bench.mlflow_server import API as MLFLOW_API
from bench.mlflow_server import VERSION, MlflowServer, run_mlflow
from bench.platform import RunningPlatform, spent_ms
from maas.embedded.endpoints import find_running
from maas.shared.domain.ids import DEFAULT_TENANT_ID

MODELS: Final = 10_000
PAGE: Final = 50
ROUNDS: Final = 5
CONNECTIONS: Final = 4
"""Fewer than MLflow's pool has connections: past those it opens one for each request."""

REQUESTS: Final = {"get": (1_200, 240), "list": (240, 80), "create": (480, 160)}
GOALS: Final = {"get": 1 / 10, "list": 1 / 6, "create": 1 / 6}
IDLE_SECONDS: Final = 5.0
LOOKS, LOOK_SECONDS = 600, 0.05
DESCRIPTION: Final = "Answers questions of customers, in their language."
RIVAL: Final = f"MLflow {VERSION}"

FILL_OURS: Final = f"""
    INSERT INTO models (id, tenant_id, name, description, framework, visibility, owner_id,
                        created_by, created_at, updated_at, revision)
    SELECT gen_random_uuid(), '{DEFAULT_TENANT_ID}', 'bench-model-' || n, '{DESCRIPTION}',
           'safetensors', 'tenant', id, id, now() - n * interval '1 minute', now(), 1
    FROM generate_series(1, {MODELS}) n, (SELECT id FROM accounts LIMIT 1) creator;
    INSERT INTO model_tags (model_id, tag, tenant_id)
    SELECT id, tag, tenant_id FROM models, unnest('{{chat,support}}'::text[]) tag;
"""  # noqa: S608  no input in it
FILL_THEIRS: Final = f"""
    INSERT INTO registered_models (name, creation_time, last_updated_time, description)
    SELECT 'bench-model-' || n, 1790000000000 + n, 1790000000000 + n, '{DESCRIPTION}'
    FROM generate_series(1, {MODELS}) n;
    INSERT INTO registered_model_tags (name, key, value)
    SELECT name, key, 'yes' FROM registered_models, unnest('{{chat,support}}'::text[]) key;
"""  # noqa: S608  likewise

Call: TypeAlias = Callable[[int], Target]
"""Makes the request of this number; those of `create` differ in the name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cpu:
    """Milliseconds of CPU: of the server's own processes, and of PostgreSQL's."""

    server: float
    postgres: float

    @property
    def total(self) -> float:
        return self.server + self.postgres

    def of(self, seconds: float) -> "Cpu":
        """Take it as that of one second, and tell that of some."""
        return Cpu(server=self.server * seconds, postgres=self.postgres * seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryRow:
    """What a call costs here and there; `goal` is the share of theirs to stay under."""

    name: str
    ours: Cpu
    theirs: Cpu
    goal: float

    @property
    def ratio(self) -> float:
        return self.ours.total / self.theirs.total

    @property
    def is_met(self) -> bool:
        return self.ratio <= self.goal


def measure_registry(platform: RunningPlatform, folder: Path) -> list[RegistryRow]:
    key = _make_key(platform)
    asyncio.run(_fill_ours(platform.data_dir))
    with run_mlflow(platform, folder) as mlflow:
        asyncio.run(_fill_theirs(mlflow))
        meter = _Meter(platform, mlflow)
        ours = _our_calls(platform, key, _our_ids(platform, key))
        return meter.compare(ours, _their_calls(mlflow))


class _Meter:
    """Sends a round of calls to one server, then to the other, and tells what each cost."""

    def __init__(self, platform: RunningPlatform, mlflow: MlflowServer) -> None:
        self._platform = platform
        self._supervisor = psutil.Process(platform.process.pid)
        self._postgres = next(
            child for child in self._supervisor.children() if child.name() == "postgres"
        )
        self._mlflow = mlflow
        self._numbers = itertools.count(1)

    def compare(self, ours: Mapping[str, Call], theirs: Mapping[str, Call]) -> list[RegistryRow]:
        idle = self._measure_idle()
        samples: dict[str, tuple[list[Cpu], list[Cpu]]] = {name: ([], []) for name in ours}
        for round_number in range(ROUNDS + 1):
            for name, (requests, their_requests) in REQUESTS.items():
                our_cpu = self._measure_ours(ours[name], requests, idle)
                their_cpu = self._measure_theirs(theirs[name], their_requests, idle)
                # The first round warms up.
                if round_number:
                    samples[name][0].append(our_cpu)
                    samples[name][1].append(their_cpu)
        return [
            RegistryRow(
                name=name, ours=_median(samples[name][0]), theirs=_median(samples[name][1]),
                goal=goal,
            )
            for name, goal in GOALS.items()
        ]  # fmt: skip

    def _measure_ours(self, call: Call, requests: int, idle: Cpu) -> Cpu:
        """Count until the trail has taken the last event in: that is a part of the call."""
        before, began = self._spent(self._supervisor), time.monotonic()
        asyncio.run(send_each(self._requests(call, requests), connections=CONNECTIONS))
        asyncio.run(wait_for_trail(self._platform.data_dir))
        after, seconds = self._spent(self._supervisor), time.monotonic() - began
        return _per_call(before, after, requests, idle=idle.of(seconds))

    def _measure_theirs(self, call: Call, requests: int, idle: Cpu) -> Cpu:
        """Count its server, and PostgreSQL but for what that does for our own platform."""
        before, began = self._spent(self._mlflow.process), time.monotonic()
        asyncio.run(send_each(self._requests(call, requests), connections=CONNECTIONS))
        after, seconds = self._spent(self._mlflow.process), time.monotonic() - began
        of_ours = Cpu(server=0.0, postgres=idle.of(seconds).postgres)
        return _per_call(before, after, requests, idle=of_ours)

    def _requests(self, call: Call, requests: int) -> list[Target]:
        return [call(next(self._numbers)) for _ in range(requests)]

    def _measure_idle(self) -> Cpu:
        """Tell what our platform spends in a second in which nobody asks it anything."""
        before, began = self._spent(self._supervisor), time.monotonic()
        time.sleep(IDLE_SECONDS)
        after, seconds = self._spent(self._supervisor), time.monotonic() - began
        return Cpu(
            server=(after.server - before.server) / seconds,
            postgres=(after.postgres - before.postgres) / seconds,
        )

    def _spent(self, server: psutil.Process) -> Cpu:
        postgres = spent_ms(self._postgres)
        whole = spent_ms(server)
        has_postgres = server is self._supervisor
        return Cpu(server=whole - postgres if has_postgres else whole, postgres=postgres)


def _per_call(before: Cpu, after: Cpu, calls: int, *, idle: Cpu) -> Cpu:
    """Share out what was spent beyond what would have been with nobody asking."""
    return Cpu(
        server=(after.server - before.server - idle.server) / calls,
        postgres=(after.postgres - before.postgres - idle.postgres) / calls,
    )


def _median(samples: Sequence[Cpu]) -> Cpu:
    return Cpu(
        server=statistics.median(each.server for each in samples),
        postgres=statistics.median(each.postgres for each in samples),
    )


def _our_calls(platform: RunningPlatform, key: str, ids: Sequence[str]) -> dict[str, Call]:
    def make(path: str, body: object = None) -> Target:
        if body is None:
            return Target.get("127.0.0.1", platform.port, f"/api/v1/models{path}", key)
        return Target.post("127.0.0.1", platform.port, "/api/v1/models", body, key)

    listed = make(f"?limit={PAGE}")
    return {
        "get": lambda number: make(f"/{ids[number * 7919 % len(ids)]}"),
        "list": lambda _: listed,
        "create": lambda number: make(
            "",
            {"name": f"new-model-{number}", "framework": "safetensors", "description": DESCRIPTION},
        ),
    }


def _their_calls(mlflow: MlflowServer) -> dict[str, Call]:
    def get(path: str) -> Target:
        return Target.get("127.0.0.1", mlflow.port, f"{MLFLOW_API}/{path}")

    def create(number: int) -> Target:
        body = {"name": f"new-model-{number}", "description": DESCRIPTION}
        return Target.post("127.0.0.1", mlflow.port, f"{MLFLOW_API}/create", body)

    listed = get(f"search?max_results={PAGE}")
    return {
        "get": lambda number: get(f"get?name=bench-model-{1 + number * 7919 % MODELS}"),
        "list": lambda _: listed,
        "create": create,
    }


def _our_ids(platform: RunningPlatform, key: str) -> list[str]:
    """List the models as anybody would, page by page."""
    with httpx.Client(
        base_url=platform.url, headers={"Authorization": f"Bearer {key}"}, trust_env=False
    ) as client:
        return [str(model["id"]) for page in _pages(client) for model in page]


def _pages(client: httpx.Client) -> Iterator[list[dict[str, object]]]:
    cursor = None
    while True:
        wanted = {"limit": "200"} if cursor is None else {"limit": "200", "cursor": cursor}
        page = client.get("/api/v1/models", params=wanted).raise_for_status().json()
        yield page["items"]
        cursor = page["next_cursor"]
        if cursor is None:
            return


def _make_key(platform: RunningPlatform) -> str:
    """Make a key that lasts, as a program would have: sessions are renewed every ten minutes."""
    answer = httpx.post(
        f"{platform.url}/api/v1/users/api-keys",
        json={"name": "registry", "scopes": ["model:read", "model:write"]},
        headers={"Authorization": f"Bearer {platform.sign_in()}"},
    )
    return str(answer.raise_for_status().json()["key"])


async def _fill_ours(data_dir: Path) -> None:
    app = await _connect(data_dir, "MAAS_DATABASE__URL")
    await app.execute(f"SET maas.tenant_id = '{DEFAULT_TENANT_ID}'")
    await app.execute(FILL_OURS)
    await app.close()
    owner = await _connect(data_dir, "MAAS_DATABASE__OWNER_URL")
    await owner.execute("VACUUM ANALYZE models, model_tags")
    await owner.close()


async def _fill_theirs(mlflow: MlflowServer) -> None:
    connection = await mlflow.connect()
    await connection.execute(FILL_THEIRS)
    await connection.execute("VACUUM ANALYZE registered_models, registered_model_tags")
    await connection.close()


async def wait_for_trail(data_dir: Path) -> None:
    connection = await _connect(data_dir, "MAAS_DATABASE__SYSTEM_URL")
    try:
        for _ in range(LOOKS):
            if not await connection.fetchval("SELECT EXISTS (SELECT FROM audit_outbox)"):
                return
            await asyncio.sleep(LOOK_SECONDS)
    finally:
        await connection.close()
    message = "the trail did not take the events in"
    raise TimeoutError(message)


async def _connect(data_dir: Path, variable: str) -> "asyncpg.Connection[asyncpg.Record]":
    running = find_running(data_dir)
    if running is None:
        message = "the platform is not up"
        raise RuntimeError(message)
    url = running.environment()[variable]
    return await asyncpg.connect(url.replace("postgresql+asyncpg", "postgresql"))
