"""What a stopping server does with connections that are kept open, over real sockets."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import uvicorn

from maas.shared.interface.http_protocol import HeaderTimeoutProtocol

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(60)]

GET = b"GET / HTTP/1.1\r\nHost: maas\r\n\r\n"
ANSWER = b"HTTP/1.1 200 OK"


class PatientProtocol(HeaderTimeoutProtocol):
    last_request_seconds = 30.0


async def answer(scope: object, receive: object, send: object) -> None:
    headers = [(b"content-length", b"2")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})  # type: ignore[operator]  # plain ASGI
    await send({"type": "http.response.body", "body": b"ok"})  # type: ignore[operator]  # likewise


@asynccontextmanager
async def stopping(
    protocol: type[HeaderTimeoutProtocol],
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter, "asyncio.Task[None]"]]:
    """Have a connection that was answered once to a server that has begun to stop."""
    config = uvicorn.Config(answer, port=0, http=protocol, lifespan="off", log_config=None)
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110  uvicorn offers no event to wait for
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(GET)
    await reader.readuntil(b"ok")
    server.should_exit = True
    while server.servers[0].is_serving():  # noqa: ASYNC110  likewise
        await asyncio.sleep(0.01)
    yield reader, writer, serving
    writer.close()
    await serving


async def test_a_request_that_was_on_its_way_is_answered_and_is_the_last() -> None:
    async with stopping(PatientProtocol) as (reader, writer, _):
        writer.write(GET)

        assert ANSWER in await reader.read()


async def test_an_idle_connection_does_not_keep_the_server() -> None:
    began = time.monotonic()

    async with stopping(HeaderTimeoutProtocol) as (reader, _, serving):
        assert await reader.read() == b""
        await asyncio.wait_for(serving, 10)

    assert time.monotonic() - began >= HeaderTimeoutProtocol.last_request_seconds
