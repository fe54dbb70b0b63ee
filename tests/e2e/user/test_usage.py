"""What was used, over HTTP: the tenant's for who may see it, one's own for everybody."""

from datetime import UTC, datetime
from uuid import UUID

import asyncpg
import httpx
import pytest

from tests.conftest import WorkerDatabase
from tests.e2e.conftest import MakePerson, Person
from tests.e2e.user.keys import make_key, with_key
from tests.e2e.user.people import id_of
from tests.factories.usage import UsageRow, add_usage
from tests.servers import Servers

pytestmark = pytest.mark.e2e

USAGE, OWN = "/api/v1/usage", "/api/v1/users/usage"


@pytest.fixture
async def ada(make_person: MakePerson) -> Person:
    return await make_person("ada")


@pytest.fixture
async def bob(make_person: MakePerson) -> Person:
    return await make_person("bob", roles=("user",))


@pytest.fixture
async def used(
    servers: Servers, worker_database: WorkerDatabase, client: httpx.AsyncClient,
    ada: Person, bob: Person,
) -> dict[str, UUID]:  # fmt: skip
    """Three calls: two of Bob's, one of them by a key of his that is gone, and one of Ada's."""
    ids = {name: UUID(await id_of(client, each)) for name, each in (("ada", ada), ("bob", bob))}
    key = await make_key(client, bob, "self:read")
    ids["key"] = UUID(key["id"])
    connection = await servers.connect(worker_database.name, "maas_app")
    await add_usage(
        connection,
        [
            UsageRow(account_id=ids["ada"], model="gemma", input_tokens=5, cost_nanos=2**53 + 1,
                     currency="USD"),
            UsageRow(account_id=ids["bob"], model="gemma", output_tokens=7, reasoning_tokens=2,
                     is_estimated=True),
            UsageRow(account_id=ids["bob"], api_key_id=ids["key"], model="qwen", input_tokens=11,
                     cached_tokens=3, cost_nanos=4, currency="CNY"),
        ],
    )  # fmt: skip
    await connection.close()
    return ids


async def get(client: httpx.AsyncClient, path: str, who: Person, **query: object) -> httpx.Response:
    return await client.get(path, params=query, headers=who.headers)  # type: ignore[arg-type]  # what httpx takes


async def test_money_past_what_json_keeps_is_text_and_the_rest_is_numbers(
    client: httpx.AsyncClient, ada: Person, used: dict[str, UUID]
) -> None:
    answer = await get(client, USAGE, ada)

    body = answer.json()
    assert answer.status_code == 200, answer.text
    assert body["sums"]["costs"] == [
        {"currency": "CNY", "cost_nanos": 4},
        {"currency": "USD", "cost_nanos": str(2**53 + 1)},
    ]
    assert (body["sums"]["requests"], body["sums"]["tokens"]) == (3, 25)
    assert body["sums"]["estimated_requests"] == 1
    (today,) = body["items"]
    assert today["day"] == f"{datetime.now(UTC):%Y-%m-%d}"  # noqa: TID251  the day of the calls
    assert body["group_by"] == ["day"]
    assert (body["next_cursor"], "total" in body) == (None, False)


async def test_keys_and_people_are_told_by_name(
    client: httpx.AsyncClient, ada: Person, bob: Person, used: dict[str, UUID]
) -> None:
    query = {"group_by": ["user", "key"], "include_total": "true"}
    before = (await get(client, USAGE, ada, **query)).json()
    await client.delete(f"/api/v1/users/api-keys/{used['key']}", headers=bob.headers)
    after = (await get(client, USAGE, ada, **query)).json()

    def named(body: dict[str, list[dict[str, object]]]) -> set[tuple[object, ...]]:
        return {
            (item["account_name"], item["account_kind"], item["api_key_name"], item["requests"])
            for item in body["items"]
        }

    assert named(before) == {
        ("ada", "account", None, 1), ("bob", "account", None, 1), ("bob", "account", "a key", 1)
    }  # fmt: skip
    assert named(after) == {("ada", "account", None, 1), ("bob", "account", None, 1)}
    assert {item["api_key_id"] for item in after["items"]} == {None, str(used["key"])}
    assert before["total"] == 3


async def test_who_has_left_the_tenant_is_told_by_id_alone(
    client: httpx.AsyncClient,
    ada: Person,
    used: dict[str, UUID],
    superuser: "asyncpg.Connection[asyncpg.Record]",
) -> None:
    await superuser.execute("DELETE FROM memberships WHERE account_id = $1", used["bob"])

    body = (await get(client, USAGE, ada, group_by="user")).json()

    told = {item["account_id"]: item["account_name"] for item in body["items"]}
    assert told == {str(used["ada"]): "ada", str(used["bob"]): None}


async def test_ones_own_is_for_everybody_and_the_tenants_is_not(
    client: httpx.AsyncClient, ada: Person, bob: Person, used: dict[str, UUID]
) -> None:
    own = await get(client, OWN, bob, group_by="model")
    refused = await get(client, USAGE, bob)
    filtered = await get(client, USAGE, ada, account_id=str(used["bob"]), group_by="model")

    assert refused.status_code == 403
    assert [item["model"] for item in own.json()["items"]] == ["gemma", "qwen"]
    assert own.json()["items"] == filtered.json()["items"]
    assert (await get(client, OWN, ada)).json()["sums"]["requests"] == 1
    others = await get(client, OWN, bob, account_id=str(used["ada"]))
    assert others.status_code == 422


async def test_a_key_reads_as_far_as_its_scopes_go(
    client: httpx.AsyncClient, ada: Person, used: dict[str, UUID]
) -> None:
    narrow = (await make_key(client, ada, "usage:read"))["key"]
    own = (await make_key(client, ada, "self:read"))["key"]

    async def statuses(key: str) -> list[int]:
        return [
            (await client.get(path, headers=with_key(key))).status_code for path in (USAGE, OWN)
        ]

    assert (await statuses(narrow), await statuses(own)) == ([200, 403], [403, 200])


async def test_pages_go_on_where_the_last_one_ended(
    client: httpx.AsyncClient, ada: Person, used: dict[str, UUID]
) -> None:
    first = (await get(client, USAGE, ada, group_by="model", limit=1)).json()
    cursor = first["next_cursor"]
    second = (await get(client, USAGE, ada, group_by="model", limit=1, cursor=cursor)).json()
    other = await get(client, USAGE, ada, group_by="key", limit=1, cursor=cursor)

    assert [item["model"] for page in (first, second) for item in page["items"]] == [
        "gemma", "qwen"
    ]  # fmt: skip
    assert second["next_cursor"] is None
    assert first["sums"] == second["sums"]
    assert (other.status_code, other.json()["code"]) == (422, "cursor-of-other-groups")


async def test_what_cannot_be_counted_is_a_problem(client: httpx.AsyncClient, ada: Person) -> None:
    queries: list[tuple[dict[str, object], str]] = [
        ({"group_by": "hour"}, "validation-failed"),
        ({"group_by": ["day", "day"]}, "usage-not-counted"),
        ({"since": "2026-01-01T00:00:00"}, "validation-failed"),
        ({"since": "2024-01-01T00:00:00Z"}, "usage-not-counted"),
        ({"since": "2026-01-02T00:00:00Z", "until": "2026-01-01T00:00:00Z"}, "usage-not-counted"),
        ({"model": ""}, "validation-failed"),
        ({"api_key_id": "x"}, "validation-failed"),
    ]
    for query, code in queries:
        answer = await get(client, USAGE, ada, **query)

        assert (answer.status_code, answer.json()["code"]) == (422, code), query
