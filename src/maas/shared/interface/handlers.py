"""Exception handlers: whatever escapes a route becomes a problem document."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

import asyncpg
import structlog
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from maas.shared.domain.errors import MaasError, UnavailableError
from maas.shared.domain.idempotency import ReplayedAnswer
from maas.shared.interface.outages import problem_of_outage
from maas.shared.interface.problems import (
    CLIENT_LEFT_STATUS,
    Faces,
    FieldError,
    Problem,
    problem_of,
)
from maas.shared.interface.strangers import limit_unrouted

REPLAYED_HEADER = "Idempotency-Replayed"
MAX_ERRORS = 50
MAX_LOC_CHARS = 64

Handler = Callable[[Request, Any], Awaitable[Response]]

_log = structlog.get_logger("maas.edge")

INVALID = Problem(
    status=422,
    code="validation-failed",
    title="The request is not valid",
    detail="Some values are missing or wrong; `errors` says which.",
)

_ROUTER_PROBLEMS = {
    404: ("route-not-found", "There is no such route", "Check the path, and `/docs` for routes."),
    405: ("method-not-allowed", "The route has no such method", "`Allow` lists those it has."),
}

_QUIET_MESSAGES = {
    "uuid_parsing": "Input should be a valid UUID",
    "union_tag_invalid": "The tag is not one of those expected",
    "json_invalid": "Not valid JSON",
}
"""Messages of pydantic's own that would repeat part of the input."""

_VALUE_ERROR_PREFIX = "Value error, "


def install_handlers(app: FastAPI, faces: Faces) -> None:
    """Make every error of a route leave as a problem."""
    render = _Handlers(faces)
    handlers: dict[type[Exception], Handler] = {
        MaasError: render.refusal,
        RequestValidationError: render.invalid,
        HTTPException: render.http,
        SQLAlchemyError: render.outage,
        asyncpg.PostgresError: render.outage,
        asyncpg.InterfaceError: render.outage,
        asyncpg.InternalClientError: render.outage,
        RedisError: render.outage,
        OSError: render.outage,
        ReplayedAnswer: render.replay,
        ClientDisconnect: render.client_left,
    }
    for kind, handler in handlers.items():
        app.add_exception_handler(kind, handler)


class _Handlers:
    def __init__(self, faces: Faces) -> None:
        self._faces = faces

    async def refusal(self, request: Request, error: MaasError) -> Response:
        if isinstance(error, UnavailableError) and error.__cause__ is not None:
            _log.warning(
                "dependency_unavailable", code=error.code, cause=type(error.__cause__).__name__
            )
        return self._faces.render(problem_of(error), request.scope)

    async def invalid(self, request: Request, error: RequestValidationError) -> Response:
        return self._faces.render(
            replace(INVALID, errors=field_errors(error.errors())), request.scope
        )

    async def http(self, request: Request, error: HTTPException) -> Response:
        if error.status_code in _ROUTER_PROBLEMS:
            refusal = await limit_unrouted(request.scope)
            if refusal is not None:
                return self._faces.render(refusal, request.scope)
        code, title, detail = _ROUTER_PROBLEMS.get(
            error.status_code, (f"http-{error.status_code}", error.detail, error.detail)
        )
        return self._faces.render(
            Problem(
                status=error.status_code,
                code=code,
                title=title,
                detail=detail,
                headers=error.headers or {},
            ),
            request.scope,
        )

    async def outage(self, request: Request, error: Exception) -> Response:
        problem = problem_of_outage(error)
        if problem is None:
            raise error
        # Neither the message nor the parameters: they may hold what the caller sent.
        _log.warning("dependency_failed", code=problem.code, error=type(error).__name__)
        return self._faces.render(problem, request.scope)

    async def replay(self, _request: Request, error: ReplayedAnswer) -> Response:
        answer = error.answer
        return Response(
            answer.body,
            status_code=answer.status,
            headers={**answer.headers, REPLAYED_HEADER: "true"},
        )

    async def client_left(self, _request: Request, _error: ClientDisconnect) -> Response:
        # Nobody reads it; the status is for the access log.
        return Response(status_code=CLIENT_LEFT_STATUS)


def field_errors(errors: Sequence[Any]) -> list[FieldError]:
    """Render validation errors without what was sent, at most 50 of them."""
    return [
        FieldError(
            loc=[part if isinstance(part, int) else str(part)[:MAX_LOC_CHARS] for part in e["loc"]],
            type=e["type"],
            message=_message_without_input(e),
        )
        for e in errors[:MAX_ERRORS]
    ]


def _message_without_input(error: Any) -> str:
    quiet = _QUIET_MESSAGES.get(error["type"])
    if quiet is not None:
        return quiet
    message = str(error["msg"]).removeprefix(_VALUE_ERROR_PREFIX)
    sent = error.get("input")
    if isinstance(sent, str) and len(sent) > 2 and sent in message:  # noqa: PLR2004  a word, not a letter
        return "Not a valid value"
    return message
