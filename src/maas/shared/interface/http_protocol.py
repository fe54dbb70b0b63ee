"""uvicorn's HTTP protocol with the limits it lacks: on the time and the size of a request's head.

ASGI sees a request only once its head is complete, so a client that never finishes one can be
stopped here alone.
"""

import asyncio
from http import HTTPStatus
from typing import Final

import structlog
from typing_extensions import override
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from maas.shared.interface.middleware import API_HEADERS, new_request_id
from maas.shared.interface.problems import Problem, render_problem

MAX_HEAD_BYTES: Final = 64 * 1024

_NOT_HTTP: Final = Problem(
    status=400,
    code="bad-request",
    title="Not an HTTP request",
    detail="This is not a well-formed HTTP/1.1 request.",
)
_HEAD_TOO_SLOW: Final = Problem(
    status=408,
    code="request-timeout",
    title="The request's head took too long to arrive",
    detail="The request's head did not arrive in time.",
)
_HEAD_TOO_LARGE: Final = Problem(
    status=431,
    code="request-header-fields-too-large",
    title="The request's head is too large",
    detail="A request's head has at most 65536 bytes.",
)

_log = structlog.get_logger("maas.edge")


class HeaderTimeoutProtocol(HttpToolsProtocol):
    """Closes a connection whose request head is late, too large, or not HTTP."""

    head_timeout_seconds = 10.0

    _timer: asyncio.TimerHandle | None = None
    _head_bytes: int = 0
    _is_in_head: bool = True

    @override
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        # The base class narrows the argument likewise.
        super().connection_made(transport)
        self._await_head()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    @override
    def data_received(self, data: bytes) -> None:
        if self._is_in_head:
            if self._timer is None:
                self._await_head()
            self._head_bytes += len(data)
            # What follows the head in the same chunk is at most one read, so it may count.
            if self._head_bytes > MAX_HEAD_BYTES + len(data):
                self._refuse(_HEAD_TOO_LARGE)
                return
        super().data_received(data)

    @override
    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._is_in_head = True

    @override
    def on_headers_complete(self) -> None:
        self._is_in_head = False
        self._head_bytes = 0
        self._stop_timer()
        super().on_headers_complete()

    @override
    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._is_in_head = True

    @override
    def send_400_response(self, msg: str) -> None:
        self._refuse(_NOT_HTTP)

    def _await_head(self) -> None:
        self._timer = self.loop.call_later(self.head_timeout_seconds, self._give_up)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up(self) -> None:
        self._timer = None
        if self._head_bytes:
            self._refuse(_HEAD_TOO_SLOW)
        else:
            self.transport.close()

    def _refuse(self, problem: Problem) -> None:
        """Answer without the application, which never saw a request, and close."""
        request_id = new_request_id()
        # No path is known for certain, so the refusal itself is what the document is about.
        answer = render_problem(problem, f"urn:uuid:{request_id}", request_id)
        headers = [
            *answer.raw_headers,
            *API_HEADERS,
            (b"x-request-id", request_id.encode()),
            (b"cache-control", b"no-store"),
            (b"connection", b"close"),
        ]
        phrase = HTTPStatus(problem.status).phrase
        self.transport.write(
            f"HTTP/1.1 {problem.status} {phrase}\r\n".encode()
            + b"".join(b"%s: %s\r\n" % header for header in headers)
            + b"\r\n"
            + bytes(answer.body)
        )
        self.transport.close()
        _log.info("head_refused", status=problem.status, code=problem.code, request_id=request_id)
