"""Places at a target: so many calls at a time, and the others wait in the order they came."""

import asyncio
from collections import OrderedDict


class NoPlaceError(Exception):
    """There was no place; `is_late` if it was waited for."""

    def __init__(self, *, is_late: bool) -> None:
        super().__init__("late" if is_late else "full")
        self.is_late = is_late


class Places:
    """Counts who is at a target, in this process, and keeps the queue for it.

    `take` and `leave` come in pairs. Both counts stay exact when callers are cancelled at any
    moment.
    """

    def __init__(self) -> None:
        self._limit: int | None = None
        self._taken = 0
        # A dict whose first key is popped again and again looks through all those that were.
        self._waiting: OrderedDict[asyncio.Future[None], None] = OrderedDict()

    @property
    def limit(self) -> int | None:
        return self._limit

    @property
    def taken(self) -> int:
        return self._taken

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def is_idle(self) -> bool:
        return not self._taken and not self._waiting

    @property
    def has_place(self) -> bool:
        return (self._limit is None or self._taken < self._limit) and not self._waiting

    def limit_to(self, limit: int | None) -> None:
        """Change how many there are; nobody who has one is sent away."""
        if limit != self._limit:
            self._limit = limit
            self._hand_on()

    async def take(self, *, max_waiting: int, seconds: float) -> None:
        """Take a place, at once or when those who came before have had theirs.

        Raises:
            NoPlaceError: too many wait already, or there was none in time.
        """
        if self.has_place:
            self._taken += 1
            return
        if seconds <= 0 or len(self._waiting) >= max_waiting:
            raise NoPlaceError(is_late=False)
        loop = asyncio.get_running_loop()
        mine: asyncio.Future[None] = loop.create_future()
        self._waiting[mine] = None
        alarm = loop.call_later(seconds, self._send_away, mine)
        try:
            await mine
        except asyncio.CancelledError:
            if mine.done() and not mine.cancelled() and mine.exception() is None:
                # The place was handed over in the moment the caller left.
                self.leave()
            self._waiting.pop(mine, None)
            raise
        finally:
            alarm.cancel()

    def leave(self) -> None:
        self._taken -= 1
        self._hand_on()

    def _hand_on(self) -> None:
        while self._waiting and (self._limit is None or self._taken < self._limit):
            next_one, _ = self._waiting.popitem(last=False)
            if not next_one.done():
                self._taken += 1
                next_one.set_result(None)

    def _send_away(self, late: "asyncio.Future[None]") -> None:
        if not late.done():
            del self._waiting[late]
            late.set_exception(NoPlaceError(is_late=True))
