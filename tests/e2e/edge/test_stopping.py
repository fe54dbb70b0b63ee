"""What a stopping server does with connections that are kept open, over real sockets."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send
from typing_extensions import override

from maas.shared.infrastructure.metrics import Metrics
from maas.shared.interface.http_protocol import HeaderTimeoutProtocol
from maas.shared.interface.problems import Faces
from maas.shared.interface.shedding import SHEDDER_KEY, Shedder
from maas.shared.interface.traffic import Traffic

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(60)]

GET = b"GET / HTTP/1.1\r\nHost: maas\r\n\r\n"
GET_SLOWLY = b"GET /slowly HTTP/1.1\r\nHost: maas\r\n\r\n"
ANSWER = b"HTTP/1.1 200 OK"


class PatientProtocol(HeaderTimeoutProtocol):
    last_request_seconds = 30.0


class HurriedProtocol(HeaderTimeoutProtocol):
    last_request_seconds = 0.2

    @override
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as there
        self.app_state[SHEDDER_KEY] = Shedder(
            traffic=Traffic(max_in_flight=9), metrics=Metrics(), faces=Faces()
        )
        super().connection_made(transport)


class Application:
    """Answers at once, and what is asked for slowly when it is told to go on."""

    def __init__(self) -> None:
        self.goes_on = asyncio.Event()
        self.asked = 0

    async def __call__(self, scope: Scope, _: Receive, send: Send) -> None:
        self.asked += 1
        headers = [(b"content-length", b"2")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"o", "more_body": True})
        try:
            if scope["path"] == "/slowly":
                await self.goes_on.wait()
        finally:
            # As a stream does that is cut: it ends well, and its task does not.
            await send({"type": "http.response.body", "body": b"k"})


@asynccontextmanager
async def stopping(
    protocol: type[HeaderTimeoutProtocol],
    application: Application,
    *,
    under_way: bytes = b"",
    patience_seconds: int | None = None,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter, "asyncio.Task[None]"]]:
    """Have a connection that was answered once to a server that has begun to stop.

    What is `under_way` by then has its head and its first byte.
    """
    config = uvicorn.Config(
        application,
        port=0,
        http=protocol,
        lifespan="off",
        log_config=None,
        timeout_graceful_shutdown=patience_seconds,
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110  uvicorn offers no event to wait for
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(GET)
    await reader.readuntil(b"ok")
    if under_way:
        writer.write(under_way)
        await reader.readuntil(b"\r\n\r\no")
    server.should_exit = True
    while server.servers[0].is_serving():  # noqa: ASYNC110  likewise
        await asyncio.sleep(0.01)
    yield reader, writer, serving
    writer.close()
    await serving


async def test_a_request_that_was_on_its_way_is_answered_and_is_the_last() -> None:
    async with stopping(PatientProtocol, Application()) as (reader, writer, _):
        writer.write(GET)

        assert ANSWER in await reader.read()


async def test_a_connection_that_an_answer_has_promised_to_keep_takes_one_more() -> None:
    application = Application()
    async with stopping(PatientProtocol, application, under_way=GET_SLOWLY) as (reader, writer, _):
        application.goes_on.set()
        assert await reader.readexactly(1) == b"k"
        writer.write(GET)

        answered = await reader.read()

    assert answered.startswith(ANSWER)
    assert b"connection: close" in answered


async def test_who_comes_late_on_a_kept_connection_is_told_that_the_server_stops() -> None:
    application = Application()
    async with stopping(HurriedProtocol, application, under_way=GET_SLOWLY) as (reader, writer, _):
        await asyncio.sleep(2 * HurriedProtocol.last_request_seconds)
        application.goes_on.set()
        assert await reader.readexactly(1) == b"k"
        writer.write(b"POST / HTTP/1.1\r\nHost: maas\r\nContent-Length: 4\r\n\r\nbody")

        answered = await reader.read()

    assert application.asked == 2
    assert answered.startswith(b"HTTP/1.1 503 ")
    assert b"connection: close" in answered
    assert b"retry-after: 1" in answered
    assert b"This server is stopping." in answered


async def test_a_stream_that_is_cut_keeps_its_connection_for_who_asks_again_at_once() -> None:
    application = Application()
    async with stopping(HurriedProtocol, application, under_way=GET_SLOWLY, patience_seconds=1) as (
        reader,
        writer,
        _,
    ):
        assert await reader.readexactly(1) == b"k"
        await asyncio.sleep(HurriedProtocol.last_request_seconds / 2)
        writer.write(GET)

        answered = await reader.read()

    assert application.asked == 2
    assert answered.startswith(b"HTTP/1.1 503 ")
    assert b"connection: close" in answered


async def test_an_idle_connection_does_not_keep_the_server() -> None:
    began = time.monotonic()

    async with stopping(HeaderTimeoutProtocol, Application()) as (reader, _, serving):
        assert await reader.read() == b""
        await asyncio.wait_for(serving, 10)

    assert time.monotonic() - began >= HeaderTimeoutProtocol.last_request_seconds
