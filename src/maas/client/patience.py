"""How long a command puts up with a line that breaks."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from maas.client.errors import LineBrokenError, TransientError

T = TypeVar("T")

MAX_FAILURES = 8
FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 30.0
LONGEST_WISH_SECONDS = 300.0


def say_nothing(_: str) -> None:
    """Stand in where nobody wants to hear of pauses."""


@dataclass(slots=True, kw_only=True)
class Patience:
    """Counts the failures since something last came through, and waits ever longer after each.

    `notice` is told of each pause.
    """

    notice: Callable[[str], None] = say_nothing
    max_failures: int = MAX_FAILURES
    first_pause_seconds: float = FIRST_PAUSE_SECONDS
    failures: int = 0

    def moved(self) -> None:
        """Start counting anew: something came through."""
        self.failures = 0

    async def wait(self, exc: TransientError) -> None:
        """Wait before the next try.

        Raises:
            LineBrokenError: it failed too often.
        """
        self.failures += 1
        if self.failures >= self.max_failures:
            tries = f"{self.failures} tries" if self.failures > 1 else "one try"
            message = f"Nothing came through in {tries}: {exc.reason}."
            raise LineBrokenError(message) from exc
        pause = min(self.first_pause_seconds * 2 ** (self.failures - 1), LONGEST_PAUSE_SECONDS)
        if exc.retry_after is not None:
            pause = max(pause, min(exc.retry_after, LONGEST_WISH_SECONDS))
        self.notice(f"{exc.reason}; trying again in {pause:.0f} s")
        await asyncio.sleep(pause)

    async def persist(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Try until it works.

        Raises:
            LineBrokenError: as `wait`.
        """
        while True:
            try:
                result = await attempt()
            except TransientError as exc:
                await self.wait(exc)
            else:
                self.moved()
                return result
