"""Sign-ins beside bare argon2id, and how long they hold up the event loop."""

import asyncio
import secrets
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
from passlib.hash import argon2

from bench.load import Target, send
from bench.platform import RunningPlatform, environment, free_port, wait_until_answering
from bench.probed import PATH
from maas.embedded.endpoints import find_running
from maas.shared.infrastructure.auth_settings import AuthSettings

ROUNDS = 3
SIGN_INS = 80
THREADS = 2
PEOPLE = 4

SHARE_GOAL = 0.9
HOLD_UP_GOAL_MS = 20.0


@dataclass(frozen=True, slots=True)
class LoginRow:
    """CPU of the API process and rate of sign-ins, each beside what bare hashing comes to."""

    cpu_ms: float
    bare_cpu_ms: float
    rate: float
    bare_rate: float
    longest_hold_up_ms: float

    @property
    def cpu_share(self) -> float:
        return self.bare_cpu_ms / self.cpu_ms

    @property
    def rate_share(self) -> float:
        return self.rate / self.bare_rate


@dataclass(frozen=True, slots=True)
class _Sample:
    cpu_ms: float
    rate: float


def measure_logins(platform: RunningPlatform) -> LoginRow:
    people = _make_people(platform)
    bare: list[_Sample] = []
    served: list[_Sample] = []
    for round_number in range(ROUNDS + 1):
        samples = _hash_bare(), _sign_in(platform.port, people, platform.api_process())
        # The first one warms up.
        if round_number:
            bare.append(samples[0])
            served.append(samples[1])
    return LoginRow(
        cpu_ms=statistics.median(sample.cpu_ms for sample in served),
        bare_cpu_ms=statistics.median(sample.cpu_ms for sample in bare),
        rate=statistics.median(sample.rate for sample in served),
        bare_rate=statistics.median(sample.rate for sample in bare),
        longest_hold_up_ms=_measure_hold_up(platform, people),
    )


def _make_people(platform: RunningPlatform) -> list[dict[str, str]]:
    """Make several, for one person's sign-ins wait for one another's lock."""
    people = []
    headers = {"Authorization": f"Bearer {platform.sign_in()}"}
    for _ in range(PEOPLE):
        name, password = f"bench-{secrets.token_hex(4)}", secrets.token_urlsafe(24)
        body = {"username": name, "email": f"{name}@example.com", "password": password}
        url = f"{platform.url}/api/v1/admin/users"
        httpx.post(url, json={**body, "roles": ["user"]}, headers=headers).raise_for_status()
        people.append({"username": name, "password": password})
    return people


def _hash_bare() -> _Sample:
    fields = AuthSettings.model_fields
    hasher = argon2.using(  # type: ignore[no-untyped-call]  # the stubs leave it open
        type="ID",
        time_cost=fields["argon2_time_cost"].default,
        memory_cost=fields["argon2_memory_kib"].default,
        parallelism=1,
    )
    hashed = hasher.hash("a password like any other")
    process = psutil.Process()
    with ThreadPoolExecutor(THREADS) as pool:
        began, before = time.perf_counter(), process.cpu_times()
        list(pool.map(lambda word: hasher.verify(word, hashed), ["not this one"] * SIGN_INS))
        return _sample(began, before, process)


def _sign_in(port: int, people: list[dict[str, str]], process: psutil.Process) -> _Sample:
    targets = [Target.post("127.0.0.1", port, "/api/v1/auth/login", person) for person in people]

    async def everybody() -> None:
        each = SIGN_INS // len(targets)
        await asyncio.gather(*(send(one, requests=each, connections=1) for one in targets))

    began, before = time.perf_counter(), process.cpu_times()
    asyncio.run(everybody())
    return _sample(began, before, process)


def _sample(began: float, before: "psutil._ntuples.pcputimes", process: psutil.Process) -> _Sample:
    took, after = time.perf_counter() - began, process.cpu_times()
    spent = (after.user - before.user) + (after.system - before.system)
    return _Sample(cpu_ms=spent / SIGN_INS * 1000, rate=SIGN_INS / took)


def _measure_hold_up(platform: RunningPlatform, people: list[dict[str, str]]) -> float:
    """Sign in, and choose a password, at a process that has done nothing before."""
    with run_probed(platform.data_dir) as (port, process):
        base = f"http://127.0.0.1:{port}"
        httpx.get(f"{base}{PATH}").raise_for_status()
        _sign_in(port, people, process)
        token = httpx.post(f"{base}/api/v1/auth/login", json=people[0]).json()["access_token"]
        answer = httpx.post(
            f"{base}/api/v1/users/password",
            json={
                "current_password": people[0]["password"],
                "new_password": secrets.token_urlsafe(24),
            },
            headers={"Authorization": f"Bearer {token}"},
        )
        answer.raise_for_status()
        return float(httpx.get(f"{base}{PATH}").json()["longest_ms"])


@contextmanager
def run_probed(
    data_dir: Path, application: str = "bench.probed:make_app"
) -> Iterator[tuple[int, psutil.Process]]:
    """Serve the platform's application once more, on the same servers, with something added."""
    running = find_running(data_dir)
    if running is None:
        message = "the platform is not up"
        raise RuntimeError(message)
    port = free_port()
    process = subprocess.Popen(
        [
            sys.executable, "-m", "uvicorn", application, "--factory", "--port",
            str(port), "--loop", "uvloop", "--http", "httptools", "--no-access-log",
            "--log-level", "warning",
        ],
        env={**environment(data_dir), **running.environment()},
        cwd=Path(__file__).resolve().parent.parent,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_until_answering(f"http://127.0.0.1:{port}/health/ready", process)
        yield port, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(30)
