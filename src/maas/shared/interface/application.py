"""The FastAPI application with what FastAPI leaves out: an outermost net, and a full OpenAPI."""

from typing import Any

import structlog
from fastapi import FastAPI
from starlette.middleware.errors import ServerErrorMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from typing_extensions import override

from maas.shared.interface.contract import complete
from maas.shared.interface.dispatch import RouteIndex
from maas.shared.interface.problems import INTERNAL, Faces
from maas.shared.interface.routes import walk_routes

_log = structlog.get_logger("maas.edge")


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
        self.router.middleware_stack = RouteIndex(self.router.routes, otherwise=self.router.app)
        stack = super().build_middleware_stack()
        # FastAPI's own outermost net does what ours does, once more for each message of an answer.
        if isinstance(stack, ServerErrorMiddleware):
            stack = stack.app
        return LastResort(stack, faces=self.faces)

    @override
    def openapi(self) -> dict[str, Any]:
        before = self.openapi_schema
        document = super().openapi()
        if document is not before:
            complete(document, walk_routes(self))
        return document
