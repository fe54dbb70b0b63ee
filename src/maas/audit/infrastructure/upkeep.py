"""What every process that records does beside its requests: empty its spool, tell what is wrong."""

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Final

import structlog

from maas.audit.infrastructure.backlog import BacklogWatch
from maas.audit.infrastructure.recorder import AuditRecorder
from maas.audit.infrastructure.spool import Deliver, Spool, drain_abandoned
from maas.shared.domain.errors import UnavailableError

INTERVAL_SECONDS: Final = 5.0
LAST_WORD_SECONDS: Final = 1.0

log = structlog.get_logger(__name__)


class Upkeep:
    """Takes a turn at once and every five seconds, from `start` to `stop`; no error ends it."""

    def __init__(
        self,
        *,
        spool: Spool | None,
        folder: Path | None,
        keep: Deliver,
        recorder: AuditRecorder,
        watch: BacklogWatch,
    ) -> None:
        self._spool = spool
        self._folder = folder
        self._keep = keep
        self._recorder = recorder
        self._watch = watch
        self._running: asyncio.Task[None] | None = None
        self._is_stopping = False

    def start(self) -> None:
        self._running = asyncio.create_task(self._run())

    async def stop(self) -> None:
        # Clients of servers may swallow the one cancellation there is.
        self._is_stopping = True
        if self._running is not None:
            self._running.cancel()
            with suppress(asyncio.CancelledError):
                await self._running
        # The count is a number in memory: nobody could report it later.
        with suppress(UnavailableError, TimeoutError):
            async with asyncio.timeout(LAST_WORD_SECONDS):
                await self._recorder.report_gap()

    async def turn(self) -> None:
        """Drain, report and look once; what is down stays for the next turn."""
        try:
            drained = await self._drain()
            if drained:
                log.info("audit_spool_drained", events=drained)
            await self._recorder.report_gap()
        except UnavailableError as exc:
            log.warning("audit_upkeep_put_off", by=exc.code)
        await self._watch.look()

    async def _drain(self) -> int:
        drained = 0
        if self._spool is not None and self._spool.has_content:
            drained += await self._spool.drain(self._keep)
        if self._folder is not None:
            drained += await drain_abandoned(self._folder, self._keep)
        return drained

    async def _run(self) -> None:
        while not self._is_stopping:
            try:
                await self.turn()
            except Exception:
                # The trail must go on being seen to, whatever went wrong in one turn.
                log.exception("audit_upkeep_failed")
            if not self._is_stopping:
                await asyncio.sleep(INTERVAL_SECONDS)
