"""Request heads that never end, never fit or never were HTTP, over real sockets."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from typing import cast
from uuid import UUID

import pytest
import uvicorn

from maas.shared.interface.contract import PROBLEM_SCHEMA
from maas.shared.interface.http_protocol import MAX_HEAD_BYTES, HeaderTimeoutProtocol

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(60)]

GET = b"GET / HTTP/1.1\r\nHost: maas\r\n\r\n"


class ImpatientProtocol(HeaderTimeoutProtocol):
    head_timeout_seconds = 0.3


async def answer_with_length(scope: object, receive: object, send: object) -> None:
    """Answer with the number of bytes of the body."""
    length, more = 0, True
    while more:
        message = await receive()  # type: ignore[operator]  # plain ASGI
        length += len(message.get("body", b""))
        more = message.get("more_body", False)
    body = str(length).encode()
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})  # type: ignore[operator]  # likewise
    await send({"type": "http.response.body", "body": body})  # type: ignore[operator]  # likewise


@dataclass(slots=True)
class Connection:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def read_all(self) -> bytes:
        """Read until the server closes; a reset after its answer is a close too."""
        received = b""
        with suppress(ConnectionResetError):
            while chunk := await self.reader.read(65536):
                received += chunk
        return received


@pytest.fixture
async def port() -> AsyncIterator[int]:
    config = uvicorn.Config(
        answer_with_length, port=0, http=ImpatientProtocol, lifespan="off", log_config=None
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110  uvicorn offers no event to wait for
        await asyncio.sleep(0.01)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    await serving


@pytest.fixture
async def connection(port: int) -> AsyncIterator[Connection]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    yield Connection(reader, writer)
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()


def problem_in(answer: bytes) -> tuple[str, dict[str, object]]:
    """Read an answer that has all the edge's others have."""
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    problem = json.loads(body)
    assert headers["content-type"] == "application/problem+json"
    assert headers["content-length"] == str(len(body))
    assert headers["connection"] == "close"
    assert headers["x-api-version"] == "1"
    assert headers["x-request-id"] == problem["request_id"]
    assert problem["instance"] == f"urn:uuid:{UUID(problem['request_id'])}"
    assert problem["type"] == f"/errors/{problem['code']}"
    assert set(cast("list[str]", PROBLEM_SCHEMA["required"])) <= problem.keys()
    return status, problem


async def test_a_head_that_never_ends_is_answered_and_closed(connection: Connection) -> None:
    connection.send(GET[:-2])

    status, problem = problem_in(await connection.read_all())

    assert status == "HTTP/1.1 408 Request Timeout"
    assert problem["code"] == "request-timeout"


async def test_a_head_in_drops_gets_no_more_time(connection: Connection) -> None:
    for byte in GET[:6]:
        connection.send(bytes([byte]))
        await asyncio.sleep(0.07)

    status, _ = problem_in(await connection.read_all())

    assert status.startswith("HTTP/1.1 408")


async def test_a_connection_that_says_nothing_is_closed(connection: Connection) -> None:
    assert await connection.read_all() == b""


async def test_a_head_that_does_not_fit_is_refused(connection: Connection) -> None:
    connection.send(b"GET / HTTP/1.1\r\nHost: maas\r\n")
    for number in range(2 * MAX_HEAD_BYTES // 1000):
        connection.send(b"X-%d: " % number + b"x" * 1000 + b"\r\n")
        await connection.writer.drain()

    status, problem = problem_in(await connection.read_all())

    assert status == "HTTP/1.1 431 Request Header Fields Too Large"
    assert str(MAX_HEAD_BYTES) in str(problem["detail"])


async def test_what_is_not_http_gets_a_problem_too(connection: Connection) -> None:
    connection.send(b"\x16\x03\x01 hello\r\n\r\n")

    status, problem = problem_in(await connection.read_all())

    assert status == "HTTP/1.1 400 Bad Request"
    assert problem["code"] == "bad-request"


async def test_a_large_body_is_no_head(connection: Connection) -> None:
    body = b"x" * (4 * MAX_HEAD_BYTES)
    connection.send(
        b"PUT / HTTP/1.1\r\nHost: maas\r\nConnection: close\r\n"
        b"Content-Length: %d\r\n\r\n" % len(body) + body
    )

    answer = await connection.read_all()

    assert answer.startswith(b"HTTP/1.1 200")
    assert answer.endswith(str(len(body)).encode())


async def test_a_slow_body_is_not_taken_for_a_slow_head(connection: Connection) -> None:
    connection.send(
        b"PUT / HTTP/1.1\r\nHost: maas\r\nConnection: close\r\nContent-Length: 2\r\n\r\n"
    )
    await asyncio.sleep(0.5)
    connection.send(b"ab")

    assert (await connection.read_all()).startswith(b"HTTP/1.1 200")


async def test_each_request_of_a_kept_connection_has_its_own_time(connection: Connection) -> None:
    for _ in range(3):
        connection.send(GET)
        answer = await connection.reader.readuntil(b"\r\n\r\n")
        await connection.reader.readexactly(1)
        assert answer.startswith(b"HTTP/1.1 200")
        await asyncio.sleep(0.2)
    connection.send(GET[:10])

    status, _ = problem_in(await connection.read_all())

    assert status.startswith("HTTP/1.1 408")
