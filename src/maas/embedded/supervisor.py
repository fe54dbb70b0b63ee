"""Keeps servers and children running, with growing pauses for those that keep failing."""

import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from maas.embedded.errors import EmbeddedError
from maas.embedded.logs import LogFile
from maas.embedded.processes import Pulse
from maas.embedded.screen import Screen

_FIRST_PAUSE_SECONDS = 0.2
_LONGEST_PAUSE_SECONDS = 5.0
_STEADY_SECONDS = 10.0
_TAIL_LINES = 5
_ROTATE_SECONDS = 60.0


class Service(Protocol):
    @property
    def title(self) -> str: ...
    @property
    def log(self) -> LogFile: ...

    def start(self, pulse: Pulse, /) -> None:
        """Start it, or raise an EmbeddedError."""

    def has_ended(self) -> bool: ...

    def reap(self) -> int:
        """Clear away what ended, and return its exit code; negative for a signal."""


@dataclass(slots=True)
class _Watched:
    service: Service
    started_at: float
    log_offset: int = 0
    failures: int = 0
    restart_at: float | None = None

    def last_words(self) -> list[str]:
        """Return the end of what it logged since it was last started."""
        return self.service.log.read_since(self.log_offset).splitlines()[-_TAIL_LINES:]


class Supervisor:
    """Restarts after 0.2 s, then after twice as long each time, up to 5 s."""

    def __init__(
        self, *, screen: Screen, pulse: Pulse, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._screen = screen
        self._pulse = pulse
        self._clock = clock
        self._watched: list[_Watched] = []
        self._rotate_at = self._clock() + _ROTATE_SECONDS

    def watch(self, service: Service) -> None:
        """Look after a service that has just been started."""
        self._watched.append(_Watched(service, started_at=self._clock()))

    def failures(self, service: Service) -> int:
        """Return how often it ended without a steady run in between."""
        return sum(each.failures for each in self._watched if each.service is service)

    def look_after_all(self) -> None:
        now = self._clock()
        for watched in self._watched:
            self._look_after(watched, now)
        if now > self._rotate_at:
            self._rotate_at = now + _ROTATE_SECONDS
            for watched in self._watched:
                watched.service.log.rotate()

    def _look_after(self, watched: _Watched, now: float) -> None:
        if watched.restart_at is not None:
            if now >= watched.restart_at:
                self._restart(watched)
        elif watched.service.has_ended():
            what = _describe(watched.service.reap())
            self._schedule(watched, f"{watched.service.title} ended ({what})")
        elif watched.failures and now - watched.started_at > _STEADY_SECONDS:
            watched.failures = 0

    def _schedule(self, watched: _Watched, what: str) -> None:
        pause = min(_FIRST_PAUSE_SECONDS * 2**watched.failures, _LONGEST_PAUSE_SECONDS)
        watched.failures += 1
        watched.restart_at = self._clock() + pause
        log = watched.service.log
        # At the longest pause it would only say the same again and again.
        is_news = pause < _LONGEST_PAUSE_SECONDS
        self._screen.warn(
            f"{what}; starting it again in {pause:.1f} s. Log: {log.path}",
            details=watched.last_words() if is_news else [],
        )

    def _restart(self, watched: _Watched) -> None:
        watched.restart_at = None
        watched.log_offset = watched.service.log.size_bytes
        watched.started_at = self._clock()
        try:
            watched.service.start(self._pulse)
        except EmbeddedError as exc:
            self._schedule(watched, exc.message)
        else:
            self._screen.say(f"{watched.service.title} was started again.")


def _describe(exit_code: int) -> str:
    if exit_code >= 0:
        return f"exit code {exit_code}"
    try:
        return signal.Signals(-exit_code).name
    except ValueError:
        return f"signal {-exit_code}"
