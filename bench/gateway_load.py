"""Callers of a gateway: each sends its request again as soon as the answer before is whole.

A call costs this process little beside what it costs any server in Python, and what it does cost is
told with each round: the generator must not be what is measured.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, cast

import uvloop
from httptools import HttpResponseParser
from typing_extensions import override

from bench.load import Target, UnexpectedAnswerError

DONE: Final = b"[DONE]"
_OK: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Milliseconds from the request on: until the first of the body, and until the last."""

    first: float
    whole: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """`cpu_ms` is what the callers themselves took."""

    timings: Sequence[Timing]
    seconds: float
    cpu_ms: float


def run_round(target: Target, *, calls: int, callers: int, is_stream: bool) -> Round:
    """Have so many callers make so many calls in all.

    Raises:
        UnexpectedAnswerError: an answer was not 200, or a stream had no end.
    """
    return uvloop.run(_run(target, calls=calls, callers=callers, is_stream=is_stream))


async def _run(target: Target, *, calls: int, callers: int, is_stream: bool) -> Round:
    work = _Work(target=target, left=calls, is_stream=is_stream)
    loop = asyncio.get_running_loop()
    connections = []
    for _ in range(callers):
        _, caller = await loop.create_connection(lambda: _Caller(work), target.host, target.port)
        connections.append(caller)
    began, cpu_began = time.perf_counter(), time.process_time()
    for caller in connections:
        caller.send()
    try:
        await asyncio.gather(*(caller.finished for caller in connections))
    finally:
        for caller in connections:
            caller.close()
    return Round(
        timings=work.timings,
        seconds=time.perf_counter() - began,
        cpu_ms=(time.process_time() - cpu_began) * 1000,
    )


@dataclass(slots=True, kw_only=True)
class _Work:
    """What all callers share: the calls left to make, and how long those made took."""

    target: Target
    left: int
    is_stream: bool
    timings: list[Timing] = field(default_factory=list)


class _Caller(asyncio.Protocol):
    def __init__(self, work: _Work) -> None:
        self._work = work
        self.finished = asyncio.get_running_loop().create_future()
        self._parser = HttpResponseParser(self)
        self._began = self._first = 0.0
        self._last = b""

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Each loop has a class of its own, and not all are asyncio's.
        self._transport = cast("asyncio.Transport", transport)

    def send(self) -> None:
        if self._work.left == 0:
            self.finished.set_result(None)
            return
        self._work.left -= 1
        self._first = 0.0
        self._last = b""
        self._began = time.perf_counter()
        self._transport.write(self._work.target.request)

    def close(self) -> None:
        self._transport.close()

    @override
    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._fail("the connection ended")

    def on_body(self, part: bytes) -> None:
        self._first = self._first or time.perf_counter()
        self._last = part if len(part) > len(DONE) else self._last + part

    def on_message_complete(self) -> None:
        ended = time.perf_counter()
        status = self._parser.get_status_code()
        if status != _OK:
            self._fail(f"{status}: {self._last[-300:]!r}")
        elif self._work.is_stream and DONE not in self._last:
            self._fail(f"a stream without an end: {self._last[-100:]!r}")
        else:
            first, whole = (self._first - self._began) * 1000, (ended - self._began) * 1000
            self._work.timings.append(Timing(first=first, whole=whole))
            self._parser = HttpResponseParser(self)
            # The next one goes out after the parser, which is in a call of its own, has returned.
            asyncio.get_running_loop().call_soon(self.send)

    def _fail(self, reason: str) -> None:
        if not self.finished.done():
            self.finished.set_exception(UnexpectedAnswerError(reason))


def share(values: Sequence[float], part: float) -> float:
    """Tell what so large a part of the values stays under; the middle is 0.5."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))]
