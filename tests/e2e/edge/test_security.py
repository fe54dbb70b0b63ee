from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import APIRouter

from maas.audit.public import audited
from maas.shared.interface.readers import StrictRoute
from maas.shared.interface.routes import walk_routes
from maas.shared.interface.security import Caller, requires
from tests.fakes.edge import Edge, make_edge, make_principal

pytestmark = pytest.mark.e2e

router = APIRouter(route_class=StrictRoute)


@router.get("/things", dependencies=[requires("thing:read")])
async def list_things(caller: Caller) -> str:
    return caller.username


@router.post("/things", dependencies=[requires("thing:write")])
@audited("thing.created")
async def create_thing() -> None: ...


@pytest.fixture
def edge() -> Edge:
    edge = make_edge(router)
    edge.authenticator.principals = {
        "reader": make_principal("thing:read"),
        "nobody": make_principal(),
        "watcher": make_principal("platform:metrics"),
        "admin": make_principal("*:*"),
    }
    return edge


@pytest.fixture
async def client(edge: Edge) -> AsyncIterator[httpx.AsyncClient]:
    async with edge.client() as client:
        yield client


class TestCredential:
    @pytest.mark.parametrize(
        "headers",
        [
            {"Authorization": "Bearer reader"},
            {"Authorization": "bearer reader"},
            {"X-API-Key": "reader"},
        ],
    )
    async def test_is_taken_from_one_header(
        self, edge: Edge, client: httpx.AsyncClient, headers: dict[str, str]
    ) -> None:
        answer = await client.get("/api/v1/things", headers=headers)

        assert answer.json() == "ada"
        assert edge.authenticator.asked == 1

    @pytest.mark.parametrize(
        "headers",
        [
            [],
            [("Authorization", "Bearer reader"), ("X-API-Key", "reader")],
            [("Authorization", "Bearer reader"), ("Authorization", "Bearer reader")],
            [("X-API-Key", "reader"), ("X-API-Key", "reader")],
            [("Authorization", "Basic cmVhZGVyOg==")],
            [("Authorization", "reader")],
            [("Authorization", "Bearer")],
            [("Authorization", "Bearer  ")],
            [("Authorization", "Bearer reader x")],
            [("Authorization", "Bearer r\xe9ader")],
            [("Authorization", "Bearer " + "x" * 4097)],
            [("X-API-Key", "x" * 100_000)],
            [("X-API-Key", "")],
        ],
    )
    async def test_that_is_missing_or_odd_is_401_and_asks_nobody(
        self, edge: Edge, client: httpx.AsyncClient, headers: list[tuple[str, str]]
    ) -> None:
        raw = [(name.encode(), value.encode("latin-1")) for name, value in headers]

        answer = await client.get("/api/v1/things", headers=raw)

        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        assert edge.authenticator.asked == 0
        assert edge.recorder.events == []

    async def test_that_is_unknown_is_401(self, client: httpx.AsyncClient) -> None:
        answer = await client.get("/api/v1/things", headers={"X-API-Key": "stolen"})

        assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")
        assert "stolen" not in answer.text


class TestPermission:
    async def test_missing_is_403_naming_it_and_recorded(
        self, edge: Edge, client: httpx.AsyncClient
    ) -> None:
        answer = await client.get("/api/v1/things", headers={"X-API-Key": "nobody"})

        assert (answer.status_code, answer.json()["code"]) == (403, "permission-denied")
        assert "`thing:read`" in answer.json()["detail"]
        assert edge.recorder.events == [("access.denied", "denied", "permission-denied")]

    async def test_a_denial_is_recorded_under_the_action_of_the_route(
        self, edge: Edge, client: httpx.AsyncClient
    ) -> None:
        answer = await client.post("/api/v1/things", headers={"X-API-Key": "reader"})

        assert answer.status_code == 403
        assert edge.recorder.events == [("thing.created", "denied", "permission-denied")]

    @pytest.mark.parametrize("permission", ["thing", "thing:*", "*:read", ":read", "thing:", ""])
    def test_a_route_asks_for_one_exact_permission(self, permission: str) -> None:
        with pytest.raises(ValueError, match="is not <resource>:<action>"):
            requires(permission)


class TestMetrics:
    @pytest.mark.parametrize(
        ("peer", "headers", "status"),
        [
            ("127.0.0.1", {}, 200),
            ("::1", {}, 200),
            ("::ffff:127.0.0.1", {}, 200),
            ("127.0.0.1", {"X-Forwarded-For": "127.0.0.1"}, 401),
            ("127.0.0.1", {"X-Forwarded-Host": "maas.test"}, 401),
            ("127.0.0.1", {"X-Real-IP": "127.0.0.1"}, 401),
            ("127.0.0.1", {"Via": "1.1 proxy"}, 401),
            ("127.0.0.1", {"Forwarded": "for=127.0.0.1"}, 401),
            ("198.51.100.1", {"X-Forwarded-For": "127.0.0.1"}, 401),
            ("198.51.100.1", {}, 401),
            ("198.51.100.1", {"X-API-Key": "admin"}, 403),
            ("198.51.100.1", {"X-API-Key": "watcher"}, 200),
        ],
    )
    async def test_answer_this_machine_and_those_who_may(
        self, edge: Edge, peer: str, headers: dict[str, str], status: int
    ) -> None:
        edge.client_address = (peer, 1)

        async with edge.client() as client:
            answer = await client.get("/metrics", headers=headers)

        assert answer.status_code == status
        assert (b"maas_http_requests_in_flight" in answer.content) == (status == 200)


class TestWalk:
    def test_names_every_route_in_full_with_its_permission(self, edge: Edge) -> None:
        found = {(r.method, r.path): set(r.permissions) for r in walk_routes(edge.app)}

        assert found["GET", "/api/v1/things"] == {"thing:read"}
        assert found["POST", "/api/v1/things"] == {"thing:write"}
        assert found["GET", "/health/live"] == set()

    def test_openapi_knows_credentials_and_problems(self, edge: Edge) -> None:
        document = edge.app.openapi()

        operation = document["paths"]["/api/v1/things"]["get"]
        assert operation["security"] == [{"password": []}, {"bearer": []}, {"apiKey": []}]
        assert operation["x-permissions"] == ["thing:read"]
        assert "security" not in document["paths"]["/health"]["get"]
        refusal = operation["responses"]["4XX"]
        name = refusal["$ref"].rpartition("/")[2]
        assert "application/problem+json" in document["components"]["responses"][name]["content"]
        assert "HTTPValidationError" not in str(document)
        flow = document["components"]["securitySchemes"]["password"]["flows"]["password"]
        assert flow["tokenUrl"] == "/api/v1/auth/token"
