"""The watch: from where it stopped to the log's end, slice by slice."""

import time
from dataclasses import dataclass
from typing import Final, Protocol

RUN_SECONDS: Final = 8.0
SLICE_EVENTS: Final = 2_000


@dataclass(frozen=True, slots=True)
class Watched:
    """What a slice was: how many events, how many alerts."""

    events: int
    alerts: int


class WatchedLog(Protocol):
    async def watch_slice(self, limit: int) -> Watched | None:
        """Judge the next events: alerts, their deliveries and the place reached are one commit.

        `None` if another watch is under way.

        Raises:
            LogUnavailableError: PostgreSQL does not answer.
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

    async def run(self) -> int:
        """Watch what is new, for 8 s at most, and tell how many alerts there were."""
        alerts, until = 0, time.monotonic() + self.run_seconds
        while True:
            watched = await self.log.watch_slice(self.slice_events)
            if watched is None:
                return alerts
            alerts += watched.alerts
            if watched.events < self.slice_events or time.monotonic() >= until:
                break
        await self.log.forget()
        return alerts
