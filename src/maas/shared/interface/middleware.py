"""The edge: one pure ASGI layer around every route.

It gives each request an id, a call, its client's address, the security headers, a metric and a log
line, and turns away what would overload the process. Health routes take the short way through it.
"""

import os
import re
import time
from collections.abc import Sequence
from typing import Protocol

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from maas.shared.domain.call import Call, EventRecorder, serving
from maas.shared.interface.addresses import TrustedProxies, normalise
from maas.shared.interface.problems import (
    CLIENT_LEFT_STATUS,
    INTERNAL,
    REQUEST_ID_KEY,
    Faces,
    problem_of,
)
from maas.shared.interface.rate_limits import limit_headers
from maas.shared.interface.routes import route_template
from maas.shared.interface.security import DOCS_PATHS, HEALTH_PATHS
from maas.shared.interface.strangers import forgive_refresh, limit_stranger
from maas.shared.interface.traffic import (
    ARRIVING_KEY,
    BODY_KEY,
    IncomingBody,
    Traffic,
    overloaded,
)
from maas.shared.interface.urls import url_problem

Headers = list[tuple[bytes, bytes]]

API_VERSION = "1"
MAX_USER_AGENT_CHARS = 512

_FREE_BITS = 0x0FFF_3FFF_FFFF_FFFF_FFFF
_VERSION_BITS = 0x7000_8000_0000_0000_0000
# What looks like a credential, sent under the wrong header, is not written down as an id.
_REQUEST_ID = re.compile(
    rb"(?!eyJ[\w-]{4,}\.|maas_|mrt_|(?:[srp]k-|hf_|gh[opsu]_|glpat-)[\w-]{16}|AKIA[A-Z0-9]{12})"
    rb"[A-Za-z0-9._-]{1,128}"
)
NEVER_SHED = frozenset({*HEALTH_PATHS, "/metrics"})
_SAFE: Headers = [
    (b"x-api-version", API_VERSION.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]
_API_CSP = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")
NO_STORE = (b"cache-control", b"no-store")
HSTS = (b"strict-transport-security", b"max-age=31536000; includeSubDomains")
CLOSE = (b"connection", b"close")

ANSWER_HEADERS_KEY = "maas.answer_headers"
"""Where in the ASGI scope a route keeps headers for whatever is answered, problems included."""

API_HEADERS: Headers = [*_SAFE, _API_CSP]
"""What every answer but the documentation's pages carries."""


_SCHEMES = {b"http": "http", b"https": "https"}
FIRST_REFUSAL = 400
"""From this status on an answer is no measure of how much work is done in a second."""

_BODILESS = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods of which no route reads a body."""

OVERLOADED = problem_of(overloaded())

_log = structlog.get_logger("maas.access")


class RequestMetrics(Protocol):
    """Counts requests; labels are route templates, never paths."""

    def request_started(self) -> None: ...

    def request_finished(self, *, method: str, route: str, status: int, seconds: float) -> None: ...

    def request_shed(self) -> None: ...


class EdgeMiddleware:
    """Wraps the application; the recorder of a call is found in the lifespan's state."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        traffic: Traffic,
        metrics: RequestMetrics,
        faces: Faces,
        trusted_proxies: Sequence[str] = (),
        slow_request_ms: int = 1000,
    ) -> None:
        self._app = app
        self._traffic = traffic
        self._metrics = metrics
        self._faces = faces
        self._proxies = TrustedProxies(trusted_proxies)
        self._slow_request_ms = slow_request_ms

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope.pop(ARRIVING_KEY, False):
            self._traffic.arriving -= 1
        head = read_head(scope["headers"])
        request_id, user_agent, forwarded, scheme, has_credential = head
        scope[REQUEST_ID_KEY] = request_id
        answer = Answer(scope, send, request_id, self._traffic)
        if scope["path"] in HEALTH_PATHS:
            await self._app(scope, receive, answer.send)
            return
        peer = scope.get("client")
        address = normalise(peer[0]) if peer else None
        if (forwarded or scheme) and address is not None and self._proxies.trust(address):
            address = self._proxies.client_behind(address, forwarded)
            scope["scheme"] = scheme or scope["scheme"]
        call = Call(
            request_id=request_id,
            recorder=_recorder_in(scope),
            address=address,
            user_agent=user_agent,
        )
        answer.call = call
        with serving(call):
            await self.serve(scope, receive, answer, call, has_credential=has_credential)

    async def serve(
        self,
        scope: Scope,
        receive: Receive,
        answer: "Answer",
        call: Call,
        *,
        has_credential: bool,
    ) -> None:
        traffic = self._traffic
        started = time.perf_counter()
        if not traffic.has_room(started) and scope["path"] not in NEVER_SHED:
            self._metrics.request_shed()
            await self._faces.render(OVERLOADED, scope)(scope, receive, answer.send)
            return
        if scope["method"] not in _BODILESS:
            body = scope[BODY_KEY] = IncomingBody(receive, traffic, self._metrics.request_shed)
            receive = body.receive
        traffic.in_flight += 1
        self._metrics.request_started()
        try:
            problem = url_problem(scope)
            if problem is None:
                problem = await limit_stranger(scope, call, has_credential=has_credential)
            if problem is None:
                await self._app(scope, receive, answer.send)
                await forgive_refresh(scope, call, status=answer.status)
            else:
                await self._faces.render(problem, scope)(scope, receive, answer.send)
        except Exception:  # noqa: BLE001  whatever it is, it is logged and answered here
            _log.exception("request_failed", route=route_template(scope), method=scope["method"])
            if answer.status is None:
                await self._faces.render(INTERNAL, scope)(scope, receive, answer.send)
        finally:
            # The server's own `receive` knows the scope: both would wait for the garbage collector.
            scope.pop(BODY_KEY, None)
            traffic.in_flight -= 1
            ended = time.perf_counter()
            if answer.status is not None and answer.status < FIRST_REFUSAL:
                traffic.note_served(ended)
            self._finish(scope, answer, call, ended - started)

    def _finish(self, scope: Scope, answer: "Answer", call: Call, seconds: float) -> None:
        method, route = scope["method"], route_template(scope)
        status = CLIENT_LEFT_STATUS if answer.status is None else answer.status
        self._metrics.request_finished(method=method, route=route, status=status, seconds=seconds)
        duration_ms = round(seconds * 1000, 2)
        write = _log.warning if duration_ms >= self._slow_request_ms else _log.info
        write(
            "request_served",
            method=method,
            route=route,
            status=status,
            duration_ms=duration_ms,
            request_id=call.request_id,
            tenant_id=None if call.tenant_id is None else str(call.tenant_id),
            account_id=None if call.principal is None else str(call.principal.account_id),
        )


class Answer:
    """Passes an answer on with the edge's headers, and remembers its status."""

    __slots__ = ("_request_id", "_scope", "_send", "_traffic", "call", "status")

    def __init__(self, scope: Scope, send: Send, request_id: str, traffic: Traffic) -> None:
        self._scope = scope
        self._send = send
        self._request_id = request_id
        self._traffic = traffic
        self.call: Call | None = None
        self.status: int | None = None

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = self._headers(message.get("headers", ()))
        elif message.get("more_body"):
            await self._send_part(message)
            return
        await self._send(message)

    async def _send_part(self, message: Message) -> None:
        """Wait for a reader, who may be slow, without the place of the request."""
        self._traffic.in_flight -= 1
        try:
            await self._send(message)
        finally:
            self._traffic.in_flight += 1

    def _headers(self, own: Headers) -> Headers:
        scope = self._scope
        headers = [
            *own,
            *(_SAFE if scope["path"] in DOCS_PATHS and _has_policy(own) else API_HEADERS),
            (b"x-request-id", self._request_id.encode("ascii")),
            *scope.get(ANSWER_HEADERS_KEY, ()),
        ]
        if not any(name == b"cache-control" for name, _ in own):
            headers.append(NO_STORE)
        if self.call is not None and self.call.standing is not None:
            headers += limit_headers(self.call.standing)
        if scope["scheme"] == "https":
            headers.append(HSTS)
        if self._traffic.is_draining:
            headers.append(CLOSE)
        return headers


def _has_policy(headers: Headers) -> bool:
    return any(name == b"content-security-policy" for name, _ in headers)


def read_head(headers: Headers) -> tuple[str, str | None, list[bytes], str | None, bool]:
    """Pick out, in one pass, the request id, the user agent and what proxies say.

    And whether there is a credential, good or bad.
    """
    request_id = user_agent = scheme = None
    has_credential = False
    forwarded: list[bytes] = []
    for name, value in headers:
        if name == b"x-request-id":
            request_id = value.decode("ascii") if _REQUEST_ID.fullmatch(value) else None
        elif name == b"user-agent":
            user_agent = value.decode("latin-1")[:MAX_USER_AGENT_CHARS]
        elif name in {b"authorization", b"x-api-key"}:
            has_credential = True
        elif name == b"x-forwarded-for":
            forwarded.append(value)
        elif name == b"x-forwarded-proto":
            # The last word is that of the proxy next to us, the only one that is trusted here.
            scheme = _SCHEMES.get(value.rpartition(b",")[2].strip().lower())
    return request_id or new_request_id(), user_agent, forwarded, scheme, has_credential


def new_request_id() -> str:
    """Make the text of a UUIDv7, for a third of what `new_id` costs with its monotonic clock."""
    millis, rest = time.time_ns() // 1_000_000, int.from_bytes(os.urandom(10))
    digits = f"{millis << 80 | rest & _FREE_BITS | _VERSION_BITS:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def _recorder_in(scope: Scope) -> EventRecorder:
    recorder: EventRecorder = scope["state"]["recorder"]
    return recorder
