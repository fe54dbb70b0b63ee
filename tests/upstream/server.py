"""The upstream on the wire: HTTP/1.1 by hand, since it must also break it."""

import asyncio
import socket
import ssl
import struct
from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final, cast

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from typing_extensions import override

from tests.upstream.desk import Desk, Exchange, Request
from tests.upstream.replies import Event, Reply
from tests.upstream.scripts import PIECES_OF_A_BODY, Script

HUGE_PIECE: Final = b"x" * 65_536
HUGE_PIECES: Final = 16_384
NO_HTTP: Final = b"SSH-2.0-OpenSSH_9.9\r\n"
_RESET: Final = struct.pack("ii", 1, 0)
_END: Final = b"0\r\n\r\n"


@dataclass(slots=True)
class Upstream:
    """A desk and the connections to it."""

    desk: Desk = field(default_factory=Desk)
    connections: set["Connection"] = field(default_factory=set)

    def connect(self) -> "Connection":
        return Connection(self)


class Connection(asyncio.Protocol):
    """Requests of a connection, answered one after the other."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._parser = HttpRequestParser(self)
        self._requests: deque[tuple[Request, bool]] = deque()
        self._task: asyncio.Task[None] | None = None
        self._may_write = asyncio.Event()
        self._may_write.set()
        self._begin()

    def _begin(self) -> None:
        self._target, self._body = b"", b""
        self._headers: dict[str, str] = {}

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Each loop has a class of its own, and not all are asyncio's.
        self._transport = cast("asyncio.Transport", transport)
        self._upstream.desk.ledger.connections += 1
        self._upstream.connections.add(self)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._upstream.connections.discard(self)
        self._may_write.set()
        if self._task is not None:
            self._task.cancel()

    @override
    def pause_writing(self) -> None:
        self._may_write.clear()

    @override
    def resume_writing(self) -> None:
        self._may_write.set()

    @override
    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade):
            self._transport.write(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")
            self._transport.close()

    def on_url(self, part: bytes) -> None:
        self._target += part

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, part: bytes) -> None:
        self._body += part

    def on_message_complete(self) -> None:
        request = Request(
            method=self._parser.get_method().decode(),
            target=self._target.decode("latin-1"),
            headers=self._headers,
            body=self._body,
        )
        self._requests.append((request, self._parser.should_keep_alive()))
        self._begin()
        self._go_on()

    def close(self) -> None:
        self._transport.abort()

    def _go_on(self) -> None:
        """Answer what came: at once where it can be, else in a task."""
        while self._task is None and self._requests and not self._transport.is_closing():
            request, keeps_alive = self._requests.popleft()
            exchange = self._upstream.desk.take(request)
            if exchange.script.is_timed:
                self._task = asyncio.ensure_future(self._play(exchange, keeps_alive=keeps_alive))
                self._task.add_done_callback(self._played)
            else:
                self._write_at_once(exchange)
                if not keeps_alive:
                    self._transport.close()

    def _played(self, task: "asyncio.Task[None]") -> None:
        self._task = None
        if not task.cancelled():
            task.result()
            self._go_on()

    def _write_at_once(self, exchange: Exchange) -> None:
        reply = exchange.reply
        if reply.events is None:
            self._transport.write(_head(reply) + reply.body)
        else:
            self._transport.write(_head(reply))
            for event in reply.events:
                self._transport.write(_chunk(event.data))
                _note(exchange, event)
            self._transport.write(_END)
        _finish(exchange)

    async def _play(self, exchange: Exchange, *, keeps_alive: bool) -> None:
        script = exchange.script
        await asyncio.sleep(script.head_delay)
        if script.body == "no-http":
            self._transport.write(NO_HTTP)
            self._transport.close()
            return
        if script.body == "huge":
            await self._write_too_much(exchange.reply)
            return
        if not await self._goes_on(script, 0):
            return
        self._transport.write(_head(exchange.reply))
        for number, event in enumerate(_pieces(exchange.reply, script)):
            if number and not await self._goes_on(script, number):
                return
            await asyncio.sleep(script.chunk_delay)
            await self._may_write.wait()
            is_chunked = exchange.reply.events is not None
            self._transport.write(_chunk(event.data) if is_chunked else event.data)
            _note(exchange, event)
        if exchange.reply.events is not None:
            self._transport.write(_END)
        _finish(exchange)
        if not keeps_alive:
            self._transport.close()

    async def _goes_on(self, script: Script, number: int) -> bool:
        """Stall, or cut, where it was commanded to after so many chunks."""
        if script.stall_after == number:
            await asyncio.Event().wait()
        if script.cut_after != number:
            return True
        if script.cut == "reset":
            self._reset()
        else:
            self._transport.close()
        return False

    def _reset(self) -> None:
        """End the connection with an RST, whatever loop and transport it has."""
        found = self._transport.get_extra_info("socket")
        with socket.fromfd(found.fileno(), socket.AF_INET, socket.SOCK_STREAM) as copy:
            copy.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._transport.abort()

    async def _write_too_much(self, reply: Reply) -> None:
        self._transport.write(_head(Reply(status=reply.status, events=())))
        for _ in range(HUGE_PIECES):
            await self._may_write.wait()
            self._transport.write(_chunk(HUGE_PIECE))
            await asyncio.sleep(0)
        self._transport.write(_END)


def _head(reply: Reply) -> bytes:
    size = "transfer-encoding: chunked" if reply.events is not None else ""
    lines = [
        f"HTTP/1.1 {reply.status} {_phrase(reply.status)}",
        f"content-type: {reply.content_type}",
        size or f"content-length: {len(reply.body)}",
        *(f"{name}: {value}" for name, value in reply.headers.items()),
    ]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Odd"


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _pieces(reply: Reply, script: Script) -> Iterator[Event]:
    """Cut an answer up: into its events, a few parts of a body, or as small as commanded."""
    events: Sequence[Event] = reply.events or ()
    if reply.events is None:
        size = script.piece_bytes or max(1, -(-len(reply.body) // PIECES_OF_A_BODY))
        for at in range(0, len(reply.body), size):
            yield Event(reply.body[at : at + size])
        return
    for event in events:
        size = script.piece_bytes or len(event.data)
        parts = [event.data[at : at + size] for at in range(0, len(event.data), size)]
        for part in parts[:-1]:
            yield Event(part)
        yield Event(parts[-1], event.tokens)


def _note(exchange: Exchange, event: Event) -> None:
    if exchange.call is not None:
        exchange.call.chunks_sent += 1
        exchange.call.completion_tokens += event.tokens


def _finish(exchange: Exchange) -> None:
    call, spent = exchange.call, exchange.reply.spent
    if call is not None:
        call.is_complete = True
        if spent is not None:
            call.completion_tokens = spent.completion


@asynccontextmanager
async def serving(
    upstream: Upstream, *, port: int = 0, tls: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    """Listen on the loopback in this process; several may share one upstream."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(upstream.connect, "127.0.0.1", port, ssl=tls)
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        server.close()
        for connection in list(upstream.connections):
            connection.close()
        await server.wait_closed()
