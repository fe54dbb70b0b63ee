"""Places at a target: so many calls at a time, while the others wait, tenant by tenant in turn."""

import asyncio
from collections import OrderedDict
from typing import TypeAlias

from maas.shared.domain.ids import TenantId

_Line: TypeAlias = "OrderedDict[asyncio.Future[None], None]"


class NoPlaceError(Exception):
    """There was no place; `is_late` if it was waited for."""

    def __init__(self, *, is_late: bool) -> None:
        super().__init__("late" if is_late else "full")
        self.is_late = is_late


class Places:
    """Counts who is at a target, in this process, and keeps the queue for it.

    Each tenant has a line of its own, in the order its calls came, and lines have their turns one
    after another. In a full queue the longest line makes room for a shorter one.

    `take` and `leave` come in pairs. Both counts stay exact when callers are cancelled at any
    moment.
    """

    def __init__(self) -> None:
        self._limit: int | None = None
        self._taken = 0
        # A dict whose first key is popped again and again looks through all those that were.
        self._lines: OrderedDict[TenantId | None, _Line] = OrderedDict()

    @property
    def limit(self) -> int | None:
        return self._limit

    @property
    def taken(self) -> int:
        return self._taken

    @property
    def waiting(self) -> int:
        return sum(map(len, self._lines.values()))

    @property
    def is_idle(self) -> bool:
        return not self._taken and not self._lines

    @property
    def has_place(self) -> bool:
        return (self._limit is None or self._taken < self._limit) and not self._lines

    def limit_to(self, limit: int | None) -> None:
        """Change how many there are; nobody who has one is sent away."""
        if limit != self._limit:
            self._limit = limit
            self._hand_on()

    async def take(
        self, *, max_waiting: int, seconds: float, tenant_id: TenantId | None = None
    ) -> None:
        """Take a place, at once or when it is this call's turn.

        Raises:
            NoPlaceError: too many wait already, or there was none in time.
        """
        if self.has_place:
            self._taken += 1
            return
        if seconds <= 0 or not self._has_room(max_waiting, tenant_id):
            raise NoPlaceError(is_late=False)
        loop = asyncio.get_running_loop()
        mine: asyncio.Future[None] = loop.create_future()
        self._lines.setdefault(tenant_id, OrderedDict())[mine] = None
        alarm = loop.call_later(seconds, self._send_away, tenant_id, mine)
        try:
            await mine
        except asyncio.CancelledError:
            if mine.done() and not mine.cancelled() and mine.exception() is None:
                # The place was handed over in the moment the caller left.
                self.leave()
            self._forget(tenant_id, mine)
            raise
        finally:
            alarm.cancel()

    def leave(self) -> None:
        self._taken -= 1
        self._hand_on()

    def _has_room(self, max_waiting: int, tenant_id: TenantId | None) -> bool:
        """Tell whether one more may wait, for whom the last of a longer line may have to go."""
        if self.waiting < max_waiting:
            return True
        longest = max(self._lines, key=lambda each: len(self._lines[each]), default=None)
        mine = len(self._lines.get(tenant_id, ()))
        if not max_waiting or len(self._lines.get(longest, ())) <= mine + 1:
            return False
        last = next(reversed(self._lines[longest]))
        self._forget(longest, last)
        if not last.done():
            last.set_exception(NoPlaceError(is_late=False))
        return True

    def _hand_on(self) -> None:
        while self._lines and (self._limit is None or self._taken < self._limit):
            tenant_id, line = next(iter(self._lines.items()))
            next_one = next(iter(line))
            self._lines.move_to_end(tenant_id)
            self._forget(tenant_id, next_one)
            if not next_one.done():
                self._taken += 1
                next_one.set_result(None)

    def _send_away(self, tenant_id: TenantId | None, late: "asyncio.Future[None]") -> None:
        if not late.done():
            self._forget(tenant_id, late)
            late.set_exception(NoPlaceError(is_late=True))

    def _forget(self, tenant_id: TenantId | None, one: "asyncio.Future[None]") -> None:
        line = self._lines.get(tenant_id)
        if line is not None:
            line.pop(one, None)
            if not line:
                del self._lines[tenant_id]
