"""A fuzz finds what a server does against its document: each broken promise is planted here."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, Final

import pytest
from typing_extensions import override

from tests.fuzz.people import ANONYMOUS
from tests.fuzz.tally import Tally
from tests.fuzz.turn import Order, take_turn

pytestmark = pytest.mark.e2e

PATH: Final = "/api/v1/things"
SECRET: Final = "planted-secret"
GOOD: Final = {"name": "thing"}


def _document(*, needs_credentials: bool = False) -> dict[str, Any]:
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string"}},
        "required": ["name"],
        "additionalProperties": False,
    }
    answer = {"description": "A thing", "content": {"application/json": {"schema": schema}}}
    operation: dict[str, Any] = {"responses": {"200": answer}}
    if needs_credentials:
        operation["security"] = [{"bearer": []}]
    return {
        "openapi": "3.1.0",
        "info": {"title": "Planted", "version": "1"},
        "paths": {PATH: {"get": operation}},
        "components": {"securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}}},
    }


@contextmanager
def _serving(status: int, body: object, headers: dict[str, str]) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(status, body, headers)

        @override
        def send_error(self, *_: object) -> None:
            """Refuse every other method as the platform does."""
            problem = {"code": "method-not-allowed", "status": 405, "request_id": "some-request"}
            allowed = {"Allow": "GET", "X-Request-ID": "some-request"}
            self._answer(405, problem, {**allowed, "Content-Type": "application/problem+json"})

        def _answer(self, status: int, body: object, headers: dict[str, str]) -> None:
            content = json.dumps(body).encode()
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        @override
        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def _fuzzed(
    *,
    status: int = 200,
    body: object = GOOD,
    media_type: str = "application/json",
    request_id: str = "some-request",
    needs_credentials: bool = False,
) -> Tally:
    headers = {"Content-Type": media_type, "X-Request-ID": request_id}
    with _serving(status, body, headers) as url:
        order = Order(
            url=url,
            roles=(ANONYMOUS,),
            requests=40,
            seed=1,
            document=_document(needs_credentials=needs_credentials),
            seeds={},
            secrets=(SECRET,),
            keeper=("nobody", "needed"),
        )
        return take_turn(order, _no_admin, lambda _: None)


def _no_admin() -> tuple[str, str]:
    raise AssertionError


def _found(tally: Tally) -> set[str]:
    return {fault.check for fault in tally.faults.values()}


class TestFuzz:
    def test_finds_nothing_where_every_promise_is_kept(self) -> None:
        tally = _fuzzed()

        assert _found(tally) == set()
        assert not tally.errors
        assert tally.reached[f"GET {PATH}"]

    def test_finds_a_status_that_is_not_declared(self) -> None:
        assert {"status_code_conformance", "refusal_is_declared"} <= _found(_fuzzed(status=202))

    def test_finds_a_server_error(self) -> None:
        assert "not_a_server_error" in _found(_fuzzed(status=500))

    def test_finds_a_shape_that_is_not_declared(self) -> None:
        assert "response_schema_conformance" in _found(_fuzzed(body={**GOOD, "extra": 1}))

    def test_finds_a_code_that_is_not_listed(self) -> None:
        problem = {"code": "made-up", "status": 409, "request_id": "some-request"}

        tally = _fuzzed(status=409, body=problem, media_type="application/problem+json")

        assert "refusal_is_declared" in _found(tally)

    def test_finds_an_answer_that_names_no_request(self) -> None:
        assert "names_its_request" in _found(_fuzzed(request_id=""))

    def test_finds_a_secret(self) -> None:
        assert "tells_nothing_more" in _found(_fuzzed(body={"name": SECRET}))

    def test_finds_what_answers_strangers(self) -> None:
        assert "strangers_are_asked" in _found(_fuzzed(needs_credentials=True))
