"""Upstreams by script: each target has its own, and a call plays the next of its lines."""

# ruff: noqa: ARG002  the fakes take what their ports do

import asyncio
from collections import defaultdict, deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import hdrs
from multidict import CIMultiDict

from maas.inference.application.ports import UpstreamError, UpstreamFault, UpstreamResponse
from maas.inference.application.reports import AnswererKind, TryOutcome, WaitOutcome
from maas.inference.domain.route import Endpoint, TargetLimits
from maas.inference.public import CallKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """What comes of one call; `fault` is before the head, or after `chunks` if there are any.

    It waits before its head for `until`, and after its chunks for `stays_open`.
    """

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    chunks: tuple[bytes, ...] = (b"one", b"two")
    fault: UpstreamFault | None = None
    was_sent: bool = True
    takes: float = 0
    until: asyncio.Event | None = None
    stays_open: asyncio.Event | None = None


GOOD = Line()
DOWN = Line(fault="connect", chunks=(), was_sent=False)
FAILS = Line(status=503, chunks=(b"oops",))


class Seconds:
    """A monotonic clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class FakeUpstreams:
    """The `Upstreams` port; `asked` are the URLs, `open_now` how many are under way."""

    def __init__(self, seconds: Seconds) -> None:
        self.asked: list[str] = []
        self.limits: list[TargetLimits] = []
        self.open_now = 0
        self._seconds = seconds
        self._lines: dict[str, deque[Line]] = defaultdict(deque)
        self._always: dict[str, Line] = {}

    def script(self, endpoint: Endpoint, *lines: Line, then: Line = GOOD) -> None:
        url = next(iter(endpoint.urls.values()))
        self._lines[url] = deque(lines)
        self._always[url] = then

    @asynccontextmanager
    async def open(
        self,
        endpoint: Endpoint,
        kind: CallKind,
        body: bytes,
        limits: TargetLimits,
        *,
        on_sent: Callable[[], None],
    ) -> AsyncIterator[UpstreamResponse]:
        url = endpoint.urls[kind]
        self.asked.append(url)
        self.limits.append(limits)
        lines = self._lines[url]
        line = lines.popleft() if lines else self._always.get(url, GOOD)
        self.open_now += 1
        if line.was_sent:
            on_sent()
        try:
            if line.until is not None:
                await line.until.wait()
            self._seconds.now += line.takes
            if line.fault is not None and not line.chunks:
                raise UpstreamError(line.fault, was_sent=line.was_sent)
            yield _Response(line)
        finally:
            self.open_now -= 1


class _Response:
    def __init__(self, line: Line) -> None:
        self._line = line
        self.status = line.status
        self.headers: Mapping[str, str] = CIMultiDict(
            {hdrs.CONTENT_TYPE: "application/json", **line.headers}
        )

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        for chunk in self._line.chunks:
            yield chunk
        if self._line.stays_open is not None:
            await self._line.stays_open.wait()
        if self._line.fault is not None:
            raise UpstreamError(self._line.fault, was_sent=True)


class FakeReports:
    """The `RoutingReports` port: everything that was told, in order."""

    def __init__(self) -> None:
        self.outcomes: list[TryOutcome] = []
        self.waits: list[WaitOutcome] = []
        self.retries: list[bool] = []
        self.first_bytes: list[float] = []
        self.opened = 0

    def tried(self, kind: AnswererKind, outcome: TryOutcome) -> None:
        self.outcomes.append(outcome)

    def answer_began(self, kind: AnswererKind, seconds: float) -> None:
        self.first_bytes.append(seconds)

    def retried(self, *, is_granted: bool) -> None:
        self.retries.append(is_granted)

    def circuit_opened(self, kind: AnswererKind) -> None:
        self.opened += 1

    def waited(self, outcome: WaitOutcome, seconds: float) -> None:
        self.waits.append(outcome)
