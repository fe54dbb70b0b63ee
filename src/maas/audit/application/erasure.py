"""Erasing what the trail knows of a person who is gone; the events and their hashes stay."""

import time
from dataclasses import dataclass
from typing import Final, Protocol

import structlog

from maas.shared.domain.errors import UnavailableError

RUN_SECONDS: Final = 20.0
SLICE: Final = 2_000
"""Events looked at in one transaction."""

log = structlog.get_logger(__name__)


class PersonalFields(Protocol):
    """The personal fields beside the log, as the erasure sees them."""

    async def erase_slice(self, limit: int) -> int | None:
        """Erase the next few of whoever waits longest, with an event of it, in one transaction.

        Returns how many were erased; `None` if nobody waits, or others see to them.

        Raises:
            UnavailableError: the database does not answer; what was erased stays erased.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ErasureService:
    personal: PersonalFields
    slice_size: int = SLICE

    async def run(self) -> int:
        """Go on for 20 s at most and tell how many rows went; never raises for an outage.

        A lost or doubled run is harmless: how far each erasure has come stands in the database.
        """
        erased, until = 0, time.monotonic() + RUN_SECONDS
        try:
            while time.monotonic() < until:
                done = await self.personal.erase_slice(self.slice_size)
                if done is None:
                    break
                erased += done
        except UnavailableError as exc:
            log.warning("audit_erasure_interrupted", by=exc.code, erased=erased)
        return erased
