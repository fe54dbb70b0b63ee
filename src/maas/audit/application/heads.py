"""Noting the newest signed checkpoint where the database cannot reach it."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

import structlog

from maas.audit.domain.checkpoint import SignedCheckpoint
from maas.shared.domain.errors import UnavailableError

log = structlog.get_logger(__name__)


class HeadFile(Protocol):
    """Where heads are noted, in order."""

    def append(self, head: SignedCheckpoint) -> bool:
        """Note a head for good, unless it is the last one already; may block.

        Raises:
            OSError: it cannot be written now.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadService:
    newest: Callable[[], Awaitable[SignedCheckpoint | None]]
    file: HeadFile

    async def export(self) -> bool:
        """Note the newest checkpoint and log it, if it is another one; never raises for an outage.

        Running it again, or twice at once, notes nothing more.
        """
        try:
            head = await self.newest()
            if head is None or not await asyncio.to_thread(self.file.append, head):
                return False
        except UnavailableError as exc:
            log.warning("audit_head_unread", by=exc.code)
            return False
        except OSError as exc:
            log.error("audit_head_unwritten", reason=exc.strerror or type(exc).__name__)  # noqa: TRY400  the reason is all there is to say
            return False
        log.info("audit_head", **head.to_mapping())
        return True
