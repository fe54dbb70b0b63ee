"""The watch: from where it stopped to the log's end, slice by slice."""

import time
from dataclasses import dataclass
from typing import Final, Protocol

RUN_SECONDS: Final = 8.0
SLICE_EVENTS: Final = 16_000
FIRST_SLICE_EVENTS: Final = 250
SLICE_SECONDS: Final = 4.0

_SMALLER: Final = 8
"""So much smaller is a slice after one that took too long: few attempts must do for a run."""


class SliceTooLongError(Exception):
    """A slice was given up, with all it had done, since its time was up."""


@dataclass(frozen=True, slots=True)
class Watched:
    """What a slice was: how many events, how many alerts."""

    events: int
    alerts: int


class WatchedLog(Protocol):
    async def watch_slice(self, limit: int, *, patience: float | None) -> Watched | None:
        """Judge the next events: alerts, their deliveries and the place reached are one commit.

        `None` if another watch is under way. `patience` is in seconds.

        Raises:
            LogUnavailableError: PostgreSQL does not answer.
            SliceTooLongError: it took longer than `patience`, and nothing of it had happened.
        """
        ...

    async def forget(self) -> None:
        """Drop what is too old to add up with anything."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchService:
    log: WatchedLog
    slice_events: int = SLICE_EVENTS
    run_seconds: float = RUN_SECONDS
    slice_seconds: float = SLICE_SECONDS

    async def run(self) -> int:
        """Watch what is new, for 8 s at most, and tell how many alerts there were.

        Slices begin small and grow while they are quick, so that no events, whatever they cost,
        are tried again for ever. One event alone takes what it takes.
        """
        alerts, until = 0, time.monotonic() + self.run_seconds
        limit = min(FIRST_SLICE_EVENTS, self.slice_events)
        while True:
            begun = time.monotonic()
            patience = self.slice_seconds if limit > 1 else None
            try:
                watched = await self.log.watch_slice(limit, patience=patience)
            except SliceTooLongError:
                limit = max(1, limit // _SMALLER)
                continue
            if watched is None:
                return alerts
            alerts += watched.alerts
            now = time.monotonic()
            if watched.events < limit or now >= until:
                break
            is_quick = now - begun < self.slice_seconds / 4
            limit = min(limit * 2, self.slice_events) if is_quick else max(1, limit // 2)
        await self.log.forget()
        return alerts
