"""Artifacts up and down, in turns with `cp` and `sha256sum` of the same file.

The floor does not wait for the disk; an upload does, part by part. In CPU, the API's process is
held against `cp` and `sha256sum`; the client's part, `curl`'s, is on neither side. What S3 takes is
mostly that server's time, so there the CPU alone is judged.
"""

import os
import resource
import secrets
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil

from bench.platform import RunningPlatform, run_platform
from tests.moto_server import run_moto

MIB = 1024 * 1024
SIZE = 1024 * MIB
S3_SIZE = 512 * MIB
CHUNK = 8 * MIB
ROUNDS = 3
LOOK_SECONDS = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Took:
    seconds: float
    cpu_seconds: float
    growth_mib: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactRow:
    """One direction; shares are the floor's time over ours, so more is better."""

    name: str
    seconds: float
    cpu_seconds: float
    wall_share: float
    cpu_share: float
    memory_growth_mib: float
    is_wall_ours: bool

    @property
    def share(self) -> float:
        """What the goal is about."""
        return min(self.wall_share, self.cpu_share) if self.is_wall_ours else self.cpu_share


@dataclass(slots=True)
class _Client:
    """Somebody with a version to put files into, and the process that is watched meanwhile."""

    platform: RunningPlatform
    token: str = ""
    version: str = ""
    api: psutil.Process = field(init=False)
    resting: int = 0

    def __post_init__(self) -> None:
        self.token = self.platform.sign_in()
        with httpx.Client(
            base_url=f"{self.platform.url}/api/v1",
            headers={"Authorization": f"Bearer {self.token}"},
        ) as client:
            new = {"name": f"bench/{secrets.token_hex(4)}", "framework": "other"}
            model = client.post("/models", json=new).raise_for_status().json()["id"]
            versions = f"/models/{model}/versions"
            client.post(versions, json={"version": "1"}).raise_for_status()
        self.version = f"/api/v1{versions}/1/files"
        self.api = self.platform.api_process()
        self.resting = self.api.memory_info().rss

    def send(self, source: Path, name: str) -> Took:
        return self._transfer(["-o", "/dev/null", "-T", str(source)], name)

    def fetch(self, name: str, target: Path) -> Took:
        return self._transfer(["-o", str(target)], name)

    def _transfer(self, options: list[str], name: str) -> Took:
        before = self.api.cpu_times()
        with _peak_of(self.api) as peak:
            began = time.monotonic()
            _run(
                "curl", "--fail", "--silent", "--show-error",
                "-H", f"Authorization: Bearer {self.token}", *options,
                f"{self.platform.url}{self.version}/{name}",
            )  # fmt: skip
            seconds = time.monotonic() - began
        after = self.api.cpu_times()
        return Took(
            seconds=seconds,
            cpu_seconds=after.user + after.system - before.user - before.system,
            growth_mib=(peak() - self.resting) / MIB,
        )


def measure_artifacts(platform: RunningPlatform, folder: Path) -> list[ArtifactRow]:
    """Measure the platform's local folder, and a platform of its own on an S3 server."""
    source = folder / "source.bin"
    rows = _rows("folder", _Client(platform), source, size=SIZE)
    with (
        run_moto(folder / "moto") as server,
        run_platform(folder / "s3", cwd=None, **server.environment) as other,
    ):
        rows += _rows("S3", _Client(other), source, size=S3_SIZE)
    return rows


def _rows(store: str, client: _Client, source: Path, *, size: int) -> list[ArtifactRow]:
    floors, ups, downs = [], [], []
    copy, fetched = source.with_suffix(".copy"), source.with_suffix(".down")
    _fill(source, size)
    for number in range(ROUNDS):
        # Other bytes each time: those that are there already would not be kept twice.
        with source.open("r+b") as file:
            file.write(secrets.token_bytes(MIB))
        name = f"{number}.bin"
        floors.append(_copy_and_hash(source, copy))
        ups.append(client.send(source, name))
        downs.append(client.fetch(name, fetched))
        _run("cmp", source, fetched)
        fetched.unlink()
    return [
        _row(f"{what} {size // MIB} MiB, {store}", taken, floors, is_wall_ours=store == "folder")
        for what, taken in (("up", ups), ("down", downs))
    ]


def _row(name: str, taken: list[Took], floors: list[Took], *, is_wall_ours: bool) -> ArtifactRow:
    def middle(of: list[Took], what: Callable[[Took], float]) -> float:
        return statistics.median(map(what, of))

    seconds, cpu = middle(taken, lambda t: t.seconds), middle(taken, lambda t: t.cpu_seconds)
    return ArtifactRow(
        name=name,
        seconds=seconds,
        cpu_seconds=cpu,
        wall_share=middle(floors, lambda t: t.seconds) / seconds,
        cpu_share=middle(floors, lambda t: t.cpu_seconds) / cpu,
        memory_growth_mib=max(each.growth_mib for each in taken),
        is_wall_ours=is_wall_ours,
    )


def _fill(source: Path, size: int) -> None:
    with source.open("wb") as file:
        for _ in range(size // CHUNK):
            file.write(secrets.token_bytes(CHUNK))
        os.fsync(file.fileno())


def _copy_and_hash(source: Path, copy: Path) -> Took:
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    _run("cp", source, copy)
    _run("sha256sum", copy)
    seconds, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    copy.unlink()
    return Took(
        seconds=seconds,
        cpu_seconds=after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
    )


def _run(*command: object) -> None:
    subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL)


@contextmanager
def _peak_of(process: psutil.Process) -> Iterator[Callable[[], int]]:
    """Watch how large the process gets in this block; what is given tells it afterwards."""
    peak, is_over = 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not is_over.wait(LOOK_SECONDS):
            peak = max(peak, process.memory_info().rss)

    watching = threading.Thread(target=watch, daemon=True)
    watching.start()
    try:
        yield lambda: peak
    finally:
        is_over.set()
        watching.join()
