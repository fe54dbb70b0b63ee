"""When keys were last used, to the minute: noted in memory, and told to PostgreSQL now and then."""

import asyncio
import contextlib
import time
from typing import Final

import structlog

from maas.shared.domain.ids import ApiKeyId
from maas.shared.infrastructure.database import Database

log = structlog.get_logger(__name__)

TOLD_EVERY_SECONDS: Final = 5.0
GRAIN_SECONDS: Final = 60
PATIENCE_SECONDS: Final = 2.0
USED: Final = "SELECT coalesce(array_agg(told), '{}') AS told FROM api_keys_used($1::uuid[]) told"
MAX_REMEMBERED: Final = 100_000


class KeyUses:
    """Collects the keys in use, and tells each once a minute; no request waits for it.

    A process that is killed forgets the uses of its last seconds.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._minute = 0
        self._told: set[ApiKeyId] = set()
        self._untold: set[ApiKeyId] = set()
        self._missed: set[ApiKeyId] = set()
        self._task: asyncio.Task[None] | None = None

    def note(self, key_id: ApiKeyId | None) -> None:
        minute = int(time.monotonic()) // GRAIN_SECONDS
        if minute != self._minute:
            self._minute = minute
            self._told.clear()
        if key_id is None or key_id in self._told or key_id in self._untold:
            return
        if len(self._untold) < MAX_REMEMBERED:
            self._untold.add(key_id)

    def start(self) -> None:
        self._task = asyncio.create_task(self._tell_for_ever(), name="key-uses")

    async def stop(self) -> None:
        """Tell what is left, if PostgreSQL is there to listen."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        await self.tell()

    async def tell(self) -> None:
        """Tell PostgreSQL; what it cannot take now is told the next time."""
        if not self._untold:
            return
        told, self._untold = self._untold, set()
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                row = await self._database.fetchrow(USED, sorted(told))
        except Exception as exc:  # noqa: BLE001  whatever it is, requests go on and so does this
            log.warning("key_uses_not_told", error=type(exc).__name__, keys=len(told))
            self._untold |= told
            return
        done = set() if row is None else {ApiKeyId(key_id) for key_id in row["told"]}
        self._told |= done
        # A key that was just being changed is told once more; one that is gone is let go of.
        missed = told - done
        self._untold |= missed - self._missed
        self._missed = missed

    async def _tell_for_ever(self) -> None:
        while True:
            await asyncio.sleep(TOLD_EVERY_SECONDS)
            await self.tell()
