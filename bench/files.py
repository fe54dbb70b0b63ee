"""Artifacts up and down, beside `cp` and `sha256sum` of the same file."""

import secrets
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import httpx

from bench.platform import RunningPlatform

MIB = 1024 * 1024
SIZE = 512 * MIB
CHUNK = 8 * MIB


@dataclass(frozen=True, slots=True)
class FileRow:
    """One direction; `share` is its throughput over that of `cp` and `sha256sum`."""

    name: str
    seconds: float
    floor_seconds: float
    memory_growth_mib: float

    @property
    def share(self) -> float:
        return self.floor_seconds / self.seconds


def measure_files(platform: RunningPlatform, folder: Path) -> list[FileRow]:
    token = platform.sign_in()
    source = folder / "source.bin"
    with source.open("wb") as file:
        for _ in range(SIZE // CHUNK):
            file.write(secrets.token_bytes(CHUNK))
    floor = min(_copy_and_hash(source, folder / "copy.bin") for _ in range(2))
    api = platform.api_process()
    with httpx.Client(
        base_url=f"{platform.url}/api/v1",
        headers={"Authorization": f"Bearer {token}"},
        timeout=300,
    ) as client:
        model = client.post("/models", json={"name": "bench/file", "framework": "other"})
        path = f"/models/{model.raise_for_status().json()['id']}/versions"
        client.post(path, json={"version": "1"}).raise_for_status()
        target = f"/api/v1{path}/1/files/weights.bin"
        resting = api.memory_info().rss
        up = _curl(platform, token, ["-o", "/dev/null", "-T", str(source)], target)
        after_up = api.memory_info().rss
        down = _curl(platform, token, ["-o", str(folder / "down.bin")], target)
        after_down = api.memory_info().rss
    if _digest(source) != _digest(folder / "down.bin"):
        message = "the file came back changed"
        raise RuntimeError(message)
    return [
        FileRow(f"upload {SIZE // MIB} MiB", up, floor, (after_up - resting) / MIB),
        FileRow(f"download {SIZE // MIB} MiB", down, floor, (after_down - after_up) / MIB),
    ]


def _copy_and_hash(source: Path, copy: Path) -> float:
    began = time.monotonic()
    subprocess.run(["cp", source, copy], check=True)
    subprocess.run(["sha256sum", copy], check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - began


def _curl(platform: RunningPlatform, token: str, options: list[str], path: str) -> float:
    began = time.monotonic()
    subprocess.run(
        [
            "curl", "--fail", "--silent", "--show-error",
            "-H", f"Authorization: Bearer {token}", *options, f"{platform.url}{path}",
        ],
        check=True,
    )  # fmt: skip
    return time.monotonic() - began


def _digest(path: Path) -> str:
    printed = subprocess.run(["sha256sum", path], check=True, capture_output=True, text=True)
    return printed.stdout.split()[0]
