"""A pool of connections that serves who waits in the order in which they came.

asyncio's queue wakes who waits longest, but whoever asks before that one runs takes what it was
woken for, and sends it to the end of the line: in a crowd a few wait many times as long as others.
"""

import asyncio
from collections import deque
from functools import cached_property
from typing import TypeVar

from sqlalchemy.pool import AsyncAdaptedQueuePool, ConnectionPoolEntry
from sqlalchemy.util.queue import AsyncAdaptedQueue
from typing_extensions import override

T = TypeVar("T")


class FairQueue(asyncio.Queue[T]):
    """Hands what is put to who waits longest, so that it cannot be taken by another."""

    def __init__(self, maxsize: int = 0) -> None:
        super().__init__(maxsize)
        self._line: deque[asyncio.Future[T]] = deque()

    @override
    def put_nowait(self, item: T) -> None:
        while self._line:
            first = self._line.popleft()
            if not first.done():
                first.set_result(item)
                return
        super().put_nowait(item)

    @override
    async def get(self) -> T:
        if not self.empty():
            return self.get_nowait()
        place: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._line.append(place)
        try:
            return await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                self.put_nowait(place.result())
            raise


class _FairAdaptedQueue(AsyncAdaptedQueue[ConnectionPoolEntry]):
    # Made at its first use, as the base class does, for the loop that runs then.
    @cached_property
    @override
    def _queue(self) -> FairQueue[ConnectionPoolEntry]:
        return FairQueue(self.maxsize)


class FairPool(AsyncAdaptedQueuePool):
    _queue_class = _FairAdaptedQueue  # type: ignore[mutable-override]  # never assigned again
