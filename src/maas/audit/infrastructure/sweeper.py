"""Flushes where no tick does: without a broker there is none, and the trail must still move.

One of many sweeps at a time. Everything it opens is its own, and opened anew after an error.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import asyncpg
import structlog

from maas.audit.application.events import QueuedEvent
from maas.audit.application.flush import FlushReport, FlushService, LogUnavailableError
from maas.audit.infrastructure.outbox import insert_events
from maas.audit.infrastructure.spool import drain_abandoned
from maas.shared.domain.errors import UnavailableError

INTERVAL_SECONDS: Final = 2.0
LONGEST_PAUSE_SECONDS: Final = 5.0
STALE_SECONDS: Final = 5.0
"""What has waited for longer has had its ticks, and none came."""

IDLE_IN_TRANSACTION_MS: Final = 60_000
"""Longer than a flush takes: all that while the lock's transaction does nothing."""

_LOCK: Final = "SELECT pg_try_advisory_xact_lock(hashtextextended('maas.audit_sweep', 0))"
_IS_STALE: Final = """
    SELECT EXISTS (SELECT FROM audit_outbox
        WHERE created_at < clock_timestamp() - make_interval(secs => $1))
"""

log = structlog.get_logger(__name__)


class Sweeper:
    def __init__(
        self,
        arguments: dict[str, Any],
        *,
        flush: FlushService,
        folder: Path,
        stream_age: Callable[[], Awaitable[float]],
    ) -> None:
        """`stream_age` tells for how many seconds the stream's oldest entry has waited."""
        server_settings = {
            **arguments["server_settings"],
            "application_name": "maas-sweep",
            "idle_in_transaction_session_timeout": str(IDLE_IN_TRANSACTION_MS),
        }
        self._arguments = {**arguments, "server_settings": server_settings}
        self._flush = flush
        self._folder = folder
        self._stream_age = stream_age

    async def run(self) -> None:
        """Sweep until cancelled; no error ends it."""
        pause = INTERVAL_SECONDS
        while True:
            await asyncio.sleep(pause)
            pause = INTERVAL_SECONDS
            try:
                await self.sweep()
            except UnavailableError as exc:
                log.warning("audit_sweep_put_off", by=exc.code)
                pause = LONGEST_PAUSE_SECONDS
            except Exception:
                # Nobody would start it again, and then a dead broker would stop the trail.
                log.exception("audit_sweep_failed")
                pause = LONGEST_PAUSE_SECONDS

    async def sweep(self) -> FlushReport | None:
        """Empty the spools of processes that are gone, and flush what no tick has flushed.

        Returns nothing where nothing was stale, or another sweep is under way.

        Raises:
            LogUnavailableError: PostgreSQL does not answer.
        """
        drained = await drain_abandoned(self._folder, self._keep)
        if drained:
            log.info("audit_spool_drained", events=drained)
        async with self._connected() as connection, connection.transaction():
            if not await self._is_stale(connection) or not await connection.fetchval(_LOCK):
                return None
            report = await self._flush.run(outbox_first=True)
        log.info("audit_swept", written=report.written, repeated=report.repeated)
        return report

    async def _is_stale(self, connection: "asyncpg.Connection[asyncpg.Record]") -> bool:
        if await connection.fetchval(_IS_STALE, STALE_SECONDS):
            return True
        return await self._stream_age() > STALE_SECONDS

    async def _keep(self, events: Sequence[QueuedEvent]) -> None:
        async with self._connected() as connection:
            await insert_events(connection, events)

    @asynccontextmanager
    async def _connected(self) -> "AsyncIterator[asyncpg.Connection[asyncpg.Record]]":
        # For one sweep each: children that the worker forks meanwhile would otherwise hold
        # a connection open whose owner was killed, and with it the lock.
        try:
            connection = await asyncpg.connect(**self._arguments)
            try:
                yield connection
            finally:
                await connection.close(timeout=1)
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as exc:
            raise LogUnavailableError(type(exc).__name__) from exc
