"""Upgrades, trailers and bodies nobody waits for, over real sockets."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest
from starlette.types import Receive, Scope, Send
from typing_extensions import override

from maas.shared.interface.http_protocol import MAX_TRAILER_BYTES, HeaderTimeoutProtocol
from tests.fakes.sockets import Connection, connect, serve

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(60)]

UPGRADE = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
GET = b"GET / HTTP/1.1\r\nHost: maas\r\n\r\n"


class ImpatientProtocol(HeaderTimeoutProtocol):
    head_timeout_seconds = 2.0
    linger_seconds = 0.5
    max_linger_bytes = 1024 * 1024


def head(line: bytes, *headers: bytes) -> bytes:
    return line + b" HTTP/1.1\r\nHost: maas\r\n" + b"".join(headers) + b"\r\n"


def length(size: int) -> bytes:
    return b"Content-Length: %d\r\n" % size


class Torrent:
    """Sends until its reader takes no more, gives up in the midst of it, and sees who is left."""

    def __init__(self) -> None:
        self.lost = asyncio.Event()

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        with suppress(TimeoutError):
            async with asyncio.timeout(0.3):
                while True:
                    await send(
                        {"type": "http.response.body", "body": b"x" * 65536, "more_body": True}
                    )

    def protocol(self) -> type[HeaderTimeoutProtocol]:
        lost = self.lost

        class Telling(ImpatientProtocol):
            @override
            def connection_lost(self, exc: Exception | None) -> None:
                super().connection_lost(exc)
                lost.set()

        return Telling


async def answer(scope: Scope, receive: Receive, send: Send) -> None:
    """Echo what came; `/early` answers before the body, `/last` says it is the last answer."""
    text, more = b"", scope["path"] not in {"/early", "/last"}
    while more:
        message = await receive()
        if message["type"] != "http.request":
            return
        text += message["body"]
        more = message["more_body"]
    names = [name.decode() for name, _ in scope["headers"]]
    body = json.dumps([scope["method"], text.decode("latin-1"), names]).encode()
    headers = [(b"content-length", str(len(body)).encode())]
    if scope["path"] == "/last":
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


@pytest.fixture
async def port() -> AsyncIterator[int]:
    async with serve(answer, ImpatientProtocol) as port:
        yield port


@pytest.fixture
async def connection(port: int) -> AsyncIterator[Connection]:
    async with connect(port) as connection:
        yield connection


async def echo_on(connection: Connection) -> tuple[str, str, list[str]]:
    _, body = await connection.read_answer()
    method, text, names = json.loads(body)
    return method, text, names


async def send_until_closed(connection: Connection) -> int:
    sent = 0
    with suppress(ConnectionError):
        while True:
            connection.send(b"x" * 65536)
            await connection.writer.drain()
            sent += 65536
    return sent


class TestUpgrades:
    @pytest.mark.parametrize("pause_seconds", [0, 0.05])
    async def test_a_body_is_read_as_ever(
        self, connection: Connection, pause_seconds: float
    ) -> None:
        smuggled = b"DELETE / HTTP/1.1\r\nHost: x\r\n\r\n"
        connection.send(head(b"PUT /", UPGRADE, length(len(smuggled))))
        await asyncio.sleep(pause_seconds)
        connection.send(smuggled + GET)

        assert (await echo_on(connection))[:2] == ("PUT", smuggled.decode())
        assert (await echo_on(connection))[:2] == ("GET", "")

    async def test_a_head_in_pieces_is_one(self, connection: Connection) -> None:
        for byte in head(b"PUT /", UPGRADE, length(3)) + b"abc":
            connection.send(bytes([byte]))
            await asyncio.sleep(0.001)

        assert (await echo_on(connection))[:2] == ("PUT", "abc")

    async def test_a_body_in_chunks_is_read(self, connection: Connection) -> None:
        connection.send(head(b"PUT /", UPGRADE, CHUNKED) + b"3\r\nabc\r\n0\r\n\r\n" + GET)

        assert (await echo_on(connection))[:2] == ("PUT", "abc")
        assert (await echo_on(connection))[:2] == ("GET", "")

    @pytest.mark.parametrize("kind", [b"websocket", b"h2c", b"TLS/1.0"])
    async def test_one_without_a_body_is_answered(
        self, connection: Connection, kind: bytes
    ) -> None:
        one = head(b"GET /", b"Connection: upgrade\r\nUpgrade: %s\r\n" % kind)
        connection.send(one * 3)

        for _ in range(3):
            assert (await echo_on(connection))[0] == "GET"

    async def test_curl_stores_what_it_sends(self, port: int, tmp_path: Path) -> None:
        file = tmp_path / "file"
        file.write_bytes(b"x" * 300_000)
        curl = await asyncio.create_subprocess_exec(
            *("curl", "-sS", "--http2", "-T", str(file), f"http://127.0.0.1:{port}/"),
            stdout=asyncio.subprocess.PIPE,
        )
        output, _ = await curl.communicate()

        assert json.loads(output)[:2] == ["PUT", "x" * 300_000]

    async def test_no_tunnel_is_opened(self, connection: Connection) -> None:
        connection.send(head(b"CONNECT maas:443") + GET)

        received = await connection.read_all()

        assert received.startswith(b"HTTP/1.1 501 ")
        assert received.count(b"content-length: ") == 1


class TestTrailers:
    async def test_never_become_headers(self, connection: Connection) -> None:
        trailers = b"Authorization: Bearer x\r\nX-API-Key: y\r\nIdempotency-Key: z\r\n"
        connection.send(head(b"PUT /", CHUNKED) + b"3\r\nabc\r\n0\r\n" + trailers + b"\r\n" + GET)

        assert await echo_on(connection) == ("PUT", "abc", ["host", "transfer-encoding"])
        assert await echo_on(connection) == ("GET", "", ["host"])

    @pytest.mark.parametrize("line", [b"X: " + b"y" * 1000 + b"\r\n", b"y" * 1000])
    async def test_past_the_limit_close_the_connection(
        self, connection: Connection, line: bytes
    ) -> None:
        connection.send(head(b"PUT /", CHUNKED) + b"3\r\nabc\r\n0\r\nX: 1")
        for _ in range(3 * MAX_TRAILER_BYTES // 1000):
            await asyncio.sleep(0.005)
            connection.send(line)

        received = await connection.read_all()

        assert received.startswith(b"HTTP/1.1 431 ")
        assert received.count(b"content-length: ") == 1

    async def test_all_at_once_are_counted_too(self, connection: Connection) -> None:
        lines = b"X: y\r\n" * (MAX_TRAILER_BYTES // 4)
        connection.send(head(b"PUT /", CHUNKED) + b"3\r\nabc\r\n0\r\n" + lines + b"\r\n")

        assert (await connection.read_all()).startswith(b"HTTP/1.1 431 ")

    async def test_a_large_body_in_chunks_is_none(self, connection: Connection) -> None:
        connection.send(head(b"PUT /", CHUNKED))
        for _ in range(100):
            connection.send(b"3e8\r\n" + b"x" * 1000 + b"\r\n")
        connection.send(b"0\r\n\r\n")

        assert (await echo_on(connection))[1] == "x" * 100_000


class TestEarlyAnswers:
    async def test_a_body_that_never_comes_is_not_waited_for(self, connection: Connection) -> None:
        connection.send(head(b"PUT /early", length(10)) + b"a")
        await echo_on(connection)

        assert await asyncio.wait_for(connection.read_all(), 3) == b""

    async def test_drops_of_it_win_no_time(self, connection: Connection) -> None:
        connection.send(head(b"PUT /early", length(1000)))
        await echo_on(connection)
        ended = asyncio.create_task(connection.read_all())
        for _ in range(60):
            connection.send(b"a")
            await asyncio.sleep(0.05)
            if ended.done():
                break

        assert ended.done()

    async def test_one_that_does_come_keeps_the_connection(self, connection: Connection) -> None:
        for _ in range(3):
            connection.send(head(b"PUT /early", length(3)))
            await echo_on(connection)
            connection.send(b"abc")
            await asyncio.sleep(0.3)
        connection.send(head(b"PUT /early", length(3)))
        await echo_on(connection)
        connection.send(b"abc" + GET)
        assert (await echo_on(connection))[0] == "GET"

        await asyncio.sleep(1)

        connection.send(GET)
        assert (await echo_on(connection))[0] == "GET"

    @pytest.mark.parametrize("path", [b"/early", b"/last"])
    async def test_a_client_that_still_sends_reads_the_answer(
        self, connection: Connection, path: bytes
    ) -> None:
        size = ImpatientProtocol.max_linger_bytes - 100_000
        connection.send(head(b"PUT " + path, length(size)) + b"x" * size)
        await connection.writer.drain()
        await asyncio.sleep(0.2)

        assert (await echo_on(connection))[0] == "PUT"

    async def test_what_follows_the_last_answer_is_not_served(self, connection: Connection) -> None:
        connection.send(head(b"PUT /last", length(3)))
        await asyncio.sleep(0.1)
        connection.send(b"abc" + GET)

        assert (await connection.read_all()).count(b"content-length: ") == 1

    @pytest.mark.parametrize("path", [b"/early", b"/last"])
    async def test_without_end_are_not_read(self, connection: Connection, path: bytes) -> None:
        connection.send(head(b"PUT " + path, length(10**9)))
        await echo_on(connection)

        taken = await asyncio.wait_for(send_until_closed(connection), 5)

        # What the kernel keeps on both sides is not read by us.
        assert taken < 32 * ImpatientProtocol.max_linger_bytes


async def test_a_bad_head_behind_a_request_does_not_take_its_answer(
    connection: Connection,
) -> None:
    connection.send(GET + b"\x16\x03 hello\r\n\r\n")

    received = await connection.read_all()

    assert received.startswith(b"HTTP/1.1 200 ")
    assert received.count(b"content-length: ") == 1


async def test_a_broken_body_is_refused_once(connection: Connection) -> None:
    connection.send(head(b"PUT /", CHUNKED) + b"3\r\nabc\r\nzz\r\n")

    received = await connection.read_all()

    assert received.startswith(b"HTTP/1.1 400 ")
    assert received.count(b"content-length: ") == 1


async def test_a_reader_who_takes_nothing_does_not_keep_a_broken_answers_connection() -> None:
    torrent = Torrent()
    async with serve(torrent, torrent.protocol()) as port:
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(GET)

            await asyncio.wait_for(torrent.lost.wait(), 20)
