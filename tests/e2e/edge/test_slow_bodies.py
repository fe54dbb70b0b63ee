"""Bodies that are awaited hold no place that a request with work to do could have."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import httpx
import pytest
from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse
from starlette.types import Message

from maas.shared.interface import traffic
from maas.shared.interface.readers import StrictRoute
from maas.shared.interface.types import StrictModel
from tests.fakes.edge import Edge, make_edge
from tests.fakes.sockets import connect, serve

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(60)]

SLOW_CLIENTS = 1000
JSON = {"content-type": "application/json"}
BODY = b'{"name":"a"}'


class Thing(StrictModel):
    name: str


router = APIRouter(route_class=StrictRoute)


@router.post("/things")
async def create_thing(body: Thing) -> Thing:
    return body


@router.put("/stream")
async def take_stream(request: Request) -> int:
    return sum([len(chunk) async for chunk in request.stream()])


@router.get("/slow")
async def wait(request: Request) -> bool:
    await request.app.state.arrivals.put(1)
    is_open: bool = await request.app.state.gate.wait()
    return is_open


@router.get("/download")
async def give_stream() -> StreamingResponse:
    async def parts() -> AsyncIterator[bytes]:
        yield b"a"
        yield b"b"

    return StreamingResponse(parts())


@pytest.fixture
def edge() -> Edge:
    edge = make_edge(router, max_in_flight=2)
    edge.app.state.arrivals = asyncio.Queue()
    edge.app.state.gate = asyncio.Event()
    return edge


@pytest.fixture
async def client(edge: Edge) -> AsyncIterator[httpx.AsyncClient]:
    async with edge.client() as client:
        yield client


class SlowBody:
    """A `receive` that gives what is put in, when it is put in."""

    def __init__(self) -> None:
        self.parts: asyncio.Queue[tuple[bytes, bool]] = asyncio.Queue()

    async def receive(self) -> Message:
        body, more_body = await self.parts.get()
        return {"type": "http.request", "body": body, "more_body": more_body}


async def start(
    edge: Edge, body: SlowBody, path: str = "/api/v1/things", method: str = "POST"
) -> asyncio.Task[list[Message]]:
    call = asyncio.create_task(edge.call(path, body.receive, method=method, headers=JSON))
    await asyncio.sleep(0.01)
    return call


async def test_wait_without_a_place(edge: Edge, client: httpx.AsyncClient) -> None:
    bodies = [SlowBody() for _ in range(5)]
    calls = [await start(edge, body) for body in bodies]

    answer = await client.post("/api/v1/things", json={"name": "b"})

    assert answer.status_code == 200
    assert edge.traffic.in_flight == 0
    for body in bodies:
        body.parts.put_nowait((BODY, False))
    assert [(await call)[0]["status"] for call in calls] == [200] * 5
    assert edge.traffic.in_flight == 0


async def test_are_turned_away_when_others_took_the_place(
    edge: Edge, client: httpx.AsyncClient
) -> None:
    body = SlowBody()
    call = await start(edge, body)
    others = [asyncio.create_task(client.get("/api/v1/slow")) for _ in range(2)]
    for _ in others:
        await edge.app.state.arrivals.get()

    body.parts.put_nowait((BODY, False))

    sent = await call
    assert sent[0]["status"] == 503
    assert (b"retry-after", b"1") in sent[0]["headers"]
    edge.app.state.gate.set()
    assert [(await other).status_code for other in others] == [200, 200]
    assert edge.traffic.in_flight == 0
    assert "maas_http_requests_shed_total 1.0" in (await edge.metrics.render()).decode()


async def test_of_uploads_go_on_whatever_others_do(edge: Edge, client: httpx.AsyncClient) -> None:
    body = SlowBody()
    call = await start(edge, body, "/api/v1/stream", "PUT")
    others = [asyncio.create_task(client.get("/api/v1/slow")) for _ in range(2)]
    for _ in others:
        await edge.app.state.arrivals.get()

    body.parts.put_nowait((BODY[:5], True))
    body.parts.put_nowait((BODY[5:], False))

    assert (await call)[0]["status"] == 200
    edge.app.state.gate.set()
    await asyncio.gather(*others)
    assert edge.traffic.in_flight == 0


async def test_that_are_given_up_leave_the_count_right(edge: Edge) -> None:
    call = await start(edge, SlowBody())

    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call

    assert edge.traffic.in_flight == 0


async def test_are_kept_within_a_bound_of_all_together(
    edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(traffic, "MAX_HELD_BYTES", 100_000)
    bodies = [SlowBody() for _ in range(3)]
    calls = [await start(edge, body) for body in bodies]
    for body in bodies[:2]:
        body.parts.put_nowait((b" " * (traffic.FREE_BYTES + 60_000), True))
    await asyncio.sleep(0.01)
    bodies[2].parts.put_nowait((BODY, False))

    assert (await calls[1])[0]["status"] == 503
    assert (await calls[2])[0]["status"] == 200
    bodies[0].parts.put_nowait((BODY, False))
    assert (await calls[0])[0]["status"] == 200
    assert edge.traffic.held_bytes == 0


async def test_a_slow_reader_has_no_place_either(edge: Edge, client: httpx.AsyncClient) -> None:
    is_read, is_sent = asyncio.Event(), asyncio.Semaphore(0)

    async def send(message: Message) -> None:
        if message.get("more_body"):
            is_sent.release()
            await is_read.wait()

    scope = {
        "type": "http", "method": "GET", "scheme": "http", "path": "/api/v1/download",
        "raw_path": b"/api/v1/download", "query_string": b"", "headers": [],
    }  # fmt: skip
    readers = []
    for _ in range(3):
        readers.append(asyncio.create_task(edge.serve(dict(scope), SlowBody().receive, send)))
        await is_sent.acquire()

    assert edge.traffic.in_flight == 0
    assert (await client.post("/api/v1/things", json={"name": "b"})).status_code == 200
    is_read.set()
    await asyncio.gather(*readers)
    assert edge.traffic.in_flight == 0


async def test_a_thousand_of_them_disturb_nobody(edge: Edge) -> None:
    head = b"POST /api/v1/things HTTP/1.1\r\nHost: maas\r\nContent-Type: application/json\r\n"
    async with AsyncExitStack() as stack:
        port = await stack.enter_async_context(serve(edge.serve))
        for _ in range(SLOW_CLIENTS):
            slow = await stack.enter_async_context(connect(port))
            slow.send(head + b"Content-Length: 12\r\n\r\n" + BODY[:3])
        client = await stack.enter_async_context(
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}")
        )

        started = time.perf_counter()
        live = await client.get("/health/live")
        answers = [await client.post("/api/v1/things", json={"name": "b"}) for _ in range(20)]

        assert live.status_code == 200
        assert {answer.status_code for answer in answers} == {200}
        assert time.perf_counter() - started < 15
