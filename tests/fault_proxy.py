"""A link that can be made to fail: a TCP proxy on a loopback port, one for each link under test.

It turns its own event loop in its own thread, so that a busy test does not stall it, and its port
stays its own while nothing listens there.
"""

import asyncio
import random
import socket
import struct
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeAlias

import uvloop

CHUNK_BYTES = 64 * 1024
BACKLOG = 512
COMMAND_SECONDS = 20.0
TURNS_TO_BEGIN = 3
RESET_ON_CLOSE = struct.pack("ii", 1, 0)
"""SO_LINGER with no time to linger: closing sends RST."""

Side: TypeAlias = Literal["client", "server"]
Upstream: TypeAlias = tuple[str, int] | Path
"""Address and port, or the path of a Unix socket."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """What happens to bytes on their way, and to those who connect.

    `swallow` reads and forgets; a connection that lost bytes so is reset once it ends, for a stream
    with a hole may not go on. `stall` keeps bytes back and delivers them once it ends, as a network
    does that drops packets for a while. `cut_after_bytes` counts each connection by itself, from
    its start, and ends it with RST. `toward` says which way bytes fare like that.
    """

    latency_seconds: float = 0.0
    jitter_seconds: float = 0.0
    slice_bytes: int | None = None
    cut_after_bytes: int | None = None
    swallow: bool = False
    stall: bool = False
    toward: Literal["client", "server", "both"] = "both"
    accepting: Literal["serve", "reset", "refuse"] = "serve"

    def strikes(self, side: Side) -> bool:
        return self.toward in {side, "both"}


NONE = Faults()


@dataclass(eq=False, slots=True)
class _Link:
    """One connection and its counterpart."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    passed: dict[Side, int] = field(default_factory=lambda: {"client": 0, "server": 0})
    has_hole: bool = False

    def reset(self) -> None:
        for writer in (self.client, self.server):
            _reset(writer)


class FaultProxy:
    """Passes bytes on between its `port` and an upstream, as well as its faults let it.

    Use it as a context manager. Every method may be called from any thread, and has taken effect
    when it returns.
    """

    def __init__(self, upstream: Upstream, *, seed: int = 0) -> None:
        self._upstream = upstream
        self._dice = random.Random(seed)  # noqa: S311  jitter that can be repeated
        self._faults = NONE
        self._changed = asyncio.Event()
        self._links: set[_Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        # Its bytes share an interpreter with the test: this loop takes half as long for them.
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        # Bound for as long as the proxy lives: the port is nobody else's while it is refused.
        self._holder = _bind(0)
        self.port: int = self._holder.getsockname()[1]
        self.accepted = 0

    def __enter__(self) -> Self:
        self._thread.start()
        self._wait_for(self._listen())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._wait_for(self._close())
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(COMMAND_SECONDS)
            self._loop.close()
            self._holder.close()

    @property
    def connections(self) -> int:
        return len(self._links)

    def become(self, faults: Faults) -> None:
        """Fail like this from now on, on connections that are open, too."""
        self._wait_for(self._become(faults))

    def heal(self) -> None:
        self.become(NONE)

    def refuse(self) -> None:
        """Be gone: what is open is reset, and who connects is refused."""
        self.become(Faults(accepting="refuse"))
        self.reset()

    def blackhole(self) -> None:
        """Take everybody and everything, and answer nothing."""
        self.become(Faults(swallow=True))

    def reset(self) -> None:
        """End every open connection with RST on both sides."""
        self._wait_for(self._reset())

    def half_close(self) -> None:
        """Tell every open client that nothing more will come; what it sends still passes."""
        self._wait_for(self._half_close())

    def _wait_for(self, work: Coroutine[Any, Any, None]) -> None:
        done: Future[None] = asyncio.run_coroutine_threadsafe(work, self._loop)
        done.result(COMMAND_SECONDS)

    async def _listen(self) -> None:
        listener = _bind(self.port)
        self._server = await asyncio.start_server(self._accept, sock=listener, backlog=BACKLOG)

    async def _stop_listening(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _become(self, faults: Faults) -> None:
        self._faults = faults
        if not faults.swallow:
            for link in [each for each in self._links if each.has_hole]:
                link.reset()
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
        if faults.accepting == "refuse":
            await self._stop_listening()
        elif self._server is None:
            await self._listen()

    async def _reset(self) -> None:
        for link in list(self._links):
            link.reset()

    async def _half_close(self) -> None:
        for link in self._links:
            with suppress(OSError):
                link.client.write_eof()

    async def _close(self) -> None:
        self._faults = Faults(accepting="reset")
        await self._stop_listening()
        # Who was accepted a moment ago has a task that has not begun: cancelled now, it would
        # leave its connection open.
        for _ in range(TURNS_TO_BEGIN):
            await asyncio.sleep(0)
        await self._reset()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.accepted += 1
        try:
            await self._serve(reader, writer)
        except asyncio.CancelledError:
            # Only closing the proxy cancels, and then nobody waits for this task's end.
            _reset(writer)
        finally:
            self._tasks.discard(task)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._faults.accepting == "reset":
            _reset(writer)
            return
        try:
            from_server, to_server = await self._connect()
        except OSError:
            _reset(writer)
            return
        link = _Link(writer, to_server)
        self._links.add(link)
        try:
            await asyncio.gather(
                self._pass(link, reader, to_server, "server"),
                self._pass(link, from_server, writer, "client"),
            )
        except (OSError, RuntimeError):
            # The second is what a side says that was half closed and is written to.
            link.reset()
        finally:
            self._links.discard(link)
            # Both before either is waited for: that wait is where closing the proxy cancels.
            writer.close()
            to_server.close()
            await asyncio.gather(
                writer.wait_closed(), to_server.wait_closed(), return_exceptions=True
            )

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if isinstance(self._upstream, Path):
            return await asyncio.open_unix_connection(self._upstream)
        return await asyncio.open_connection(*self._upstream)

    async def _pass(
        self, link: _Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, side: Side
    ) -> None:
        """Pass bytes on toward one side until the other has no more."""
        while data := await reader.read(CHUNK_BYTES):
            await self._wait(side)
            faults = self._faults if self._faults.strikes(side) else NONE
            if faults.swallow or link.has_hole:
                link.has_hole = True
                continue
            if faults.cut_after_bytes is not None:
                data = data[: max(faults.cut_after_bytes - link.passed[side], 0)]
            for piece in _sliced(data, faults.slice_bytes):
                writer.write(piece)
                await writer.drain()
            link.passed[side] += len(data)
            if faults.cut_after_bytes is not None and link.passed[side] >= faults.cut_after_bytes:
                link.reset()
                return
        if not link.has_hole and not writer.is_closing():
            with suppress(OSError):
                writer.write_eof()

    async def _wait(self, side: Side) -> None:
        """Hold bytes back for as long as they take, or until a stall ends."""
        while self._faults.stall and self._faults.strikes(side):
            await self._changed.wait()
        faults = self._faults
        if faults.strikes(side) and (faults.latency_seconds or faults.jitter_seconds):
            jitter = self._dice.uniform(-faults.jitter_seconds, faults.jitter_seconds)
            await asyncio.sleep(max(faults.latency_seconds + jitter, 0.0))


def cut_after(count: int, *, toward: Side) -> Faults:
    return replace(NONE, cut_after_bytes=count, toward=toward)


def _bind(port: int) -> socket.socket:
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    bound.bind(("127.0.0.1", port))
    return bound


def _reset(writer: asyncio.StreamWriter) -> None:
    connection = writer.get_extra_info("socket")
    if connection is not None and connection.family != socket.AF_UNIX:
        # uvloop says ValueError where the connection has ended by itself: its descriptor is -1.
        with suppress(OSError, ValueError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
    writer.transport.abort()


def _sliced(data: bytes, size: int | None) -> list[bytes]:
    if size is None:
        return [data] if data else []
    return [data[at : at + size] for at in range(0, len(data), size)]
