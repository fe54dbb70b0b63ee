"""uvicorn's HTTP protocol with what it lacks.

ASGI sees a request only once its head is complete, so these are settled here: heads that never
end, upgrades, trailers, and what still comes after an answer.
"""

import asyncio
import math
from collections.abc import Callable
from http import HTTPStatus
from typing import Final, cast
from urllib.parse import unquote

import httptools
import structlog
from typing_extensions import override
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from maas.shared.interface.middleware import API_HEADERS, new_request_id
from maas.shared.interface.problems import Problem, render_problem
from maas.shared.interface.shedding import SHEDDER_KEY, Shedder
from maas.shared.interface.traffic import ARRIVING_KEY

MAX_HEAD_BYTES: Final = 64 * 1024
MAX_TRAILER_BYTES: Final = 8 * 1024

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
_TRAILERS_TOO_LARGE: Final = Problem(
    status=431,
    code="request-header-fields-too-large",
    title="The request's trailers are too large",
    detail="What follows a request's body has at most 8192 bytes.",
)
_NO_TUNNEL: Final = Problem(
    status=501,
    code="not-implemented",
    title="This server opens no tunnels",
    detail="Send the request without CONNECT.",
)

_log = structlog.get_logger("maas.edge")


class TrailersTooLargeError(Exception):
    """Stops the parser from inside a callback."""


class HeaderTimeoutProtocol(HttpToolsProtocol):
    """Closes a connection whose request head is late, too large, or not HTTP.

    Upgrades are ignored (RFC 9110, 7.8) and trailers dropped. A body that an answer did not wait
    for is thrown away within limits: after a reset, its sender could not read the answer.
    """

    head_timeout_seconds = 10.0
    linger_seconds = 5.0
    max_linger_bytes = 8 * 1024 * 1024
    last_request_seconds = 0.5
    """So long an idle connection of a stopping server stays: a request may be on its way."""

    _answering: "_AnswerTransport"
    _answered: RequestResponseCycle
    """Whose answer is under way, or was the last; `cycle` may be a request behind it."""
    _timer: asyncio.TimerHandle | None = None
    """Of a head that is awaited, or of a body that is thrown away."""
    _is_in_head: bool = True
    _head_bytes: int = 0
    _trailer_bytes: int = 0
    _silent_bytes: int = 0
    """What came since the last byte of a body: trailers, or the frame of a chunk."""
    _spare_bytes: int | None = None
    """How much more is thrown away; `None` while requests are served."""
    _is_final: bool = False
    """Nothing is parsed any more."""
    _is_stopping: bool = False
    _refuses_from: float = math.inf
    _shedder: Shedder | None = None
    _is_shed: bool = False
    """The message that is read was answered as soon as its head was there."""

    @override
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        # The base class narrows the argument likewise.
        super().connection_made(transport)
        self._answering = _AnswerTransport(transport, self._close_after_answer)
        self._shedder = self.app_state.get(SHEDDER_KEY)
        self._await_head()

    @override
    def shutdown(self) -> None:
        """Close once nothing is under way; what arrives until then is answered, as the last.

        An answer whose head is out has promised that the connection stays, so it does for a while:
        what comes on it by then was on its way, what comes later is told that the server stops.
        """
        self._is_stopping = True
        self._refuses_from = self.loop.time() + self.last_request_seconds
        cycle = cast("RequestResponseCycle | None", self.cycle)
        if cycle is None or cycle.response_complete:
            self._close_soon()
        elif not cycle.response_started:
            super().shutdown()

    def _close_soon(self) -> None:
        self.loop.call_later(self.last_request_seconds, super().shutdown)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        self._answering.close = self.transport.close
        super().connection_lost(exc)

    @override
    def data_received(self, data: bytes) -> None:
        if self._spare_bytes is not None and self._throws_away(len(data)):
            return
        if self._is_in_head:
            if self._timer is None:
                self._await_head()
            self._head_bytes += len(data)
            # What follows the head in the same chunk is at most one read, so it may count.
            if self._head_bytes > MAX_HEAD_BYTES + len(data):
                self._refuse(_HEAD_TOO_LARGE)
                return
        else:
            self._silent_bytes += len(data)
            if self._silent_bytes > MAX_TRAILER_BYTES + len(data):
                self._refuse(_TRAILERS_TOO_LARGE)
                return
        self._unset_keepalive_if_required()
        try:
            self._parse(data)
        except httptools.HttpParserError:
            is_long = self._trailer_bytes > MAX_TRAILER_BYTES
            self._refuse(_TRAILERS_TOO_LARGE if is_long else _NOT_HTTP)
        else:
            self._go_on_after_shedding()

    def _go_on_after_shedding(self) -> None:
        if not self._is_shed or self._spare_bytes is not None:
            return
        if self._is_stopping:
            self.transport.close() if self._is_in_head else self._linger()
        elif self._is_in_head:
            self._serve_on()
        else:
            self._throw_away()

    def _parse(self, data: bytes | memoryview) -> None:
        while True:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as pause:
                if self.parser.get_method() == b"CONNECT":
                    self._refuse(_NO_TUNNEL)
                    return
                data = memoryview(data)[pause.args[0] :]
                self._read_head_again()
            else:
                return

    def _read_head_again(self) -> None:
        """Read it without `Upgrade`: of a request that has it, the parser skips the body."""
        version = self.parser.get_http_version().encode()
        lines = [b"%s %s HTTP/%s" % (self.parser.get_method(), self.url, version)]
        lines += [name + b": " + value for name, value in self.headers if name != b"upgrade"]
        self.parser = httptools.HttpRequestParser(self)
        # As the base class has it: a request behind the last one is not taken for nonsense.
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self.parser.feed_data(b"\r\n".join(lines) + b"\r\n\r\n")

    @override
    def _should_upgrade(self) -> bool:
        # Asked of upgrades alone. The base class then leaves them be, and they are read again.
        return True

    @override
    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._is_in_head = True
        self._is_shed = False

    @override
    def on_header(self, name: bytes, value: bytes) -> None:
        if self._is_in_head:
            super().on_header(name, value)
            return
        self._trailer_bytes += len(name) + len(value) + len(b": \r\n")
        if self._trailer_bytes > MAX_TRAILER_BYTES:
            raise TrailersTooLargeError

    @override
    def on_headers_complete(self) -> None:
        self._is_in_head = False
        self._head_bytes = self._trailer_bytes = self._silent_bytes = 0
        self._stop_timer()
        self._unset_keepalive_if_required()
        if self._shedder is not None and (self._is_stopping or self._shedder.is_full()):
            self._is_shed = self._shed(self._shedder)
        if not self._is_shed:
            super().on_headers_complete()

    def _shed(self, shedder: Shedder) -> bool:
        """Turn a request away if nothing is in the way; the edge does it otherwise."""
        cycle = cast("RequestResponseCycle | None", self.cycle)
        parser = self.parser
        if (
            (cycle is not None and not cycle.response_complete)
            or (self._is_stopping and self.loop.time() < self._refuses_from)
            or self.transport.is_closing()
            or parser.get_method() == b"HEAD"
            or parser.get_http_version() != "1.1"
            or not parser.should_keep_alive()
            or parser.should_upgrade()
        ):
            return False
        path = httptools.parse_url(self.url).path.decode("ascii")
        answer = shedder.refuse(
            unquote(path) if "%" in path else path,
            self.headers,
            peer=self.client[0] if self.client else None,
            scheme=self.scheme or "http",
            default=self.server_state.default_headers,
            is_last=self._is_stopping,
        )
        if answer is None:
            return False
        self.server_state.total_requests += 1
        self.transport.write(answer)
        return True

    @override
    def on_body(self, body: bytes) -> None:
        self._silent_bytes = 0
        if not self._is_shed:
            super().on_body(body)

    @override
    def on_message_complete(self) -> None:
        if not self._is_shed:
            super().on_message_complete()
        self._is_in_head = True
        if self._spare_bytes is not None:
            self._serve_on()

    @override
    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._answered = cycle
        cycle.transport = self._answering  # type: ignore[assignment]  # all that a cycle uses
        if self._is_stopping:
            cycle.keep_alive = False
        if self._shedder is not None:
            cycle.scope[ARRIVING_KEY] = True  # type: ignore[literal-required]  # ours
            self._shedder.traffic.arriving += 1
        super()._start_asgi_task(cycle, app)

    @override
    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._is_stopping:
            self._close_soon()
        if self._is_final:
            self._unset_keepalive_if_required()
        elif self.cycle.response_complete and self.cycle.more_body:
            self._throw_away()

    def _throw_away(self) -> None:
        """Take what is left of a body, within limits."""
        self._unset_keepalive_if_required()
        self._stop_timer()
        self._spare_bytes = self.max_linger_bytes
        self._timer = self.loop.call_later(self.linger_seconds, self.transport.close)

    def _throws_away(self, size: int) -> bool:
        """Count what comes after an answer; tell whether it is not even parsed."""
        self._spare_bytes = (self._spare_bytes or 0) - size
        if self._spare_bytes <= 0:
            if not self._is_final:
                self._end_answers()
            self.flow.pause_reading()
        return self._is_final

    def _serve_on(self) -> None:
        self._spare_bytes = None
        self._stop_timer()
        self._unset_keepalive_if_required()
        self.timeout_keep_alive_task = self.loop.call_later(
            self.timeout_keep_alive, self.timeout_keep_alive_handler
        )

    def _close_after_answer(self) -> None:
        if self._is_stopping and self._answered.response_complete and self._answered.keep_alive:
            # A task that was cut closes, though its answer ended well and promised another: the
            # one who believed it asks again at once, and would meet a reset. It closes soon.
            return
        if self.cycle.more_body and not self.transport.is_closing():
            self._linger()
            return
        if not self._answered.response_complete and not self.transport.is_closing():
            # Its reader may be why: closing alone waits for as long as nobody reads.
            self._stop_timer()
            self._timer = self.loop.call_later(self.linger_seconds, self.transport.abort)
        self.transport.close()

    def _linger(self) -> None:
        """Close once the client has had the time to read the last answer."""
        self._throw_away()
        self._end_answers()
        self.pipeline.clear()
        self.flow.resume_reading()

    def _end_answers(self) -> None:
        self._is_final = True
        if self.transport.can_write_eof():
            self.transport.write_eof()

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
        """Answer without the application, if no other answer is in the way, and close."""
        cycle = cast("RequestResponseCycle | None", self.cycle)
        if self._is_shed and not self._is_in_head:
            self.transport.close()
            return
        if cycle is not None and not cycle.response_complete and self._is_in_head:
            # The answer to an earlier request comes first, and is the last.
            cycle.keep_alive = False
            self._stop_timer()
            self._is_final, self._spare_bytes = True, self.max_linger_bytes
            return
        if cycle is not None and not self._is_in_head:
            if cycle.response_started or self.pipeline:
                self.transport.close()
                return
            cycle.disconnected = True
            cycle.message_event.set()
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
        self._linger()
        _log.info("head_refused", status=problem.status, code=problem.code, request_id=request_id)


class _AnswerTransport:
    """A transport as a request's cycle sees it: closing it ends the answer, not the reading."""

    __slots__ = ("close", "is_closing", "write")

    def __init__(self, transport: asyncio.Transport, close: Callable[[], None]) -> None:
        self.write = transport.write
        self.is_closing = transport.is_closing
        self.close = close
