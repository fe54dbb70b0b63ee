import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any

import httpx
import pytest
from fastapi import APIRouter, Form, Request

from maas.shared.interface import readers
from maas.shared.interface.readers import BodyLimits, StrictRoute
from maas.shared.interface.types import Name, StrictModel
from tests.fakes.edge import Edge, make_edge

pytestmark = pytest.mark.e2e

JSON = {"Content-Type": "application/json"}


class Thing(StrictModel):
    name: Name
    size: int = 1


class WideRoute(StrictRoute):
    limits = BodyLimits(max_bytes=8192, max_depth=128)


router = APIRouter(route_class=StrictRoute)
wide = APIRouter(route_class=WideRoute)


@router.post("/things")
async def create_thing(body: Thing) -> Thing:
    return body


@router.post("/optional")
async def maybe_create_thing(body: Thing | None = None) -> bool:
    return body is not None


@router.post("/form")
async def take_form(name: Annotated[str, Form()], word: Annotated[str, Form()]) -> list[str]:
    return [name, word]


@router.put("/stream")
async def take_stream(request: Request) -> int:
    return sum([len(chunk) async for chunk in request.stream()])


@wide.post("/wide")
async def take_object(body: dict[str, Any]) -> int:
    return len(body)


@pytest.fixture
def edge() -> Edge:
    return make_edge(router, wide, max_body_bytes=4096)


@pytest.fixture
async def client(edge: Edge) -> AsyncIterator[httpx.AsyncClient]:
    async with edge.client() as client:
        yield client


def assert_problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert answer.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = answer.json()
    assert (answer.status_code, document["code"]) == (status, code), answer.text
    assert document["status"] == status
    assert document["request_id"] == answer.headers["x-request-id"]
    assert document["type"] == f"/errors/{code}"
    return document


class TestJson:
    async def test_is_read(self, client: httpx.AsyncClient) -> None:
        answer = await client.post("/api/v1/things", json={"name": "模型"})

        assert answer.json() == {"name": "模型", "size": 1}

    @pytest.mark.parametrize(
        "content_type",
        [
            "application/json;charset=utf-8",
            'Application/JSON; charset="UTF-8"',
            "application/json; charset=utf8",
        ],
    )
    async def test_content_type_may_say_utf_8(
        self, client: httpx.AsyncClient, content_type: str
    ) -> None:
        answer = await client.post(
            "/api/v1/things", content=b'{"name":"a"}', headers={"Content-Type": content_type}
        )

        assert answer.status_code == 200

    @pytest.mark.parametrize(
        "headers",
        [
            {},
            {"Content-Type": "text/plain"},
            {"Content-Type": "application/x-www-form-urlencoded"},
            {"Content-Type": "application/problem+json"},
            {"Content-Type": "application/json; charset=latin-1"},
            {"Content-Type": "application/json; boundary=x"},
            {**JSON, "Content-Encoding": "gzip"},
            {**JSON, "Content-Encoding": "br"},
        ],
    )
    async def test_other_media_are_refused(
        self, client: httpx.AsyncClient, headers: dict[str, str]
    ) -> None:
        answer = await client.post("/api/v1/things", content=b'{"name":"a"}', headers=headers)

        assert_problem(answer, 415, "unsupported-media-type")

    @pytest.mark.parametrize(
        ("body", "code"),
        [
            (b"{", "invalid-json"),
            (b'{"name":"a","name":"b"}', "invalid-json"),
            (b'{"name":"a","size":NaN}', "invalid-json"),
            (b'{"name":"a","size":' + b"9" * 3000 + b"}", "invalid-json"),
            (b'{"name":"\xff"}', "invalid-json"),
            (b'\xef\xbb\xbf{"name":"a"}', "invalid-json"),
            (b"[" * 4000, "json-too-deep"),
            (b'{"name":"\\u0000"}', "invalid-characters"),
            (b'{"name":"\\ud800"}', "invalid-characters"),
            (b'{"name":"a","\\ud800":1}', "invalid-characters"),
            (b"[]", "validation-failed"),
            (b"null", "validation-failed"),
            (b'{"name":1}', "validation-failed"),
            (b'{"name":"a","size":"1"}', "validation-failed"),
            (b'{"name":"a","x":1}', "validation-failed"),
            (b"", "validation-failed"),
        ],
    )
    async def test_hostile_bodies_are_refused(
        self, client: httpx.AsyncClient, body: bytes, code: str
    ) -> None:
        answer = await client.post("/api/v1/things", content=body, headers=JSON)

        document = assert_problem(answer, 422, code)
        assert document["errors"][0]["loc"][0] == "body"

    async def test_the_input_is_not_echoed(self, client: httpx.AsyncClient) -> None:
        answer = await client.post("/api/v1/things", json={"name": ["hunter2"], "size": "hunter2"})

        assert_problem(answer, 422, "validation-failed")
        assert "hunter2" not in answer.text

    async def test_an_optional_body_may_be_empty(self, client: httpx.AsyncClient) -> None:
        assert (await client.post("/api/v1/optional")).json() is False
        assert (await client.post("/api/v1/optional", json={"name": "a"})).json() is True

    async def test_a_chunked_body_is_read_whole(self, client: httpx.AsyncClient) -> None:
        async def pieces() -> AsyncIterator[bytes]:
            for letter in '{"name":"模"}'.encode():
                yield bytes([letter])

        answer = await client.post("/api/v1/things", content=pieces(), headers=JSON)

        assert answer.json()["name"] == "模"


class TestSize:
    async def test_an_announced_body_too_large_is_refused_unread(self, edge: Edge) -> None:
        async def receive() -> dict[str, object]:
            raise AssertionError("nothing is to be read")

        sent = await edge.call(
            "/api/v1/things",
            receive,
            headers={"content-type": "application/json", "content-length": "4097"},
        )

        assert sent[0]["status"] == 413

    async def test_what_arrives_counts_not_what_was_announced(
        self, client: httpx.AsyncClient
    ) -> None:
        read = 0

        async def endless() -> AsyncIterator[bytes]:
            nonlocal read
            while True:
                read += 1024
                yield b" " * 1024

        answer = await client.post("/api/v1/things", content=endless(), headers=JSON)

        assert_problem(answer, 413, "payload-too-large")
        assert read < 16_384

    async def test_a_face_may_have_its_own_limits(self, client: httpx.AsyncClient) -> None:
        deep = b'{"a":' * 100 + b"1" + b"}" * 100
        padded = deep + b" " * 6000

        assert (await client.post("/api/v1/wide", content=padded, headers=JSON)).json() == 1
        too_large = await client.post("/api/v1/wide", content=b" " * 8193, headers=JSON)
        assert_problem(too_large, 413, "payload-too-large")

    async def test_a_slow_body_is_given_up(
        self, edge: Edge, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(readers, "BODY_TIMEOUT_SECONDS", 0.05)

        async def receive() -> dict[str, object]:
            await asyncio.sleep(60)
            return {}

        sent = await edge.call("/api/v1/things", receive, headers={})

        assert sent[0]["status"] == 408

    async def test_a_client_that_leaves_is_no_error(self, edge: Edge) -> None:
        async def receive() -> dict[str, object]:
            return {"type": "http.disconnect"}

        sent = await edge.call("/api/v1/things", receive, headers={})

        assert sent[0]["status"] == 499

    async def test_a_route_without_body_parameters_may_stream(
        self, client: httpx.AsyncClient
    ) -> None:
        answer = await client.put("/api/v1/stream", content=b"x" * 100_000)

        assert answer.json() == 100_000


class TestForm:
    async def test_is_read(self, client: httpx.AsyncClient) -> None:
        answer = await client.post("/api/v1/form", data={"name": "ada 1", "word": "a&b=模"})

        assert answer.json() == ["ada 1", "a&b=模"]

    @pytest.mark.parametrize(
        ("body", "content_type", "status", "code"),
        [
            (b'{"name":"a","word":"b"}', "application/json", 415, "unsupported-media-type"),
            (b"--x", "multipart/form-data; boundary=x", 415, "unsupported-media-type"),
            (b"name=a&name=b", "application/x-www-form-urlencoded", 422, "invalid-form"),
            (b"name=%00", "application/x-www-form-urlencoded", 422, "invalid-characters"),
            (b"name=a", "application/x-www-form-urlencoded", 422, "validation-failed"),
            (b"a" * 5000, "application/x-www-form-urlencoded", 413, "payload-too-large"),
        ],
    )
    async def test_hostile_ones_are_refused(
        self, client: httpx.AsyncClient, body: bytes, content_type: str, status: int, code: str
    ) -> None:
        answer = await client.post(
            "/api/v1/form", content=body, headers={"Content-Type": content_type}
        )

        assert_problem(answer, status, code)
