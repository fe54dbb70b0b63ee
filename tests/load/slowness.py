"""G17: a thousand clients that dawdle. Whoever does not is served as before.

Three kinds of them, one after the other: heads a byte at a time, bodies a byte at a time, and
readers of a 100 MB answer who take a kilobyte now and then. All readers are one person, of whom the
platform serves a few at a time: the others are told to come again, and do. Normal requests come by
the clock, at a rate the platform does not notice, before and meanwhile.
"""

import asyncio
import os
import socket
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, TypeAlias

import psutil
import uvloop

from tests.acceptance.platforms import Person, Platform, running
from tests.load.generator import Figures, Orders, begin, collect, generate, share
from tests.load.report import Row
from tests.load.watching import watch_liveness
from tests.load.world import port_of, request

COUNT: Final = 1_000
RATE: Final = 60.0
CONNECTIONS: Final = 40
BYTE_SECONDS: Final = 1.0
OPENING_SECONDS: Final = 10.0
"""They come one after the other: a thousand at once would be a test of something else."""

READ_BYTES: Final = 1_024
RECEIVE_BUFFER_BYTES: Final = 4_096
MAX_LIVE_MS: Final = 1_000.0
MAX_TIMES: Final = 2.0
SPARE_FILES: Final = 10
BACK_SECONDS: Final = 20.0
MIB: Final = 2**20
FILE_BYTES: Final = 100 * 1_000_000

TOLD_TO_WAIT: Final = (b"HTTP/1.1 429 ", b"HTTP/1.1 503 ")

Dawdle: TypeAlias = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[bytes]]
"""Does a little, and tells what came of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    name: str
    dawdle: Dawdle
    first: bytes
    may_wait: bool = False
    """Whether the server may tell them to come again, instead of keeping them all."""


@dataclass(slots=True)
class Crowd:
    """How many clients and sockets there were, and how many the server ended of itself."""

    came: int = 0
    opened: int = 0
    served: int = 0
    """Of who asked for an answer: those that get it."""
    told_to_wait: int = 0
    unexplained: int = 0
    """Turned away, and not told for how long."""
    most_open: int = 0
    now_open: int = 0
    ended: int = 0


def measure(folder: Path, *, seconds: float, tell: Callable[[str], None]) -> list[Row]:
    (folder / "slow").mkdir(mode=0o755)
    with running(folder / "slow", settings={"MAAS_LOG_LEVEL": "WARNING"}) as platform:
        person = platform.sign_in()
        tell("uploading 100 MB to be read slowly")
        path = _upload(person)
        api = platform.of_role("serve")[0]
        orders = Orders(
            port=port_of(platform.url),
            request=request("GET", "/api/v1/users/profile", person.token),
            connections=CONNECTIONS,
            seconds=seconds,
            rate=RATE,
        )
        # As fast as it goes: pools that grow later are no files that slow clients hold.
        generate(replace(orders, rate=None))
        tell("normal requests alone")
        before = generate(orders)
        rows = [_told_of_normal(before)]
        for kind in _kinds(person.token, path):
            tell(f"{COUNT:,} {kind.name}")
            # On asyncio's own loop, a thousand sockets take the CPU from who is measured.
            rows += uvloop.run(_hold(platform, api, kind, orders, before))
        return rows


def _kinds(token: str, path: str) -> list[Kind]:
    body_head = request("POST", "/api/v1/models", token, "x" * 10_000).partition("\r\n\r\n")[0]
    return [
        Kind(name="slow heads", dawdle=_drip, first=b"GET /health/live HTTP/1.1\r\nHost: x\r\nX: "),
        Kind(name="slow bodies", dawdle=_drip, first=f"{body_head}\r\n\r\n".encode()),
        Kind(
            name="slow readers",
            dawdle=_sip,
            first=request("GET", path, token).encode(),
            may_wait=True,
        ),
    ]


def _upload(person: Person) -> str:
    """Put 100 MB into a version, and tell its path."""
    with person.client() as client:
        body = {"name": "read-slowly", "framework": "other"}
        model = client.post("/api/v1/models", json=body).raise_for_status().json()["id"]
        versions = f"/api/v1/models/{model}/versions"
        client.post(versions, json={"version": "1"}).raise_for_status()
        path = f"{versions}/1/files/noise.bin"
        content = os.urandom(FILE_BYTES)
        client.put(path, content=content, timeout=120).raise_for_status()
    return path


async def _drip(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    writer.write(b"a")
    await writer.drain()
    return b""


async def _sip(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> bytes:
    if not (some := await reader.read(READ_BYTES)):
        raise ConnectionResetError
    return some


async def _hold(
    platform: Platform, api: psutil.Process, kind: Kind, orders: Orders, before: Figures
) -> list[Row]:
    """Keep a thousand of them open while normal requests go on, and let go of them."""
    files, memory = api.num_fds(), api.memory_info().rss
    crowd = Crowd()
    is_over = asyncio.Event()
    tasks = [
        asyncio.create_task(_dawdle(orders.port, kind, crowd, is_over, OPENING_SECONDS * part))
        for part in (number / COUNT for number in range(COUNT))
    ]
    await _until(lambda: _are_there(crowd, kind), seconds=3 * OPENING_SECONDS)
    with watch_liveness(platform.url) as lives:
        figures = await asyncio.to_thread(lambda: collect(begin(orders)))
    held_files, grown = api.num_fds(), (api.memory_info().rss - memory) / MIB
    is_over.set()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    began = time.monotonic()
    is_back = await _until(lambda: api.num_fds() <= files + SPARE_FILES, seconds=BACK_SECONDS)
    took = time.monotonic() - began
    times = share(figures.good_ms, 0.99) / share(before.good_ms, 0.99)
    return [
        Row(
            name=f"{kind.name}: liveness",
            figure=f"{max(lives.milliseconds, default=float('inf')):.0f} ms at most in"
            f" {len(lives.milliseconds)}; {crowd.came:,} came, {crowd.most_open:,} open at once,"
            f" {crowd.served} served, {crowd.told_to_wait:,} times told to wait,"
            f" {crowd.unexplained} without a word",
            goal=f"<= {MAX_LIVE_MS:.0f} ms",
            is_met=max(lives.milliseconds, default=float("inf")) <= MAX_LIVE_MS
            and _are_there(crowd, kind)
            and not crowd.unexplained,
        ),
        Row(
            name=f"{kind.name}: normal requests",
            figure=f"p99 {share(figures.good_ms, 0.99):.0f} ms, {times:.2f}x;"
            f" {figures.failed or 'none'} failed, {len(figures.refused_ms)} refused",
            goal=f"p99 <= {MAX_TIMES:.0f}x, none failed",
            is_met=times <= MAX_TIMES and not figures.failed and not figures.refused_ms,
        ),
        Row(
            name=f"{kind.name}: given back",
            figure=f"files {files} before, {held_files} meanwhile, {api.num_fds()} after"
            f" {took:.1f} s; {grown:+.0f} MiB meanwhile; the server ended {crowd.ended:,} of"
            f" {crowd.opened:,}",
            goal=f"<= {files + SPARE_FILES} files",
            is_met=is_back,
        ),
    ]


def _are_there(crowd: Crowd, kind: Kind) -> bool:
    if kind.may_wait:
        return crowd.came >= COUNT and crowd.served > 0
    return crowd.most_open >= COUNT


async def _dawdle(
    port: int, kind: Kind, crowd: Crowd, is_over: asyncio.Event, after_seconds: float
) -> None:
    """Be slow; once the server has had enough, come again."""
    await asyncio.sleep(after_seconds)
    is_new = True
    while not is_over.is_set():
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
        connection.setblocking(False)  # noqa: FBT003  as the standard library has it
        try:
            await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", port))
            reader, writer = await asyncio.open_connection(sock=connection, limit=READ_BYTES)
        except OSError:
            connection.close()
            await asyncio.sleep(BYTE_SECONDS)
            continue
        crowd.came += is_new
        is_new = False
        crowd.opened += 1
        crowd.now_open += 1
        try:
            with suppress(OSError):
                writer.write(kind.first)
                answer = await kind.dawdle(reader, writer)
                crowd.served += answer.startswith(b"HTTP/1.1 200 ")
                if answer.startswith(TOLD_TO_WAIT):
                    crowd.told_to_wait += 1
                    crowd.unexplained += b"retry-after: " not in answer.lower()
                crowd.most_open = max(crowd.most_open, crowd.now_open)
                while not (reader.at_eof() and kind.dawdle is _drip):
                    await kind.dawdle(reader, writer)
                    await asyncio.sleep(BYTE_SECONDS)
            crowd.ended += 1
        finally:
            crowd.now_open -= 1
            writer.transport.abort()
        await asyncio.sleep(BYTE_SECONDS)


async def _until(condition: Callable[[], bool], *, seconds: float) -> bool:
    for _ in range(round(seconds / 0.1)):
        if condition():
            return True
        await asyncio.sleep(0.1)
    return condition()


def _told_of_normal(before: Figures) -> Row:
    return Row(
        name="slow clients: normal requests without them",
        figure=f"p50 {share(before.good_ms, 0.5):.0f} ms, p99 {share(before.good_ms, 0.99):.0f} ms"
        f" at {RATE:.0f} a second",
        goal="-",
        is_met=not before.failed,
    )
