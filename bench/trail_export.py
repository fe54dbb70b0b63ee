"""Exports of the trail over HTTP: how fast they come, and what they cost those beside them."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import httpx
import psutil

from bench.login import run_probed
from bench.platform import RunningPlatform
from bench.probed import PATH
from maas.audit.application.exports import ExportFormat

ROWS: Final = 1_000_000
FORMATS: Final[tuple[ExportFormat, ...]] = ("ndjson", "csv", "parquet")
GROWTH_GOAL_MIB: Final = 64.0
HOLD_UP_GOAL_MS: Final = 20.0
SAMPLE_SECONDS: Final = 0.02

_MIB: Final = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportRow:
    """One export; `child_mib` is what its process for Parquet had at most."""

    format: ExportFormat
    rows: int
    seconds: float
    size_mib: float
    growth_mib: float
    child_mib: float
    longest_hold_up_ms: float

    @property
    def rate(self) -> float:
        return self.rows / self.seconds

    @property
    def is_met(self) -> bool:
        is_small = self.growth_mib <= GROWTH_GOAL_MIB
        return is_small and self.longest_hold_up_ms <= HOLD_UP_GOAL_MS


@dataclass(slots=True)
class _Memory:
    server: int = 0
    children: int = 0


def measure_exports(platform: RunningPlatform, *, rows: int = ROWS) -> list[ExportRow]:
    """Export that many rows of the trail of the platform, which has to have them."""
    return [_measure(platform, name, rows) for name in FORMATS]


def _measure(platform: RunningPlatform, name: ExportFormat, rows: int) -> ExportRow:
    """Export at a process that has done nothing before."""
    with run_probed(platform.data_dir) as (port, process):
        base = f"http://127.0.0.1:{port}"
        headers = {"Authorization": f"Bearer {platform.sign_in()}"}
        httpx.get(f"{base}{PATH}").raise_for_status()
        httpx.get(f"{base}/api/v1/audit/logs", headers=headers).raise_for_status()
        before, size = process.memory_info().rss, 0
        began = time.perf_counter()
        with (
            _watch_memory(process) as highest,
            httpx.stream(
                "GET", f"{base}/api/v1/audit/logs/export", headers=headers, timeout=60,
                params={"format": name, "upto_seq": str(rows)},
            ) as answer,
        ):  # fmt: skip
            answer.raise_for_status()
            for part in answer.iter_raw():
                size += len(part)
        seconds = time.perf_counter() - began
        longest_ms = httpx.get(f"{base}{PATH}").json()["longest_ms"]
    return ExportRow(
        format=name,
        rows=rows,
        seconds=seconds,
        size_mib=size / _MIB,
        growth_mib=(highest.server - before) / _MIB,
        child_mib=highest.children / _MIB,
        longest_hold_up_ms=longest_ms,
    )


@contextmanager
def _watch_memory(process: psutil.Process) -> Iterator[_Memory]:
    """Note the most that a process and its children have, until the block ends."""
    highest, is_over = _Memory(), threading.Event()

    def watch() -> None:
        while not is_over.wait(SAMPLE_SECONDS):
            highest.server = max(highest.server, process.memory_info().rss)
            children = sum(_memory_of(child) for child in process.children())
            highest.children = max(highest.children, children)

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        yield highest
    finally:
        is_over.set()
        watching.join()


def _memory_of(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.NoSuchProcess:
        return 0
