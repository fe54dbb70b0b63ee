"""Taking turns inside one process, before anything scarce is held."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary

from maas.shared.domain.ids import SessionId


class SessionTurns:
    """Lets one caller at a time through for each session, in the order they came.

    PostgreSQL decides who is first among processes; here it is decided who may ask it. Else the
    uses of one token at once would wait for its row with every connection of the pool, and
    everybody else for them.
    """

    def __init__(self) -> None:
        # A lock lives for as long as somebody waits for it.
        self._locks: WeakValueDictionary[SessionId, asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def turn(self, session_id: SessionId) -> AsyncIterator[None]:
        lock = self._locks.setdefault(session_id, asyncio.Lock())
        async with lock:
            yield
