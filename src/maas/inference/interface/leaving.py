"""Noticing that a caller has left, while there is still something to be saved by it."""

import asyncio
from typing import Final

from starlette.types import Receive

LOOK_AFTER_SECONDS: Final = 0.2
"""Most calls are over by then, and are spared a task of their own."""


class Presence:
    """Whether a caller is there, as far as anybody noticed."""

    __slots__ = ("is_gone",)

    def __init__(self) -> None:
        self.is_gone = False

    def is_there(self) -> bool:
        return not self.is_gone


class LeaveWatch:
    """Cancels the task it was made in when the caller leaves; `stop()` it.

    It is to be made once the request's body was read.
    """

    __slots__ = ("_receive", "_serving", "_timer", "_watching", "presence")

    def __init__(
        self,
        receive: Receive,
        presence: Presence | None = None,
        *,
        after: float = LOOK_AFTER_SECONDS,
    ) -> None:
        serving = asyncio.current_task()
        assert serving is not None  # noqa: S101  whoever serves does so in a task
        self.presence = presence or Presence()
        self._receive = receive
        self._serving = serving
        self._watching: asyncio.Task[None] | None = None
        self._timer = asyncio.get_running_loop().call_later(after, self._begin)

    def resume(self) -> None:
        """Notice again, after a `stop`, that the caller leaves, or has left."""
        self.stop()
        self._begin()

    def stop(self) -> None:
        """Let the caller leave unnoticed from now on."""
        self._timer.cancel()
        if self._watching is not None:
            self._watching.cancel()
            # Its error would hold this watch, and the request with it.
            self._watching = None

    def is_why_cancelled(self) -> bool:
        """Tell whether a cancellation was this watch's alone, which is then taken back."""
        return self.presence.is_gone and self._serving.uncancel() == 0

    def give_up(self) -> None:
        """Take it that the caller has left; a second cancellation would pass for a stop."""
        if self.presence.is_gone:
            return
        self.presence.is_gone = True
        self._serving.cancel()

    def _begin(self) -> None:
        self._watching = asyncio.get_running_loop().create_task(self._watch())

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.give_up()
