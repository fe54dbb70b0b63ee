"""Long bodies of calls: so many bytes of them at a time, and nobody takes all."""

import json
from uuid import UUID

import httpx
import pytest
from fastapi import APIRouter, Request
from starlette.middleware import Middleware
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from maas.inference.application.bills import TooManyCallsError
from maas.inference.domain.shares import Shares
from maas.inference.interface.openai_bodies import (
    COPIES,
    MOST_BODY_BYTES,
    ROOM_KEY,
    give_back_room,
    take_room,
)
from maas.inference.interface.openai_route import OpenAIRoute
from maas.shared.domain.errors import PayloadTooLargeError
from maas.shared.domain.ids import DEFAULT_TENANT_ID, TenantId
from maas.shared.interface.security import requires
from tests.fakes.edge import Edge, make_edge, make_principal

ADA, BOB = (TenantId(UUID(int=number)) for number in (1, 2))
LONG = b'"' + b"a" * 100_000 + b'"'


def make_scope(shares: Shares) -> Scope:
    return {"state": {ROOM_KEY: shares}}


def test_a_tenant_has_room_for_some_long_bodies_and_others_have_room_beside_them() -> None:
    shares = Shares(len(LONG) * COPIES * 4)
    mine, second = make_scope(shares), make_scope(shares)
    take_room(mine, ADA, LONG)
    take_room(second, ADA, LONG)

    with pytest.raises(TooManyCallsError):
        take_room(make_scope(shares), ADA, LONG)
    take_room(make_scope(shares), BOB, LONG)

    give_back_room(mine)
    give_back_room(mine)
    give_back_room(second)
    take_room(make_scope(shares), ADA, LONG)


def test_short_bodies_are_not_counted() -> None:
    take_room(make_scope(Shares(0)), ADA, b"{}")


def test_what_takes_more_than_any_body_may_is_too_large_and_not_for_later() -> None:
    body = b"{}," * (MOST_BODY_BYTES // 2 // 64 // 2)

    with pytest.raises(PayloadTooLargeError):
        take_room(make_scope(Shares(MOST_BODY_BYTES)), ADA, body)


class WithState:
    """Gives routes of `/v1` what the lifespan would have."""

    def __init__(self, app: ASGIApp, *, room: Shares) -> None:
        self._app = app
        self._room = room

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"] |= {ROOM_KEY: self._room, "max_call_bytes": 1_000_000}
        await self._app(scope, receive, send)


class TestRoutes:
    router = APIRouter(route_class=OpenAIRoute)

    @staticmethod
    @router.post("/calls", dependencies=[requires("inference:call")])
    async def call(request: Request) -> Response:
        raise RuntimeError(request.url)

    async def called(self, edge: Edge, body: bytes) -> httpx.Response:
        edge.authenticator.principals["key"] = make_principal("inference:call")
        headers = {"Authorization": "Bearer key", "Content-Type": "application/json"}
        async with edge.client() as client:
            return await client.post("/api/v1/calls", content=body, headers=headers)

    @pytest.mark.parametrize("body", [LONG, LONG[:-1]])
    async def test_however_a_call_ends_its_room_is_given_back(self, body: bytes) -> None:
        shares = Shares(len(LONG) * COPIES * 2)
        edge = make_edge(self.router, extra=[Middleware(WithState, room=shares)])

        await self.called(edge, body)

        assert shares.take(BOB, len(LONG) * COPIES * 2)

    async def test_without_room_for_it_a_body_is_refused_before_it_is_parsed(self) -> None:
        shares = Shares(len(LONG) * COPIES * 2)
        shares.take(DEFAULT_TENANT_ID, len(LONG) * COPIES)
        edge = make_edge(self.router, extra=[Middleware(WithState, room=shares)])

        refused = await self.called(edge, LONG[:-1])

        assert refused.status_code == 503
        assert refused.headers["retry-after"] == "1"
        assert json.loads(refused.content)["code"] == "too-many-calls"
