import httpx
import pytest
from fastapi import FastAPI

from maas.main import create_app
from maas.shared.infrastructure.settings import Settings, load_settings
from maas.shared.interface.routes import walk_routes


def make_settings(**overrides: object) -> Settings:
    return load_settings(
        **{
            "environment": "test",
            "secret_key": "unit-tests-only-0123456789-abcdefghijklmnopqrstuvwxyz",
            "database": {"url": "postgresql://nobody@localhost:1/none"},
            "redis": {"url": "redis://localhost:1/0"},
            **overrides,
        }
    )


async def preflight(app: FastAPI, origin: str) -> httpx.Response:
    async with app.router.lifespan_context(app) as state:

        async def with_state(scope: dict[str, object], receive: object, send: object) -> None:
            scope["state"] = dict(state or {})
            await app(scope, receive, send)  # type: ignore[arg-type]  # httpx types it loosely

        transport = httpx.ASGITransport(app=with_state)  # type: ignore[arg-type]  # likewise
        async with httpx.AsyncClient(transport=transport, base_url="http://maas.test") as client:
            return await client.options(
                "/api/v1/auth/login",
                headers={"Origin": origin, "Access-Control-Request-Method": "POST"},
            )


class TestCors:
    async def test_is_for_the_origins_that_are_set(self) -> None:
        app = create_app(make_settings(server={"cors_origins": ["https://ui.example"]}))

        ours = await preflight(app, "https://ui.example")
        theirs = await preflight(app, "https://evil.example")

        assert ours.headers["access-control-allow-origin"] == "https://ui.example"
        assert "access-control-allow-credentials" not in ours.headers
        assert "access-control-allow-origin" not in theirs.headers
        assert ours.headers["x-request-id"]

    async def test_is_off_by_default(self) -> None:
        answer = await preflight(create_app(make_settings()), "https://ui.example")

        assert answer.status_code == 405
        assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize(
    ("environment", "docs", "is_served"),
    [
        ("development", None, True),
        ("production", None, False),
        ("production", True, True),
        ("development", False, False),
    ],
)
def test_documentation_is_off_in_production_unless_asked_for(
    environment: str,
    docs: bool | None,  # noqa: FBT001  a parametrised case
    is_served: bool,  # noqa: FBT001  a parametrised case
) -> None:
    app = create_app(make_settings(environment=environment, server={"docs": docs}))

    served = {route.path for route in walk_routes(app)}
    assert ("/docs" in served, "/redoc" in served) == (is_served, is_served)
    assert (app.openapi_url is not None) == is_served
    assert "/api/v1/auth/login" in app.openapi()["paths"]
