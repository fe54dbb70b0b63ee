"""What a full process says without the application, over real sockets."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import pytest
from fastapi import APIRouter, Request
from starlette.types import Receive, Scope, Send
from typing_extensions import override

from maas.inference.interface.openai_errors import render_openai_error
from maas.shared.interface.http_protocol import HeaderTimeoutProtocol
from maas.shared.interface.problems import Faces
from maas.shared.interface.shedding import SHEDDER_KEY, Shedder
from tests.fakes.edge import Edge, make_edge
from tests.fakes.sockets import Connection, connect, serve

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(60)]

MAX = 2
ID = b"X-Request-ID: one.two-3\r\n"
REFUSED = b"HTTP/1.1 503 Service Unavailable\r\n"
SERVED = b"HTTP/1.1 200 OK\r\n"


@dataclass(slots=True)
class Full:
    """A server with its fill, and how many requests have come as far as its application."""

    edge: Edge
    sheds: bool = True
    asked: int = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.asked += 1
        await self.edge.serve(scope, receive, send)

    def protocol(self) -> type[HeaderTimeoutProtocol]:
        shedder = Shedder(
            traffic=self.edge.traffic,
            metrics=self.edge.metrics,
            faces=self.edge.app.faces,
            trusted_proxies=["127.0.0.1"],
        )
        sheds = self.sheds

        class Shedding(HeaderTimeoutProtocol):
            linger_seconds = 0.5

            @override
            def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as there
                if sheds:
                    self.app_state[SHEDDER_KEY] = shedder
                super().connection_made(transport)
                self.timeout_keep_alive = 1

        return Shedding

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        async with serve(self, self.protocol()) as port, connect(port) as connection:
            yield connection


def make_full(*, sheds: bool = True, is_full: bool = True) -> Full:
    router = APIRouter()

    @router.get("/thing")
    @router.post("/thing")
    async def thing() -> str:
        return "thing"

    @router.get("/slow")
    async def slow(request: Request) -> str:
        state = request.app.state
        state.arrived.set()
        await state.gate.wait()
        return "slow"

    faces = Faces({"/v1": render_openai_error})
    edge = make_edge(router, max_in_flight=MAX, faces=faces, trusted_proxies=["127.0.0.1"])
    edge.app.state.arrived, edge.app.state.gate = asyncio.Event(), asyncio.Event()
    edge.client_address = ("127.0.0.1", 5000)
    edge.traffic.in_flight = MAX if is_full else 0
    return Full(edge, sheds=sheds)


def request(line: bytes, *headers: bytes, body: bytes = b"") -> bytes:
    length = b"Content-Length: %d\r\n" % len(body) if body else b""
    version = b"" if line.endswith(b"HTTP/1.0") else b" HTTP/1.1"
    return line + version + b"\r\nHost: maas\r\n" + b"".join(headers) + length + b"\r\n" + body


GET = request(b"GET /api/v1/thing", ID)


async def count_shed(full: Full) -> str:
    page = (await full.edge.metrics.render()).decode()
    return next(line for line in page.splitlines() if line.startswith("maas_http_requests_shed_t"))


async def ask(full: Full, sent: bytes, *, has_body: bool = True) -> tuple[bytes, set[bytes], bytes]:
    """Send one request; get the status line, the headers but for the date, and the body."""
    async with full.connection() as connection:
        connection.send(sent)
        if has_body:
            head, body = await connection.read_answer()
        else:
            head, body = await connection.reader.readuntil(b"\r\n\r\n"), b""
    line, *headers = head.rstrip().split(b"\r\n")
    return line, {each for each in headers if not each.startswith(b"date: ")}, body


@pytest.mark.parametrize(
    ("sent", "reaches_the_application"),
    [
        (GET, 0),
        (request(b"POST /api/v1/thing", ID, body=b"{}"), 0),
        (request(b"GET /v1/models", ID), 0),
        (request(b"GET /v1/models?limit=3", ID), 0),
        (request(b"GET /api/v1/%22%C3%A9%25~instance~~request-id~", ID), 0),
        (request(b"GET /api/v1/" + b"long/" * 200, ID), 0),
        (request(b"GET /api/v1/thing", ID, b"X-Forwarded-Proto: https\r\n"), 0),
        (request(b"GET /api/v1/thing", ID, b"Upgrade: h2c\r\nConnection: Upgrade\r\n"), 0),
        (request(b"HEAD /api/v1/thing", ID), 1),
        (request(b"GET /docs", ID), 1),
        (request(b"GET /api/v1/thing", ID, b"Connection: close\r\n"), 1),
        (request(b"GET /api/v1/thing HTTP/1.0", ID), 1),
    ],
)
async def test_a_refusal_is_the_one_that_the_edge_would_write(
    sent: bytes, reaches_the_application: int
) -> None:
    has_body = not sent.startswith(b"HEAD")
    full, plain = make_full(), make_full(sheds=False)

    shed = await ask(full, sent, has_body=has_body)

    assert shed == await ask(plain, sent, has_body=has_body)
    assert shed[0] == REFUSED.rstrip()
    assert full.asked == reaches_the_application
    assert await count_shed(full) == await count_shed(plain) == "maas_http_requests_shed_total 1.0"


async def test_a_refusal_without_an_id_gets_one_of_its_own() -> None:
    async with make_full().connection() as connection:
        ids = set()
        for _ in range(2):
            connection.send(request(b"GET /api/v1/thing"))
            head, body = await connection.read_answer()
            ids.add(json.loads(body)["request_id"])
            assert json.loads(body)["request_id"].encode() in head

    assert len(ids) == 2


async def test_health_and_metrics_are_answered_however_full_it_is() -> None:
    async with make_full().connection() as connection:
        connection.send(request(b"GET /health/live"))

        assert (await connection.read_answer())[0].startswith(SERVED)


async def test_a_connection_serves_on_after_a_refusal() -> None:
    full = make_full()
    async with full.connection() as connection:
        connection.send(request(b"POST /api/v1/thing", b"Content-Length: 4\r\n") + b"12")
        refused, _ = await connection.read_answer()
        full.edge.traffic.in_flight = 0
        connection.send(b"34" + GET)
        served, _ = await connection.read_answer()

    assert refused.startswith(REFUSED)
    assert served.startswith(SERVED)
    assert (full.asked, full.edge.traffic.arriving) == (1, 0)


async def test_a_refused_body_that_never_comes_is_not_waited_for() -> None:
    async with make_full().connection() as connection:
        connection.send(request(b"POST /api/v1/thing", b"Content-Length: 4\r\n"))

        received = await connection.read_all()

    assert received.startswith(REFUSED)
    assert received.count(b"HTTP/1.1") == 1


async def test_a_refused_body_that_is_broken_is_not_refused_again() -> None:
    chunked = request(b"POST /api/v1/thing", b"Transfer-Encoding: chunked\r\n")
    async with make_full().connection() as connection:
        connection.send(chunked + b"xyz\r\n")

        received = await connection.read_all()

    assert received.startswith(REFUSED)
    assert received.count(b"HTTP/1.1") == 1


async def test_a_refused_connection_that_says_no_more_is_closed() -> None:
    async with make_full().connection() as connection:
        connection.send(GET)

        assert (await connection.read_all()).startswith(REFUSED)


async def test_a_refusal_does_not_overtake_an_answer_under_way() -> None:
    full = make_full(is_full=False)
    async with full.connection() as connection:
        connection.send(request(b"GET /api/v1/slow"))
        await full.edge.app.state.arrived.wait()
        full.edge.traffic.in_flight += MAX
        connection.send(GET)
        await asyncio.sleep(0.1)
        full.edge.app.state.gate.set()
        first, _ = await connection.read_answer()
        second, _ = await connection.read_answer()

    assert first.startswith(SERVED)
    assert second.startswith(REFUSED)


async def test_who_is_let_in_counts_before_the_application_sees_it() -> None:
    full = make_full(is_full=False)
    async with AsyncExitStack() as stack:
        port = await stack.enter_async_context(serve(full, full.protocol()))
        crowd = [await stack.enter_async_context(connect(port)) for _ in range(3 * MAX)]
        # All are there before the server's next turn.
        for connection in crowd:
            connection.send(request(b"GET /api/v1/slow"))
        await full.edge.app.state.arrived.wait()
        full.edge.app.state.gate.set()
        answers = [(await connection.read_answer())[0] for connection in crowd]

    assert full.asked == MAX
    assert sum(answer.startswith(SERVED) for answer in answers) == MAX
    assert (full.edge.traffic.in_flight, full.edge.traffic.arriving) == (0, 0)
