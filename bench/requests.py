"""CPU per request of the API process, beside a bare FastAPI route, in interleaved rounds."""

import asyncio
import statistics
from dataclasses import dataclass

import httpx
import psutil

from bench.keyed import PATH
from bench.load import Target, send
from bench.login import run_probed
from bench.platform import RunningPlatform, run_bare

ROUNDS = 7
REQUESTS = 3200
KEYED = "a route by API key, no row"
KEYED_GOAL = 3.0


@dataclass(frozen=True, slots=True)
class RequestRow:
    """One route's CPU a request, in microseconds; `goal` is the ratio to stay under."""

    name: str
    cpu_us: float
    bare_us: float
    goal: float

    @property
    def ratio(self) -> float:
        return self.cpu_us / self.bare_us


def measure_requests(platform: RunningPlatform) -> list[RequestRow]:
    token = platform.sign_in()
    model = _create_model(platform, token)
    api = platform.api_process()
    paths = {
        "GET /health/live": ("/health/live", None, 1.25),
        "GET /api/v1/users/profile": ("/api/v1/users/profile", token, 4.0),
        "GET /api/v1/models/{id}": (f"/api/v1/models/{model}", token, 6.0),
    }
    key = _create_key(platform, token)
    with (
        run_bare() as (bare_port, bare),
        run_probed(platform.data_dir, "bench.keyed:make_app") as (keyed_port, keyed),
    ):
        floor = Target.get("127.0.0.1", bare_port, "/bare")
        targets = {
            name: Target.get("127.0.0.1", platform.port, path, credential)
            for name, (path, credential, _) in paths.items()
        }
        targets[KEYED] = Target.get("127.0.0.1", keyed_port, PATH, key)
        floors: list[float] = []
        samples: dict[str, list[float]] = {name: [] for name in targets}
        for round_number in range(ROUNDS + 1):
            warm_up = round_number == 0
            floor_us = _cpu_us(floor, bare)
            for name, target in targets.items():
                cpu_us = _cpu_us(target, keyed if name == KEYED else api)
                if not warm_up:
                    samples[name].append(cpu_us)
            if not warm_up:
                floors.append(floor_us)
    bare_us = statistics.median(floors)
    goals = {**{name: goal for name, (_, _, goal) in paths.items()}, KEYED: KEYED_GOAL}
    return [
        RequestRow(name, statistics.median(samples[name]), bare_us, goal)
        for name, goal in goals.items()
    ]


def _cpu_us(target: Target, process: psutil.Process) -> float:
    before = process.cpu_times()
    asyncio.run(send(target, requests=REQUESTS))
    after = process.cpu_times()
    spent = (after.user - before.user) + (after.system - before.system)
    return spent / REQUESTS * 1e6


def _create_model(platform: RunningPlatform, token: str) -> str:
    answer = httpx.post(
        f"{platform.url}/api/v1/models",
        json={"name": "bench/model", "framework": "safetensors"},
        headers={"Authorization": f"Bearer {token}"},
    )
    return str(answer.raise_for_status().json()["id"])


def _create_key(platform: RunningPlatform, token: str) -> str:
    answer = httpx.post(
        f"{platform.url}/api/v1/users/api-keys",
        json={"name": "bench", "scopes": ["model:read"]},
        headers={"Authorization": f"Bearer {token}"},
    )
    return str(answer.raise_for_status().json()["key"])
