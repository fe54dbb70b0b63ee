"""HEAD, which is served wherever GET is (RFC 9110, 9.3.2): the same headers and no body."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import APIRouter, Response
from fastapi.responses import StreamingResponse
from starlette.types import Message

from maas.shared.interface.readers import StrictRoute
from maas.shared.interface.security import HEALTH_PATHS, requires
from tests.fakes.edge import Edge, make_edge

pytestmark = pytest.mark.e2e

router = APIRouter(route_class=StrictRoute)


@router.get("/things/{thing}")
async def get_thing(thing: str, response: Response) -> list[str]:
    response.headers["ETag"] = '"7"'
    return [thing]


@router.get("/streamed")
async def stream() -> StreamingResponse:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"a"
        yield b"b"

    return StreamingResponse(chunks())


@router.get("/guarded", dependencies=[requires("thing:read")])
async def get_guarded() -> None: ...


@router.post("/posted")
async def post() -> None: ...


@pytest.fixture
def edge() -> Edge:
    return make_edge(router)


@pytest.fixture
async def client(edge: Edge) -> AsyncIterator[httpx.AsyncClient]:
    async with edge.client() as client:
        yield client


async def say_nothing() -> Message:
    await asyncio.Event().wait()
    return {}


@pytest.mark.parametrize("path", sorted([*HEALTH_PATHS, "/api/version", "/docs", "/openapi.json"]))
async def test_what_has_a_get_has_a_head(client: httpx.AsyncClient, path: str) -> None:
    assert (await client.head(path)).status_code == 200


@pytest.mark.parametrize("path", ["/health/live", "/api/v1/things/a", "/api/v1/things/a?x=1"])
async def test_its_headers_are_those_of_the_get(client: httpx.AsyncClient, path: str) -> None:
    got = await client.get(path)

    head = await client.head(path)

    assert head.status_code == got.status_code
    for name in ("content-length", "content-type", "etag", "x-api-version"):
        assert head.headers.get(name) == got.headers.get(name)


@pytest.mark.parametrize("path", ["/health/live", "/api/v1/things/a", "/api/v1/streamed"])
async def test_no_body_leaves_the_application(edge: Edge, path: str) -> None:
    sent = await edge.call(path, say_nothing, method="HEAD", headers={})

    assert sent[0]["status"] == 200
    assert b"".join(message.get("body", b"") for message in sent[1:]) == b""
    assert not sent[-1].get("more_body", False)


async def test_a_known_version_is_not_described_again(client: httpx.AsyncClient) -> None:
    answer = await client.head("/api/v1/things/a", headers={"If-None-Match": '"7"'})

    assert answer.status_code == 304


async def test_it_is_guarded_as_the_get_is(client: httpx.AsyncClient) -> None:
    assert (await client.head("/api/v1/guarded")).status_code == 401


async def test_without_a_get_there_is_none(client: httpx.AsyncClient) -> None:
    answer = await client.head("/api/v1/posted")

    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
