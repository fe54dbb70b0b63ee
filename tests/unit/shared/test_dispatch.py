from typing import Any

import pytest
from fastapi import APIRouter, FastAPI
from starlette.exceptions import HTTPException
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from maas.shared.interface.dispatch import RouteIndex, under
from maas.shared.interface.readers import StrictRoute
from maas.shared.interface.routes import UNMATCHED, route_template

PATHS = (
    ("GET", "/health"),
    ("GET", "/api/v1/models"),
    ("POST", "/api/v1/models"),
    ("GET", "/api/v1/models/mine"),
    ("GET", "/api/v1/models/{model_id}"),
    ("PUT", "/api/v1/models/{model_id}"),
    ("GET", "/api/v1/models/{model_id}/versions/{version}"),
    ("GET", "/api/v1/models/{model_id}/files/{path:path}"),
    ("GET", "/v1/{anything}"),
    ("GET", "/v1/models"),
    ("GET", "/v1/models/{name:path}"),
    ("GET", "/files/{path:path}"),
    ("GET", "/{tenant}/about"),
)


def make_app() -> FastAPI:
    app = FastAPI(openapi_url=None, redirect_slashes=False)
    for method, path in PATHS:

        async def endpoint() -> None: ...

        inner = APIRouter(route_class=StrictRoute)
        inner.add_api_route(path[2:] if path == "/" else path, endpoint, methods=[method])
        app.router.routes += under("", [inner])
    return app


async def asked(app: FastAPI, method: str, path: str) -> str:
    """Tell which route the index chooses, or `otherwise`."""
    chosen = "otherwise"

    async def otherwise(_scope: Scope, _receive: Receive, _send: Send) -> None: ...

    routes = app.routes
    index = RouteIndex(routes, otherwise=otherwise)
    scope: Any = {"type": "http", "method": method, "path": path}
    for route in routes:
        assert isinstance(route, Route)

        async def note(scope: Scope, _receive: Receive, _send: Send) -> None:
            nonlocal chosen
            chosen = route_template(scope)

        route.app = note
    await index(scope, None, None)  # type: ignore[arg-type]  # nobody reads or writes
    return chosen


@pytest.mark.parametrize(
    ("method", "path", "template"),
    [
        ("GET", "/health", "/health"),
        ("GET", "/api/v1/models", "/api/v1/models"),
        ("POST", "/api/v1/models", "/api/v1/models"),
        ("GET", "/api/v1/models/mine", "/api/v1/models/mine"),
        ("GET", "/api/v1/models/1", "/api/v1/models/{model_id}"),
        ("PUT", "/api/v1/models/mine", "/api/v1/models/{model_id}"),
        ("GET", "/api/v1/models/1/versions/2", "/api/v1/models/{model_id}/versions/{version}"),
        ("GET", "/api/v1/models/1/files/a/b/c", "/api/v1/models/{model_id}/files/{path}"),
        ("GET", "/v1/x", "/v1/{anything}"),
        ("GET", "/v1/models", "/v1/{anything}"),
        ("GET", "/v1/models/org/name", "/v1/models/{name}"),
        ("GET", "/files/a/b/c/d/e", "/files/{path}"),
        ("GET", "/files/", "/files/{path}"),
        ("HEAD", "/health", "/health"),
        ("HEAD", "/api/v1/models/1", "/api/v1/models/{model_id}"),
        ("HEAD", "/api/v1/models/mine", "/api/v1/models/mine"),
        ("HEAD", "/v1/models", "/v1/{anything}"),
        ("GET", "/api/v1/models/", "otherwise"),
        ("GET", "/api/v1/other", "otherwise"),
        ("GET", "/acme/about", "otherwise"),
        ("GET", "/", "otherwise"),
        ("GET", "", "otherwise"),
        ("GET", "//", "otherwise"),
    ],
)
async def test_finds_the_route_fastapi_would_find(method: str, path: str, template: str) -> None:
    assert await asked(make_app(), method, path) == template


async def test_other_methods_of_a_path_are_all_named() -> None:
    with pytest.raises(HTTPException) as refusal:
        await asked(make_app(), "PATCH", "/api/v1/models/mine")

    assert refusal.value.status_code == 405
    assert refusal.value.headers == {"Allow": "GET, HEAD, PUT"}


def test_a_prefix_is_all_that_changes() -> None:
    router = APIRouter(route_class=StrictRoute, prefix="/things", tags=["things"])
    router.add_api_route("/{thing_id}", lambda thing_id: thing_id, status_code=201, name="thing")

    [route] = under("/api", [router])

    assert isinstance(route, StrictRoute)
    assert (route.path, route.name, route.status_code) == ("/api/things/{thing_id}", "thing", 201)
    assert route.path_regex.match("/api/things/1")
    assert route.unique_id == "thing_api_things__thing_id__get"
    [left] = router.routes
    assert isinstance(left, StrictRoute)
    assert left.path == "/things/{thing_id}"


def test_a_router_inside_a_router_is_refused() -> None:
    outer, inner = APIRouter(), APIRouter()
    inner.add_api_route("/thing", lambda: None)
    outer.include_router(inner)

    with pytest.raises(TypeError, match="list its router instead"):
        under("/api", [outer])


def test_a_request_no_route_took_has_no_template() -> None:
    assert route_template({}) == UNMATCHED
