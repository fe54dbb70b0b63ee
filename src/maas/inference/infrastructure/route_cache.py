"""What is read once for everybody who asks within a moment."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class _Reading(Generic[V]):
    begun: float
    task: "asyncio.Task[V]"


class SharedReads(Generic[K, V]):
    """Reads each key at most once at a time, and shares what was read for `seconds`.

    The age of an answer counts from before it was asked for, so that nobody is given one older than
    that. What failed is shared with those who waited for it, and with nobody else; nothing older is
    given in its place. At most `max_entries` are kept, whatever is asked for.
    """

    def __init__(
        self,
        read: Callable[[K], Awaitable[V]],
        *,
        seconds: float,
        max_entries: int,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._read = read
        self._seconds = seconds
        self._max_entries = max_entries
        self._now = now
        self._readings: dict[K, _Reading[V]] = {}

    def __len__(self) -> int:
        return len(self._readings)

    async def get(self, key: K) -> V:
        reading = self._readings.get(key)
        if reading is None or self._now() - reading.begun >= self._seconds:
            reading = self._begin(key)
        if reading.task.done():
            return reading.task.result()
        # Whoever began it may leave; the others still wait for it.
        return await asyncio.shield(reading.task)

    def _begin(self, key: K) -> _Reading[V]:
        begun = self._now()
        self._make_room(begun)
        reading = _Reading(begun, asyncio.ensure_future(self._run(key)))
        self._readings[key] = reading

        def forget_failure(task: "asyncio.Task[V]") -> None:
            failed = task.cancelled() or task.exception() is not None
            if failed and self._readings.get(key) is reading:
                del self._readings[key]

        reading.task.add_done_callback(forget_failure)
        return reading

    async def _run(self, key: K) -> V:
        return await self._read(key)

    def _make_room(self, now: float) -> None:
        if len(self._readings) < self._max_entries:
            return
        old = [key for key, each in self._readings.items() if now - each.begun >= self._seconds]
        for key in old or list(self._readings)[: self._max_entries // 2]:
            del self._readings[key]
