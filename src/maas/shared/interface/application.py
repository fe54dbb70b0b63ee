"""The FastAPI application with what FastAPI leaves out: an outermost net, and a full OpenAPI."""

from collections.abc import Iterator
from typing import Any

import structlog
from fastapi import FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from typing_extensions import override

from maas.shared.interface.dispatch import RouteIndex, unfold
from maas.shared.interface.idempotency import HEADER as IDEMPOTENCY_HEADER
from maas.shared.interface.idempotency import RENDER_ATTRIBUTE
from maas.shared.interface.problems import (
    INTERNAL,
    PROBLEM_MEDIA_TYPE,
    Faces,
)
from maas.shared.interface.routes import RouteFacts, walk_routes

_log = structlog.get_logger("maas.edge")

TOKEN_URL = "/api/v1/auth/token"  # noqa: S105  a path, not a secret

SECURITY_SCHEMES: dict[str, object] = {
    "password": {
        "type": "oauth2",
        "flows": {"password": {"tokenUrl": TOKEN_URL, "scopes": {}}},
        "description": "Sign in with user name and password.",
    },
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "A session token, or an API key (`maas_...`).",
    },
    "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}
"""One of them is enough; two credentials in one request are refused."""

PROBLEM_SCHEMA: dict[str, object] = {
    "title": "Problem",
    "description": "RFC 9457 problem details.",
    "type": "object",
    "required": ["type", "title", "status", "detail", "instance", "code", "request_id"],
    "properties": {
        "type": {"type": "string", "format": "uri-reference"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "instance": {"type": "string"},
        "code": {"type": "string", "description": "Stable; listed in docs/errors.md."},
        "request_id": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["loc", "type", "message"],
                "properties": {
                    "loc": {
                        "type": "array",
                        "items": {"anyOf": [{"type": "string"}, {"type": "integer"}]},
                    },
                    "type": {"type": "string"},
                    "message": {"type": "string"},
                },
            },
        },
    },
}

_PROBLEM = {
    "description": "A problem document.",
    "content": {PROBLEM_MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
}
_IDEMPOTENCY_PARAMETER = {
    "name": IDEMPOTENCY_HEADER,
    "in": "header",
    "required": False,
    "description": "Repeat the request with the same key within 24 h and get the same answer.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255},
}


class LastResort:
    """Answers for what broke outside of every middleware, or logs it if an answer had begun."""

    def __init__(self, app: ASGIApp, *, faces: Faces) -> None:
        self._app = app
        self._faces = faces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        has_begun = False

        async def noting(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await self._app(scope, receive, noting)
        except Exception:  # noqa: BLE001  the last place where it can be answered
            _log.exception("edge_failed")
            if not has_begun:
                await self._faces.render(INTERNAL, scope)(scope, receive, send)


class EdgeApplication(FastAPI):
    """FastAPI inside the last resort, with problems, credentials and permissions in its OpenAPI."""

    faces: Faces

    @override
    def build_middleware_stack(self) -> ASGIApp:
        self.router.routes[:] = unfold(self.router.routes)
        self.router.middleware_stack = RouteIndex(self.router.routes, otherwise=self.router.app)
        return LastResort(super().build_middleware_stack(), faces=self.faces)

    @override
    def openapi(self) -> dict[str, Any]:
        before = self.openapi_schema
        document = super().openapi()
        if document is not before:
            components = document.setdefault("components", {})
            components["securitySchemes"] = SECURITY_SCHEMES
            schemas = components.setdefault("schemas", {})
            schemas["Problem"] = PROBLEM_SCHEMA
            # A look-up, not a search: an operation whose route is not found must not go unnoticed.
            routes = {(route.path, route.method): route for route in walk_routes(self)}
            for path, method, operation in _operations(document):
                _complete(operation, routes[path, method.upper()])
            for unused in ("HTTPValidationError", "ValidationError"):
                schemas.pop(unused, None)
        return document


def _operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            yield path, method, operation


def _complete(operation: dict[str, Any], route: RouteFacts) -> None:
    responses = operation.setdefault("responses", {})
    responses["4XX"] = responses["5XX"] = _PROBLEM
    if "422" in responses and "HTTPValidationError" in str(responses["422"]):
        responses["422"] = _PROBLEM
    if route.permissions:
        operation["security"] = [{name: []} for name in SECURITY_SCHEMES]
        operation["x-permissions"] = sorted(route.permissions)
    if getattr(route.context.endpoint, RENDER_ATTRIBUTE, None) is not None:
        operation.setdefault("parameters", []).append(_IDEMPOTENCY_PARAMETER)
