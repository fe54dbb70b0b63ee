"""How full the pools of PostgreSQL are, noted for Prometheus."""

import asyncio
from contextlib import suppress
from typing import Final

from maas.shared.infrastructure.database import Database
from maas.shared.infrastructure.metrics import Metrics

LOOK_SECONDS: Final = 1.0


class PoolWatch:
    """Looks at this process's pools every second.

    A scrape reaches one process only, and the others' pools are nobody else's to read; to count
    where a connection is taken would cost each request.
    """

    def __init__(
        self, database: Database, metrics: Metrics, *, every_seconds: float = LOOK_SECONDS
    ) -> None:
        self._database = database
        self._metrics = metrics
        self._every_seconds = every_seconds
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self.look()
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    def look(self) -> None:
        for pool, use in self._database.pool_use().items():
            self._metrics.pool_seen(pool, used=use.used, idle=use.idle, limit=use.limit)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._every_seconds)
            self.look()
