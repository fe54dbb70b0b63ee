"""Turns requests away before ASGI sees them: a scope and a task each cost more than the refusal.

What is refused takes its time from what is served, on the one core that a process has.
"""

import time
from collections.abc import Sequence
from http import HTTPStatus
from typing import Final

from maas.shared.domain.errors import UnavailableError
from maas.shared.interface.addresses import TrustedProxies, normalise
from maas.shared.interface.middleware import (
    API_HEADERS,
    CLOSE,
    HSTS,
    NEVER_SHED,
    NO_STORE,
    OVERLOADED,
    Headers,
    RequestMetrics,
    read_head,
)
from maas.shared.interface.problems import Faces, Problem, Renderer, instance_of, problem_of
from maas.shared.interface.security import DOCS_PATHS
from maas.shared.interface.traffic import Traffic

SHEDDER_KEY: Final = "shedder"
"""Where the lifespan's state keeps the `Shedder`."""

_INSTANCE: Final = b"~instance~"
_REQUEST_ID: Final = b"~request-id~"
_LEFT_TO_THE_EDGE: Final = NEVER_SHED | DOCS_PATHS
"""Paths that are served in any case, or whose refusals have other headers."""
_STOPPING: Final = problem_of(UnavailableError("This server is stopping. Retry shortly."))


class Shedder:
    """Writes the refusals of a process that has its fill, as the edge would, from prepared text."""

    def __init__(
        self,
        *,
        traffic: Traffic,
        metrics: RequestMetrics,
        faces: Faces,
        trusted_proxies: Sequence[str] = (),
    ) -> None:
        self.traffic = traffic
        self._metrics = metrics
        self._faces = faces
        self._proxies = TrustedProxies(trusted_proxies)
        self._forms: dict[tuple[Renderer, bool], tuple[bytes, bytes]] = {}

    def is_full(self) -> bool:
        """Tell whether one more is too much; a stopping server's refusals are left to the edge."""
        traffic = self.traffic
        return not traffic.is_draining and not traffic.has_room(time.perf_counter())

    def refuse(
        self,
        path: str,
        headers: Headers,
        *,
        peer: str | None,
        scheme: str,
        default: Headers,
        is_last: bool = False,
    ) -> bytes | None:
        """Write a whole answer, and count it; `None` where the edge must decide or answer.

        `default` are the headers that the server gives to every answer. The last answer of a
        connection is that of a server which stops.
        """
        if path in _LEFT_TO_THE_EDGE:
            return None
        request_id, _, _, forwarded_scheme, _ = read_head(headers)
        if forwarded_scheme and peer is not None and self._proxies.trust(normalise(peer)):
            scheme = forwarded_scheme
        render = self._faces.renderer_of(path)
        form = self._forms.get((render, is_last))
        if form is None:
            problem = _STOPPING if is_last else OVERLOADED
            form = self._forms[render, is_last] = _prepare(render, problem)
        named = request_id.encode()
        # In this order: a path may hold any mark, an id has no tilde.
        body = form[1].replace(_REQUEST_ID, named).replace(_INSTANCE, instance_of(path).encode())
        own = [(b"x-request-id", named), (b"content-length", b"%d" % len(body)), *default]
        if scheme == "https":
            own.append(HSTS)
        if is_last:
            own.append(CLOSE)
        self._metrics.request_shed()
        return b"%s%s\r\n%s" % (form[0], _lines(own), body)


def _prepare(render: Renderer, problem: Problem) -> tuple[bytes, bytes]:
    """Write what all refusals of a face have in common: the head, but for its end, and the body."""
    answer = render(problem, _INSTANCE.decode(), _REQUEST_ID.decode())
    own = [each for each in answer.raw_headers if each[0] != b"content-length"]
    status = HTTPStatus(answer.status_code)
    line = f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode()
    return line + _lines([*own, *API_HEADERS, NO_STORE]), bytes(answer.body)


def _lines(headers: Headers) -> bytes:
    return b"".join([b"%s: %s\r\n" % header for header in headers])
