"""All routes under `/api/v1`, walked by the application's own table, on real servers.

Each answers as OpenAPI says: when all is well, to strangers, to the powerless, to another tenant,
and to whatever hostile input it can be given; and each act leaves one event that says so.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from maas.main import create_app
from maas.model.application import providers
from maas.shared.infrastructure.settings import load_settings
from maas.shared.interface.routes import RouteFacts, walk_routes
from maas.user.public import SELF_PERMISSIONS
from tests.architecture.inspection import action_of, is_public
from tests.conftest import clone, drop, settings_for
from tests.e2e.routes.cases import ROWS
from tests.e2e.routes.world import ANSWERED, API, SOME, Case, World, opened_world
from tests.servers import Servers

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(60),
    pytest.mark.asyncio(loop_scope="module"),
]

OWN_REDIS = 32
"""From this number on, the Redis databases are those of walks, one a worker."""

# What one call leaves where it is not one event under the action of its route.
ROW_ACTIONS = {"POST /admin/users/bulk": "user.suspended"}

GARBAGE_TAGS = ("7", '"unclosed', '"a" "b"', "")
GARBAGE_CURSORS = ("x", "A" * 32 + "!", "A" * 4000, "%F0%9F%92%A9", "_" * 32)
GARBAGE_LIMITS = ("0", "201", "-1", "abc", "1.5", "9" * 40)
NIL = "00000000-0000-0000-0000-000000000000"
NOT_IDS = ("not-a-uuid", "%20", "1", "%C3%A9", "a" * 300, "%2e%2e")
MISSPELT = "no_such_parameter=1"

CountUp = Callable[[str, object], None]


@pytest.fixture(scope="module")
def database_name(servers: Servers, worker_number: int) -> Iterator[str]:
    name = f"maas_walk_{worker_number}"
    asyncio.run(clone(servers, name))
    yield name
    asyncio.run(drop(servers, name))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(
    servers: Servers,
    database_name: str,
    worker_number: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[World]:
    data_dir: Path = tmp_path_factory.mktemp("walk")
    base: dict[str, Any] = settings_for(
        servers, database_name, number=OWN_REDIS + worker_number, data_dir=data_dir
    )
    base["auth"] |= {"registration": "open"}
    connection = await servers.connect(database_name)
    with pytest.MonkeyPatch.context() as patch:
        # One tenant has what each test makes, and how many of them a worker runs is chance.
        patch.setattr(providers, "MAX_PROVIDERS", 10_000)
        async with opened_world(load_settings(**base), connection) as world:
            yield world
    await connection.close()


@pytest.fixture(autouse=True)
def count(world: World, record_property: CountUp) -> Iterator[None]:
    """Have the report say how much was asked, for `make acceptance`."""
    requests, events = world.requests, world.events
    yield
    record_property("requests", world.requests - requests)
    record_property("events", world.events - events)


def route_table() -> dict[str, RouteFacts]:
    settings = load_settings(
        environment="test",
        secret_key="only-to-read-the-routes-0123456789-abcdefghijklmno",
        database={"url": "postgresql+asyncpg://nobody@localhost:1/none"},
        redis={"url": "redis://localhost:1/0"},
    )
    return {
        f"{route.method} {route.path.removeprefix(API)}": route
        for route in walk_routes(create_app(settings))
        if route.path.startswith(API)
    }


TABLE = route_table()
GUARDED = [key for key, route in TABLE.items() if not is_public(route)]
ASKING = [key for key in GUARDED if not SELF_PERMISSIONS.issuperset(TABLE[key].permissions)]
NAMING = [key for key in TABLE if "{" in key]
READING_A_BODY = [key for key, route in TABLE.items() if route.context.body_field is not None]


def has_parameter(world: World, key: str, name: str) -> bool:
    route = world.routes[key]
    operation = world.document["paths"][route.path][route.method.lower()]
    return any(each["name"].lower() == name for each in operation.get("parameters", ()))


def code_of(answer: httpx.Response) -> str:
    return str(answer.json()["code"])


def about(problem: httpx.Response) -> dict[str, Any]:
    """What a problem says, without what differs from call to call."""
    said: dict[str, Any] = problem.json()
    return {name: said[name] for name in said if name not in {"request_id", "instance"}}


async def test_every_route_has_a_row_and_every_row_a_route() -> None:
    assert (sorted(TABLE.keys() - ROWS), sorted(ROWS.keys() - TABLE)) == ([], [])


async def test_only_what_is_ones_own_asks_for_no_more_than_an_account() -> None:
    own = set(GUARDED) - set(ASKING)

    assert all(key.split(" ")[1].startswith(("/users/", "/auth/")) for key in own)


@pytest.mark.parametrize("key", TABLE)
async def test_it_does_what_it_is_for_and_the_trail_says_so(
    world: World, key: str, record_property: CountUp
) -> None:
    route, case = world.routes[key], await ROWS[key](world)
    record_property("routes", 1)

    answer = await world.send(route, case)

    operation = world.document["paths"][route.path][route.method.lower()]
    wanted = 201 if "201" in operation["responses"] else min(operation["responses"])
    assert str(answer.status_code) == str(wanted), answer.text
    action = ROW_ACTIONS.get(key, action_of(route))
    events = await world.events_of(answer, awaited=action is not None)
    if action is None:
        assert events == []
        return
    (event,) = events
    assert (event["action"], event["outcome"], event["tenant_id"]) == (
        action,
        "success",
        case.tenant,
    )
    actor = case.actor or (case.caller and world.ids[case.caller.username])
    assert (event["actor_kind"], event["actor_id"]) == (
        "account" if actor else "anonymous",
        actor,
    )
    check_resource(case, event, answer)


def check_resource(case: Case, event: dict[str, Any], answer: httpx.Response) -> None:
    kind, resource = case.resource
    if resource == ANSWERED:
        resource = answer.json()["id"]
    elif resource == SOME:
        assert event["resource_id"]
        resource = event["resource_id"]
    assert (event["resource_kind"], event["resource_id"]) == (kind, resource)


@pytest.mark.parametrize("key", GUARDED)
async def test_strangers_are_asked_who_they_are(world: World, key: str) -> None:
    route, case = world.routes[key], await ROWS[key](world)

    nobody = await world.send(route, case, headers=case.headers)
    forged = await world.send(
        route, case, headers={**case.headers, "Authorization": "Bearer forged"}
    )

    assert (nobody.status_code, code_of(nobody)) == (401, "unauthenticated")
    assert (forged.status_code, code_of(forged)) == (401, "invalid-token")
    assert nobody.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("key", ASKING)
async def test_the_powerless_are_refused_and_the_trail_says_so(world: World, key: str) -> None:
    route, case = world.routes[key], await ROWS[key](world)

    answer = await world.send(route, case, headers={**case.headers, **world.bare.headers})

    assert (answer.status_code, code_of(answer)) == (403, "permission-denied")
    (event,) = await world.events_of(answer)
    assert event["outcome"] == "denied"
    assert event["action"] == (action_of(route) or "access.denied")
    assert event["actor_id"] == world.ids[world.bare.username]


@pytest.mark.parametrize("key", NAMING)
async def test_what_is_anothers_is_as_if_it_were_not_there(world: World, key: str) -> None:
    route, case = world.routes[key], await ROWS[key](world)
    is_platforms = any(name.startswith("platform:") for name in route.permissions)
    person = world.root if is_platforms else world.olga
    headers = {**case.headers, **person.headers}

    missing = await world.send(route, case, headers=headers, values=case.missing)

    assert missing.status_code == 404, missing.text
    if not is_platforms and not case.is_everywhere:
        foreign = await world.send(route, case, headers=headers)
        assert foreign.status_code == 404, foreign.text
        assert about(foreign) == about(missing)
        assert (await world.send(route, case)).is_success, "its own tenant still has it"


@pytest.mark.parametrize("key", READING_A_BODY)
async def test_a_body_that_is_not_what_it_takes_is_refused(world: World, key: str) -> None:
    route, case = world.routes[key], await ROWS[key](world)
    is_form = case.form is not None
    own = {**case.credentials, **case.headers}
    media = "application/x-www-form-urlencoded" if is_form else "application/json"

    async def answered(content: bytes, content_type: str = media) -> tuple[int, str]:
        headers = {**own, "Content-Type": content_type}
        answer = await world.send(route, case, headers=headers, content=content)
        return answer.status_code, code_of(answer)

    good = json.dumps(case.json).encode() if case.json is not None else b"username=a&password=b"
    assert await answered(good, "text/plain") == (415, "unsupported-media-type")
    assert await answered(good, f"{media}; charset=utf-16") == (415, "unsupported-media-type")
    if is_form:
        assert await answered(b"username=%zz") == (422, "invalid-form")
        assert await answered(b"username=a%00&password=b") == (422, "invalid-characters")
        assert await answered(b"username=a") == (422, "validation-failed")
        return
    unknown = json.dumps({**case.json, "no_such_field": 1}).encode()
    assert await answered(unknown) == (422, "validation-failed")
    for wrong in (b'{"a":', b"\xff", b'{"a": NaN}', b'{"a": 1, "a": 2}', b"\xef\xbb\xbf{}"):
        assert await answered(wrong) == (422, "invalid-json")
    for wrong in (rb'{"a": "\u0000"}', rb'{"a": "\ud800"}', rb'{"\u0000": 1}'):
        assert await answered(wrong) == (422, "invalid-characters")
    assert await answered(b"[" * 40 + b"]" * 40) == (422, "json-too-deep")
    for wrong in (b"[]", b"null", b'"text"', b"7", b""):
        assert await answered(wrong) == (422, "validation-failed")
    for name in case.json:
        odd = json.dumps({**case.json, name: {"value": "x"}}).encode()
        assert await answered(odd) == (422, "validation-failed"), name
    assert await answered(b'{"a": "' + b"x" * 2_000_000 + b'"}') == (413, "payload-too-large")


# What is named may be new, or is not looked up.
ANY_NAME = {
    "PUT /deployments/{deployment_id}/grants/{tenant_id}",
    "PUT /models/{model_id}/aliases/{alias}",
    "PUT /models/{model_id}/grants/{tenant_id}",
    "PUT /providers/{provider_id}/grants/{tenant_id}",
    "PUT /models/{model_id}/tags/{tag}",
}


@pytest.mark.parametrize("key", NAMING)
async def test_a_name_that_cannot_be_is_a_problem(world: World, key: str) -> None:
    route, case = world.routes[key], await ROWS[key](world)
    own = {**case.credentials, **case.headers}
    statuses: set[int] = set()

    for name in case.values:
        for odd in (*NOT_IDS, NIL, "a%00b", "%ff", "%", "%0a"):
            answer = await world.send(route, case, headers=own, values={**case.values, name: odd})
            is_nothing = (route.method in {"PUT", "GET"} and name == "path") or key in ANY_NAME
            statuses.add(answer.status_code)
            assert answer.is_error or is_nothing, (name, odd, answer.status_code)

    assert statuses >= {404, 422}


@pytest.mark.parametrize("key", TABLE)
async def test_a_query_that_it_does_not_know_is_a_problem(world: World, key: str) -> None:
    route, case = world.routes[key], await ROWS[key](world)

    async def answered(query: str) -> tuple[int, str]:
        answer = await world.send(route, case, query=f"?{query}")
        return answer.status_code, code_of(answer)

    assert await answered(MISSPELT) == (422, "validation-failed")
    for wrong in ("q=a%00b", "q=%ff", "q=%"):
        assert await answered(wrong) == (422, "invalid-url")
    assert await answered("q=" + "x" * 9000) == (414, "uri-too-long")
    if has_parameter(world, key, "limit"):
        for wrong in GARBAGE_LIMITS:
            assert await answered(f"limit={wrong}") == (422, "validation-failed")
        assert await answered("limit=1&limit=2") == (422, "validation-failed")
        for wrong in GARBAGE_CURSORS:
            status, code = await answered(f"cursor={wrong}")
            assert (status, code) in {(422, "invalid-cursor"), (422, "validation-failed")}, wrong
    if has_parameter(world, key, "q"):
        assert await answered("q=" + "x" * 201) == (422, "validation-failed")
        assert await answered("q=") == (422, "validation-failed")


@pytest.mark.parametrize("key", TABLE)
async def test_headers_that_cannot_be_are_a_problem(world: World, key: str) -> None:
    route, case = world.routes[key], await ROWS[key](world)
    own = {**case.credentials, **case.headers}

    if has_parameter(world, key, "if-match"):
        for tag in GARBAGE_TAGS:
            answer = await world.send(route, case, headers={**own, "If-Match": tag})
            assert (answer.status_code, code_of(answer)) == (422, "invalid-etag"), tag
        if route.method != "PUT" or "files" not in key:
            stale = await world.send(route, case, headers={**own, "If-Match": '"999999"'})
            assert (stale.status_code, code_of(stale)) == (412, "precondition-failed")
    if has_parameter(world, key, "idempotency-key"):
        for wrong in ("k" * 256, "", "two words"):
            answer = await world.send(route, case, headers={**own, "Idempotency-Key": wrong})
            assert (answer.status_code, code_of(answer)) == (422, "invalid-idempotency-key")
    if case.caller is not None:
        twice = await world.send(route, case, headers={**own, "X-API-Key": "maas_x"})
        assert (twice.status_code, code_of(twice)) == (401, "invalid-credential")


PROBLEM = {"type": "t", "title": "t", "detail": "d", "instance": "/", "request_id": "r"}


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, {"items": [], "next_cursor": None, "more": 1}),
        (200, {"items": []}),
        (202, {"items": [], "next_cursor": None}),
        (409, {**PROBLEM, "status": 409, "code": "role-in-use"}),
        (422, {**PROBLEM, "status": 404, "code": "invalid-cursor"}),
        (500, {**PROBLEM, "status": 500, "code": "internal-error"}),
    ],
)
async def test_an_answer_that_is_not_declared_would_be_found(
    world: World, status: int, body: dict[str, Any]
) -> None:
    media_type = "application/json" if status < 400 else "application/problem+json"
    answer = httpx.Response(status, json=body, headers={"Content-Type": media_type})

    with pytest.raises(AssertionError):
        world.compare(world.routes["GET /users/tenants"], answer)
