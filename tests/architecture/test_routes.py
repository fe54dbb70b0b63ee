"""Every route says who may call it; every change says what it leaves in the audit trail."""

from collections.abc import Iterable

import pytest
from fastapi import APIRouter, FastAPI
from pydantic import BaseModel

from maas.audit.public import audited
from maas.shared.interface.routes import RouteFacts, walk_routes
from maas.shared.interface.security import PUBLIC_ROUTES, requires
from maas.user.interface.permissions import BESIDE_ROUTES, DESCRIPTIONS
from tests.architecture.inspection import (
    ROOT,
    action_of,
    is_mutating,
    is_public,
    optional_fields,
    response_models,
    unwalked_routes,
)


def keys(routes: Iterable[RouteFacts]) -> list[str]:
    return sorted(f"{route.method} {route.path}" for route in routes)


def unguarded(app: FastAPI) -> list[str]:
    return keys(r for r in walk_routes(app) if not r.permissions and not is_public(r))


def unaudited(app: FastAPI) -> list[str]:
    return keys(r for r in walk_routes(app) if is_mutating(r) and action_of(r) is None)


def test_every_route_states_its_permission_or_is_public(app: FastAPI) -> None:
    assert unguarded(app) == []


def test_no_route_is_public_and_guarded_at_once(app: FastAPI) -> None:
    assert keys(r for r in walk_routes(app) if r.permissions and is_public(r)) == []


def test_every_guarded_operation_is_documented_so(app: FastAPI) -> None:
    operations = {
        (method.upper(), path): operation
        for path, item in app.openapi()["paths"].items()
        for method, operation in item.items()
    }

    assert len(operations) > len(PUBLIC_ROUTES)
    assert [
        key
        for key, operation in operations.items()
        if key not in PUBLIC_ROUTES
        and not (operation.get("security") and operation.get("x-permissions"))
    ] == []
    assert [
        key
        for key, operation in operations.items()
        if not {"4XX", "5XX"} <= operation["responses"].keys()
    ] == []


def test_every_public_route_exists(app: FastAPI) -> None:
    existing = {(route.method, route.path) for route in walk_routes(app)}

    assert sorted(PUBLIC_ROUTES - existing) == []


def test_every_permission_is_described(app: FastAPI) -> None:
    required = {name for route in walk_routes(app) for name in route.permissions}

    assert sorted(required - set(DESCRIPTIONS)) == []
    assert sorted(set(DESCRIPTIONS) - required - BESIDE_ROUTES) == []


def test_nothing_is_mounted_past_the_checks(app: FastAPI) -> None:
    assert unwalked_routes(app) == []


def test_every_mutating_route_is_audited(app: FastAPI) -> None:
    assert unaudited(app) == []


def test_every_action_is_documented(app: FastAPI) -> None:
    text = (ROOT / "docs" / "audit-actions.md").read_text(encoding="utf-8")

    actions = {action for route in walk_routes(app) if (action := action_of(route)) is not None}

    assert sorted(action for action in actions if f"`{action}`" not in text) == []


def test_every_field_of_an_answer_is_required(app: FastAPI) -> None:
    models = {model for route in walk_routes(app) for model in response_models(route)}

    assert {
        model.__name__: optional_fields(model) for model in models if optional_fields(model)
    } == {}
    assert models


class TestPlanted:
    @pytest.fixture
    def scratch(self) -> FastAPI:
        app = FastAPI(openapi_url=None)
        router = APIRouter(prefix="/things")

        @router.get("", dependencies=[requires("thing:read")])
        async def list_things() -> list[str]:
            return []

        @router.post("", dependencies=[requires("thing:write")])
        @audited("thing.created")
        async def create_thing() -> None: ...

        outer = APIRouter(prefix="/api/v1")
        outer.include_router(router)
        app.include_router(outer)
        return app

    def test_a_clean_application_passes(self, scratch: FastAPI) -> None:
        assert (unguarded(scratch), unaudited(scratch), unwalked_routes(scratch)) == ([], [], [])

    def test_a_route_without_a_permission_is_found(self, scratch: FastAPI) -> None:
        router = APIRouter(prefix="/open")

        @router.get("/{thing}")
        async def read(thing: str) -> None: ...

        scratch.include_router(router, prefix="/api/v1")

        assert unguarded(scratch) == ["GET /api/v1/open/{thing}"]

    def test_an_unaudited_mutating_route_is_found(self, scratch: FastAPI) -> None:
        @scratch.delete("/api/v1/things/{thing}", dependencies=[requires("thing:write")])
        async def delete_thing(thing: str) -> None: ...

        assert unaudited(scratch) == ["DELETE /api/v1/things/{thing}"]

    def test_a_decorator_below_the_route_but_above_nothing_is_not_enough(
        self, scratch: FastAPI
    ) -> None:
        async def plain() -> None: ...

        audited("thing.renamed")(plain)
        scratch.put("/api/v1/things", dependencies=[requires("thing:write")])(plain)

        assert unaudited(scratch) == ["PUT /api/v1/things"]

    def test_a_mounted_application_is_found(self, scratch: FastAPI) -> None:
        scratch.mount("/other", FastAPI())

        assert unwalked_routes(scratch) == ["/other (Mount)"]

    def test_an_optional_field_of_an_answer_is_found(self) -> None:
        class Inner(BaseModel):
            note: str | None = None

        class Outer(BaseModel):
            items: list[Inner]

        assert optional_fields(Outer) == ["Inner.note"]
