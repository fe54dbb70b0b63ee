from collections.abc import AsyncIterator
from dataclasses import dataclass
from uuid import UUID

import httpx
import pytest
from fastapi import APIRouter, Request, Response
from sqlalchemy import text

from maas.audit.public import audited
from maas.shared.domain.ids import new_id
from maas.shared.infrastructure.clock import SystemClock
from maas.shared.infrastructure.database import Database
from maas.shared.infrastructure.idempotency import PostgresIdempotency
from maas.shared.infrastructure.unit_of_work import SqlUnitOfWork
from maas.shared.interface.etags import etag_of
from maas.shared.interface.idempotency import created, idempotent
from maas.shared.interface.readers import StrictRoute
from maas.shared.interface.security import requires
from maas.shared.interface.types import Name, ReadModel, StrictModel
from tests.fakes.edge import Edge, make_edge, make_principal

pytestmark = pytest.mark.e2e

URL = "/api/v1/things"
SECRET = "e2e-tests-0123456789-abcdefghijklmnopqrstuvwxyz"

router = APIRouter(route_class=StrictRoute)


class ThingCreate(StrictModel):
    name: Name


class ThingRead(ReadModel):
    id: UUID
    name: str


@dataclass(frozen=True, slots=True)
class Thing:
    id: UUID
    name: str
    version: int = 1


class FakeAudit:
    """Lets every change through and writes nothing."""

    def has_scope(self) -> bool:
        return True

    async def write(self, *_: object) -> object:
        return lambda: None


def location(thing: Thing) -> str:
    return f"{URL}/{thing.id}"


@router.post("/things", status_code=201, dependencies=[requires("thing:write")])
@audited("thing.created")
@idempotent(created(ThingRead, location=location))
async def create_thing(body: ThingCreate, request: Request, response: Response) -> ThingRead:
    thing = Thing(id=new_id(), name=body.name)
    async with request.app.state.unit_of_work() as uow:
        await uow.session.execute(text("INSERT INTO things VALUES (:name)"), {"name": thing.name})
        await uow.commit(thing)
    response.headers["Location"] = location(thing)
    response.headers["ETag"] = etag_of(thing.version)
    return ThingRead.model_validate(thing)


@pytest.fixture
def edge(database: Database) -> Edge:
    edge = make_edge(router)
    store = PostgresIdempotency(SECRET, clock=SystemClock())
    edge.app.state.unit_of_work = lambda: SqlUnitOfWork(
        database.engine,
        audit=FakeAudit(),  # type: ignore[arg-type]  # as much of it as a commit needs
        idempotency=store,
    )
    edge.authenticator.principals["t"] = make_principal("thing:write")
    edge.authenticator.principals["other"] = make_principal("thing:write")
    return edge


@pytest.fixture
async def client(edge: Edge, superuser: object) -> AsyncIterator[httpx.AsyncClient]:
    await superuser.execute("CREATE TABLE things (name text)")  # type: ignore[attr-defined]  # asyncpg
    await superuser.execute("GRANT INSERT ON things TO maas_app")  # type: ignore[attr-defined]  # asyncpg
    async with edge.client() as client:
        yield client
    await superuser.execute("DROP TABLE things")  # type: ignore[attr-defined]  # asyncpg


async def post(
    client: httpx.AsyncClient, *, key: str | bytes | None = "k1", name: str = "a", who: str = "t"
) -> httpx.Response:
    headers: dict[bytes, bytes] = {b"X-API-Key": who.encode()}
    if key is not None:
        headers[b"Idempotency-Key"] = key if isinstance(key, bytes) else key.encode()
    return await client.post(URL, json={"name": name}, headers=headers)


class TestReplay:
    async def test_is_the_first_answer_to_the_byte(self, client: httpx.AsyncClient) -> None:
        first = await post(client)
        again = await post(client)

        assert (first.status_code, again.status_code) == (201, 201)
        assert again.content == first.content
        for name in ("location", "etag", "content-type", "content-length"):
            assert again.headers[name] == first.headers[name]
        assert again.headers["idempotency-replayed"] == "true"
        assert "idempotency-replayed" not in first.headers

    async def test_leaves_no_second_event(self, edge: Edge, client: httpx.AsyncClient) -> None:
        await post(client)
        edge.recorder.events.clear()

        await post(client)

        assert edge.recorder.events == []

    async def test_of_another_body_is_422(self, client: httpx.AsyncClient) -> None:
        await post(client, name="a")

        answer = await post(client, name="b")

        assert (answer.status_code, answer.json()["code"]) == (422, "idempotency-key-reused")

    async def test_of_somebody_else_is_a_request_of_their_own(
        self, client: httpx.AsyncClient
    ) -> None:
        first = await post(client)
        other = await post(client, who="other")

        assert other.status_code == 201
        assert other.json()["id"] != first.json()["id"]

    async def test_without_a_key_each_request_creates(self, client: httpx.AsyncClient) -> None:
        first, second = await post(client, key=None), await post(client, key=None)

        assert first.json()["id"] != second.json()["id"]

    async def test_still_needs_the_permission(self, edge: Edge, client: httpx.AsyncClient) -> None:
        await post(client)
        edge.authenticator.principals["t"] = make_principal()

        assert (await post(client)).status_code == 403


@pytest.mark.parametrize("key", ["", "a b", "x" * 256, b"\xe9", "a\tb"])
async def test_odd_keys_are_refused(client: httpx.AsyncClient, key: str | bytes) -> None:
    answer = await post(client, key=key)

    assert (answer.status_code, answer.json()["code"]) == (422, "invalid-idempotency-key")


async def test_openapi_tells_of_the_header(edge: Edge) -> None:
    operation = edge.app.openapi()["paths"][URL]["post"]

    assert [p["name"] for p in operation["parameters"]] == ["Idempotency-Key"]
