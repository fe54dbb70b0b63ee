"""One connection to Redis that all of a process share: answers come in the order of commands.

A connection for each command under way costs each three round trips to open, which a busy event
loop takes so long for that they time out, and are opened again and again.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any, Final, TypeAlias

import hiredis
from redis.asyncio.connection import AbstractConnection, DefaultParser
from redis.exceptions import ConnectionError as LostError
from redis.exceptions import InvalidResponse
from redis.typing import EncodableT
from typing_extensions import override

Command: TypeAlias = Sequence[EncodableT]

_UNFINISHED: Final = object()


class _Asked:
    """Commands whose answers are awaited together, until `ends_at` of the event loop's clock."""

    __slots__ = ("answers", "count", "ends_at", "future")

    def __init__(self, count: int, ends_at: float, future: "asyncio.Future[list[Any]]") -> None:
        self.answers: list[Any] = []
        self.count = count
        self.ends_at = ends_at
        self.future = future

    def fail(self, error: Exception) -> None:
        if not self.future.done():
            self.future.set_exception(error)


class RedisLine(asyncio.Protocol):
    """Takes over a connection that redis-py has opened; `ask` costs a fifth of its reading.

    Who stops waiting is passed over when the answer comes. One that was retired takes nothing new,
    and closes once nobody waits any more.
    """

    def __init__(self, connection: AbstractConnection) -> None:
        # redis-py shows neither; the transport is asyncio's own.
        writer = connection._writer  # noqa: SLF001  as said above
        assert writer is not None  # noqa: S101  it is connected
        self._connection = connection
        self._transport = writer.transport
        self._loop = asyncio.get_running_loop()
        self._asked: deque[_Asked] = deque()
        self._is_retired = False
        self._clock: asyncio.TimerHandle | None = None
        self._reader = hiredis.Reader(
            protocolError=InvalidResponse,
            replyError=DefaultParser.parse_error,
            notEnoughData=_UNFINISHED,
        )
        self._transport.set_protocol(self)

    @property
    def is_open(self) -> bool:
        return not (self._is_retired or self._transport.is_closing())

    def ask(self, commands: Sequence[Command], *, seconds: float) -> "asyncio.Future[list[Any]]":
        """Send commands; the future has their answers, errors among them, or an outage's error."""
        future: asyncio.Future[list[Any]] = self._loop.create_future()
        self._transport.write(_pack(commands))
        self._asked.append(_Asked(len(commands), self._loop.time() + seconds, future))
        if self._clock is None:
            self._clock = self._loop.call_later(seconds, self._look)
        return future

    def retire(self) -> None:
        self._is_retired = True
        self._close_if_done()

    @override
    def data_received(self, data: bytes) -> None:
        reader, asked = self._reader, self._asked
        reader.feed(data)
        try:
            while (answer := reader.gets()) is not _UNFINISHED:
                self._take(answer)
        except (InvalidResponse, IndexError) as exc:
            # Whose answer comes next is not known any more.
            self._lose(LostError(f"not understood: {type(exc).__name__}"))
        if self._is_retired and not asked:
            self._transport.close()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._lose(LostError("the connection was lost"))
        if self._clock is not None:
            self._clock.cancel()
        # Else redis-py takes it for one that was forgotten.
        self._connection._close()  # type: ignore[no-untyped-call]  # noqa: SLF001  as said above

    def _take(self, answer: Any) -> None:
        if isinstance(answer, hiredis.PushNotification):
            return
        first = self._asked[0]
        first.answers.append(answer)
        if len(first.answers) == first.count:
            self._asked.popleft()
            if not first.future.done():
                first.future.set_result(first.answers)

    def _look(self) -> None:
        """End the waiting of those whose time is up; one clock for all is the cheapest."""
        now, self._clock = self._loop.time(), None
        left = []
        for each in self._asked:
            if now >= each.ends_at:
                each.fail(TimeoutError())
            else:
                left.append(each.ends_at)
        if left:
            self._clock = self._loop.call_later(min(left) - now, self._look)
        self._close_if_done()

    def _lose(self, error: Exception) -> None:
        while self._asked:
            self._asked.popleft().fail(error)
        self._transport.close()

    def _close_if_done(self) -> None:
        if self._is_retired and all(each.future.done() for each in self._asked):
            self._transport.close()


def _pack(commands: Sequence[Command]) -> bytes:
    """Spell commands as redis-py does, at a fifth of its CPU."""
    packed = [
        hiredis.pack_command(tuple(command))  # type: ignore[arg-type]  # its stub has one argument
        for command in commands
    ]
    return packed[0] if len(packed) == 1 else b"".join(packed)
