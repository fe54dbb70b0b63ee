"""Refusals on the wire: one table from kinds to statuses, one form (RFC 9457) for all of them."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TypeAlias
from urllib.parse import quote

from pydantic_core import to_json
from starlette.responses import Response
from starlette.types import Scope

from maas.shared.domain.errors import (
    BadGatewayError,
    ChunkMismatchError,
    ConflictError,
    GatewayTimeoutError,
    InvalidInputError,
    MaasError,
    NotFoundError,
    PayloadTooLargeError,
    PaymentRequiredError,
    PermissionDeniedError,
    PreconditionFailedError,
    PreconditionRequiredError,
    RuleViolatedError,
    SlowRequestError,
    StorageFullError,
    TooManyRequestsError,
    UnauthenticatedError,
    UnavailableError,
    UnsupportedMediaError,
)

PROBLEM_MEDIA_TYPE = "application/problem+json"
REQUEST_ID_KEY = "maas.request_id"
"""Where in the ASGI scope the edge keeps the request's id."""

CLIENT_LEFT_STATUS = 499
"""For logs and metrics: the client left before it was answered."""

DEFAULT_RETRY_AFTER = timedelta(seconds=1)
MAX_INSTANCE_CHARS = 512

STATUSES: Mapping[type[MaasError], int] = {
    UnauthenticatedError: 401,
    PaymentRequiredError: 402,
    PermissionDeniedError: 403,
    NotFoundError: 404,
    SlowRequestError: 408,
    ConflictError: 409,
    RuleViolatedError: 409,
    PreconditionFailedError: 412,
    PayloadTooLargeError: 413,
    UnsupportedMediaError: 415,
    InvalidInputError: 422,
    PreconditionRequiredError: 428,
    TooManyRequestsError: 429,
    ChunkMismatchError: 460,
    BadGatewayError: 502,
    UnavailableError: 503,
    GatewayTimeoutError: 504,
    StorageFullError: 507,
}

_WAITING = frozenset({429, 503})


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldError:
    """One thing wrong with a request; never what was sent."""

    loc: Sequence[str | int]
    type: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A refusal, before any wire form."""

    status: int
    code: str
    title: str
    detail: str
    headers: Mapping[str, str] = field(default_factory=dict)
    errors: Sequence[FieldError] = ()
    extensions: Mapping[str, object] = field(default_factory=dict)


INTERNAL = Problem(
    status=500,
    code="internal-error",
    title="Something broke on our side",
    detail="The error is logged under the request id; quote it when you ask for help.",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class FaceContract:
    """How a face spells problems, for OpenAPI: the status and the document of each."""

    name: str
    schema: Mapping[str, object]
    spell: Callable[[Problem], tuple[int, Mapping[str, object]]]


Renderer: TypeAlias = Callable[[Problem, str, str], Response]
"""Turns a problem, its path and its request id into an answer."""


class UnlistedKindError(TypeError):
    """A refusal derives from no kind that has a status: a bug found by a test, not by a user."""


def status_of(error: type[MaasError]) -> int:
    """Tell the status of an error's kind.

    Raises:
        UnlistedKindError: it is of no kind in the table.
    """
    for kind in error.__mro__:
        status = STATUSES.get(kind)
        if status is not None:
            return status
    raise UnlistedKindError(error.__name__)


def problem_of(error: MaasError) -> Problem:
    status = status_of(type(error))
    headers: dict[str, str] = {}
    if status in _WAITING or error.retry_after is not None:
        headers["Retry-After"] = _whole_seconds(error.retry_after or DEFAULT_RETRY_AFTER)
    if status == STATUSES[UnauthenticatedError]:
        headers["WWW-Authenticate"] = "Bearer"
    if status == STATUSES[SlowRequestError]:
        # Not after 413: the reset would reach a client that still sends before its answer does.
        headers["Connection"] = "close"
    errors: tuple[FieldError, ...] = ()
    if isinstance(error, InvalidInputError) and error.loc:
        errors = (FieldError(loc=error.loc, type=error.code, message=error.detail),)
    return Problem(
        status=status,
        code=error.code,
        title=error.title,
        detail=error.detail,
        headers=headers,
        errors=errors,
        extensions=error.extensions,
    )


def _whole_seconds(wait: timedelta) -> str:
    return str(max(1, math.ceil(wait.total_seconds())))


def problem_document(problem: Problem, instance: str, request_id: str) -> dict[str, object]:
    document: dict[str, object] = {
        **problem.extensions,
        "type": f"/errors/{problem.code}",
        "title": problem.title,
        "status": problem.status,
        "detail": problem.detail,
        "instance": instance,
        "code": problem.code,
        "request_id": request_id,
    }
    if problem.errors:
        document["errors"] = [
            {"loc": list(error.loc), "type": error.type, "message": error.message}
            for error in problem.errors
        ]
    return document


def render_problem(problem: Problem, instance: str, request_id: str) -> Response:
    """Write `application/problem+json`."""
    return Response(
        to_json(problem_document(problem, instance, request_id)),
        status_code=problem.status,
        headers=dict(problem.headers),
        media_type=PROBLEM_MEDIA_TYPE,
    )


class Faces:
    """Chooses the wire form by path: faces that speak another product's format have their own."""

    __slots__ = ("_renderers",)

    def __init__(self, renderers: Mapping[str, Renderer] | None = None) -> None:
        self._renderers = tuple((renderers or {}).items())

    def render(self, problem: Problem, scope: Scope) -> Response:
        path: str = scope["path"]
        request_id: str = scope.get(REQUEST_ID_KEY, "")
        return self.renderer_of(path)(problem, instance_of(path), request_id)

    def renderer_of(self, path: str) -> Renderer:
        for prefix, render in self._renderers:
            if path.startswith(prefix):
                return render
        return render_problem


def instance_of(path: str) -> str:
    """Spell a path as a problem names it: safe in a URL, and not too long."""
    return quote(path.encode("utf-8", "replace"))[:MAX_INSTANCE_CHARS]
