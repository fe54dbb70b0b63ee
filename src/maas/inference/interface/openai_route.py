"""The routes of `/v1`: straight from the request to the function, for they are the hottest."""

import asyncio
from typing import Any, ClassVar, Final

from fastapi import Request
from fastapi.dependencies.models import Dependant
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send
from typing_extensions import override

from maas.inference.interface.openai_bodies import give_back_room, take_room
from maas.inference.interface.openai_errors import FACE
from maas.inference.interface.replays import replay_of
from maas.shared.interface.problems import FaceContract
from maas.shared.interface.readers import (
    BodyLimits,
    RouteHandler,
    StrictRoute,
    check_media,
    read_body,
)
from maas.shared.interface.security import Requirement, known_caller, require
from maas.shared.interface.strict_json import parse_passing_json

MAX_DEPTH: Final = 128

LONG_BODY_BYTES: Final = 512 * 1024
"""A longer body is parsed in a thread: the event loop has others to serve."""

BODY_KEY: Final = "maas.openai_body"
"""Where the scope keeps a request that was read: its body, parsed and as it came, and its key."""


class OpenAIRoute(StrictRoute):
    """A route of `/v1`: asks who calls, reads a JSON body, and calls its function with the request.

    FastAPI's own way there, with its dependencies and validation, costs more than all the rest;
    what a call says is for the upstream to judge. The function takes the request alone.
    """

    face: ClassVar[FaceContract | None] = FACE

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        # What is raised is answered around all routes, and no dependency has anything to leave.
        self.app = _straight(self.get_route_handler())

    @override
    def get_route_handler(self) -> RouteHandler:
        call = self.endpoint
        permissions = tuple(_permissions_of(self.dependant))
        has_body = "POST" in (self.methods or ())

        async def handle(request: Request) -> Response:
            for permission in permissions:
                await require(request, permission)
            if has_body:
                await _read(request)
            response: Response = await call(request)
            return response

        return handle


def _straight(handle: RouteHandler) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            response = await handle(Request(scope, receive, send))
            await response(scope, receive, send)
        finally:
            give_back_room(scope)

    return app


def _permissions_of(dependant: Dependant) -> list[str]:
    return [
        dependency.call.permission
        for dependency in dependant.dependencies
        if isinstance(dependency.call, Requirement)
    ]


async def _read(request: Request) -> None:
    max_bytes: int = request.scope["state"]["max_call_bytes"]
    body = await read_body(request, limits=BodyLimits(max_bytes=max_bytes, max_depth=MAX_DEPTH))
    check_media(request.scope, is_form=False)
    take_room(request.scope, known_caller().tenant_id, body)
    if len(body) > LONG_BODY_BYTES:
        parsed: Any = await asyncio.to_thread(parse_passing_json, body, max_depth=MAX_DEPTH)
    else:
        parsed = parse_passing_json(body, max_depth=MAX_DEPTH)
    request.scope[BODY_KEY] = (parsed, body, await replay_of(request, body))
