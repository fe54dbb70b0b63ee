"""Sends prepared bytes to one server from a process of its own, and counts what comes back.

`python -m tests.load.generator` reads its orders as JSON and writes its figures as JSON. A closed
loop sends again once it has its answer; an open one sends by the clock, whatever the server does.
"""

import asyncio
import json
import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, cast

import uvloop
from httptools import HttpResponseParser
from typing_extensions import override

ROOT: Final = Path(__file__).resolve().parents[2]
NUMBER: Final = b"%NUMBER_12%%"
"""In a request, stands for the number of the request: twelve digits as well."""

TICK_SECONDS: Final = 0.002
LOOK_SECONDS: Final = 0.05
PATIENCE_SECONDS: Final = 30.0
"""Who has no answer by then has none."""

SHED: Final = b"Too many requests are being served at this moment"
KEPT_BYTES: Final = 2_048


@dataclass(frozen=True, slots=True, kw_only=True)
class Orders:
    """What to send where, and how: `rate` a second, or closed where there is none."""

    port: int
    request: str
    connections: int
    seconds: float
    rate: float | None = None
    first_number: int = 0


@dataclass(slots=True, kw_only=True)
class Figures:
    """What came back: counts by kind, and milliseconds of those taken and of those turned away."""

    seconds: float = 0.0
    sent: int = 0
    kinds: dict[str, int] = field(default_factory=dict)
    good_ms: list[float] = field(default_factory=list)
    refused_ms: list[float] = field(default_factory=list)
    without_retry_after: int = 0
    late_ms: float = 0.0
    """How far behind its clock the generator itself was, at the 99th of a hundred sends."""
    unsent: int = 0
    """For want of a free connection."""
    cpu_share: float = 0.0

    @property
    def good_a_second(self) -> float:
        return len(self.good_ms) / self.seconds

    @property
    def failed(self) -> dict[str, int]:
        """What was neither answered well nor turned away."""
        return {k: n for k, n in self.kinds.items() if k not in {"good", "refused"}}


def generate(orders: Orders) -> Figures:
    """Have it done in another process, and wait for it."""
    return collect(begin(orders))


def begin(orders: Orders) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.load.generator"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps(asdict(orders)))
    process.stdin.close()
    process.stdin = None
    return process


def collect(process: "subprocess.Popen[str]") -> Figures:
    told, _ = process.communicate()
    if process.returncode:
        message = f"the generator ended with {process.returncode}"
        raise RuntimeError(message)
    return Figures(**json.loads(told))


def share(values: Sequence[float], part: float) -> float:
    """Tell what so large a part of the values stays under; nothing is 0."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))] if ordered else 0.0


class Generator:
    def __init__(self, orders: Orders) -> None:
        self.orders = orders
        self.figures = Figures()
        self.free: deque[Connection] = deque()
        self.all: set[Connection] = set()
        self.has_begun = self.is_over = False
        self._request = orders.request.encode("latin-1")
        self._number = orders.first_number
        self._kinds: Counter[str] = Counter()
        self._late: list[float] = []
        self._has_number = NUMBER in self._request

    def next_request(self) -> bytes:
        self._number += 1
        self.figures.sent += 1
        if not self._has_number:
            return self._request
        return self._request.replace(NUMBER, b"%012d" % self._number)

    async def run(self) -> Figures:
        await asyncio.gather(*(self.open() for _ in range(self.orders.connections)))
        began, cpu = time.perf_counter(), time.process_time()
        self.has_begun = True
        if self.orders.rate is None:
            for connection in list(self.free):
                connection.send()
            self.free.clear()
            await asyncio.sleep(self.orders.seconds)
        else:
            await self._send_by_the_clock(self.orders.rate, began)
        self.figures.seconds = time.perf_counter() - began
        self.figures.cpu_share = (time.process_time() - cpu) / self.figures.seconds
        self.is_over = True
        await self._wait_for_the_last()
        self.figures.kinds = dict(self._kinds)
        self.figures.late_ms = share(self._late, 0.99) * 1000
        return self.figures

    async def _send_by_the_clock(self, rate: float, began: float) -> None:
        due, ends = 0, began + self.orders.seconds
        while (now := time.perf_counter()) < ends:
            while began + due / rate <= now:
                self._late.append(now - began - due / rate)
                due += 1
                if self.free:
                    self.free.popleft().send()
                else:
                    self.figures.unsent += 1
            await asyncio.sleep(TICK_SECONDS)

    async def _wait_for_the_last(self) -> None:
        """What is under way at the end counts as well, if it ever ends."""
        for _ in range(round(PATIENCE_SECONDS / LOOK_SECONDS)):
            if not any(each.is_waiting for each in self.all):
                break
            await asyncio.sleep(LOOK_SECONDS)
        self._kinds["no answer"] += sum(each.is_waiting for each in self.all)
        self._kinds += Counter()

    async def open(self) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(50):
            try:
                await loop.create_connection(
                    lambda: Connection(self), "127.0.0.1", self.orders.port
                )
            except OSError:
                await asyncio.sleep(0.05)
            else:
                return
        self.note("no connection")

    def note(self, kind: str) -> None:
        self._kinds[kind] += 1

    def note_answer(self, status: int, body: bytes, seconds: float, *, may_retry: bool) -> None:
        if 200 <= status < 300:
            self.note("good")
            self.figures.good_ms.append(seconds * 1000)
        elif status == 429 or (status == 503 and (SHED in body or b"too-many-calls" in body)):
            self.note("refused")
            self.figures.refused_ms.append(seconds * 1000)
            self.figures.without_retry_after += not may_retry
        else:
            self.note(f"{status} {body[:120].decode('utf-8', 'replace')}")


class Connection(asyncio.Protocol):
    def __init__(self, owner: Generator) -> None:
        self._owner = owner
        self._began = 0.0
        self._body = b""
        self._may_retry = False
        self.is_waiting = False
        self._parser = HttpResponseParser(self)

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Each loop has a class of its own, and not all are asyncio's.
        self._transport = cast("asyncio.Transport", transport)
        self._owner.all.add(self)
        if self._owner.has_begun and self._owner.orders.rate is None:
            self.send()
        else:
            self._owner.free.append(self)

    def send(self) -> None:
        self._body, self._may_retry = b"", False
        self.is_waiting = True
        self._began = time.perf_counter()
        self._transport.write(self._owner.next_request())

    @override
    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        owner = self._owner
        owner.all.discard(self)
        if self in owner.free:
            owner.free.remove(self)
        if self.is_waiting:
            owner.note("cut off")
        if not owner.is_over:
            self._again = asyncio.ensure_future(owner.open())

    def on_header(self, name: bytes, _value: bytes) -> None:
        self._may_retry = self._may_retry or name.lower() == b"retry-after"

    def on_body(self, part: bytes) -> None:
        if len(self._body) < KEPT_BYTES:
            self._body += part

    def on_message_complete(self) -> None:
        owner, seconds = self._owner, time.perf_counter() - self._began
        self.is_waiting = False
        status = self._parser.get_status_code()
        owner.note_answer(status, self._body, seconds, may_retry=self._may_retry)
        is_kept = self._parser.should_keep_alive()
        self._parser = HttpResponseParser(self)
        if not is_kept:
            self._transport.close()
        elif owner.orders.rate is not None:
            owner.free.append(self)
        elif not owner.is_over:
            # The next one goes out after the parser, which is in a call of its own, has returned.
            asyncio.get_running_loop().call_soon(self.send)


def main() -> None:
    given: dict[str, Any] = json.load(sys.stdin)
    figures = uvloop.run(Generator(Orders(**given)).run())
    json.dump(asdict(figures), sys.stdout)


if __name__ == "__main__":
    main()
