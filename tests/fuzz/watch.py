"""What the API process holds while it is fuzzed: memory, descriptors, connections."""

import time
from dataclasses import dataclass
from typing import Final

import psutil

from tests.acceptance.platforms import Platform

WARM: Final = 0.1
"""This share of the requests warms it up: caches fill, and every path has run once."""
SETTLE_SECONDS: Final = 10.0
MIB: Final = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    memory_mib: float
    descriptors: int
    connections: int
    """Backends of PostgreSQL, of all processes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    idle: Held
    warm: Held
    after: Held


class Watch:
    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._api = platform.of_role("serve")[-1]
        self._idle = self._held()
        self._warm: Held | None = None

    def look(self, share: float) -> None:
        if self._warm is None and share >= WARM:
            self._warm = self._held()

    def settle(self) -> Figures:
        """Wait until what was opened for the requests is closed again, and tell what is left."""
        deadline = time.monotonic() + SETTLE_SECONDS
        after = self._held()
        while after.descriptors > self._idle.descriptors and time.monotonic() < deadline:
            time.sleep(0.5)
            after = self._held()
        return Figures(idle=self._idle, warm=self._warm or self._idle, after=after)

    def _held(self) -> Held:
        postgres = self._platform.of_role("postgres")
        children = [each for one in postgres for each in one.children()]
        backends = [each for each in children if "maas" in _words_of(each)]
        return Held(
            memory_mib=self._api.memory_info().rss / MIB,
            descriptors=self._api.num_fds(),
            connections=len(backends),
        )


def _words_of(process: psutil.Process) -> str:
    """Tell what a process is called; one that has just ended is called nothing."""
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""
