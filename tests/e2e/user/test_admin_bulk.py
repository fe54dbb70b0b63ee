import asyncpg
import httpx
import pytest

from tests.e2e.conftest import Flush, MakePerson, Person, sign_in
from tests.e2e.user.people import USERS, make_user, status_of

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(60)]

BULK = f"{USERS}/bulk"


def creating(*names: str, **fields: object) -> list[dict[str, object]]:
    return [
        {"act": "create", "username": name, "email": f"{name}@example.com", **fields}
        for name in names
    ]


async def events(
    client: httpx.AsyncClient, flush: Flush, admin: Person, action: str
) -> list[tuple[str, str]]:
    await flush()
    answer = await client.get(
        "/api/v1/audit/logs", params={"action": action, "limit": 200}, headers=admin.headers
    )
    return [(event["action"], event["outcome"]) for event in answer.json()["items"]]


@pytest.mark.parametrize("mode", ["all-or-nothing", "each"])
async def test_each_row_is_done_and_leaves_its_own_event(
    client: httpx.AsyncClient, make_person: MakePerson, flush: Flush, mode: str
) -> None:
    admin = await make_person("ada")
    leaving = await make_user(client, admin, "leaving")
    promoted = await make_user(client, admin, "promoted")
    sitting = await make_user(client, admin, "sitting")
    person = await sign_in(client, "leaving")
    rows = [
        *creating("p1", "p2"),
        {"act": "remove", "id": leaving["id"]},
        {"act": "set-roles", "id": promoted["id"], "roles": ["developer"]},
        {"act": "suspend", "id": sitting["id"], "reason": "On leave."},
        {"act": "restore", "id": sitting["id"]},
    ]

    answer = await client.post(BULK, json={"mode": mode, "rows": rows}, headers=admin.headers)

    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert (body["done"], body["refused"]) == (6, 0)
    assert await status_of(client, person) == 401
    first = await sign_in(client, "p1", body["rows"][0]["initial_password"])
    assert await status_of(client, first) == 200
    read = await client.get(f"{USERS}/{promoted['id']}", headers=admin.headers)
    assert read.json()["roles"] == ["developer"]
    assert sorted(await events(client, flush, admin, "user.*")) == sorted(
        [
            *[("user.created", "success")] * 5,
            ("user.removed", "success"),
            ("user.roles_changed", "success"),
            ("user.suspended", "success"),
            ("user.restored", "success"),
        ]
    )


async def test_all_or_nothing_does_nothing_when_one_row_is_refused(
    client: httpx.AsyncClient, make_person: MakePerson, flush: Flush
) -> None:
    admin = await make_person("ada")

    answer = await client.post(
        BULK,
        json={"mode": "all-or-nothing", "rows": creating("p1", "ada", "p2")},
        headers=admin.headers,
    )

    assert answer.status_code == 409
    body = answer.json()
    assert (body["code"], body["row"], body["cause"]) == ("bulk-refused", 1, "username-taken")
    found = await client.get(USERS, headers=admin.headers)
    assert len(found.json()["items"]) == 1
    assert await events(client, flush, admin, "user.*") == [("user.bulk", "failure")]


async def test_each_reports_what_was_refused_and_does_the_rest(
    client: httpx.AsyncClient, make_person: MakePerson, flush: Flush
) -> None:
    admin = await make_person("ada")
    rows = [
        *creating("p1", "ada"),
        *creating("p2", roles=["platform_admin"]),
        *creating("p3", password="short"),
        *creating("p4"),
    ]

    answer = await client.post(BULK, json={"mode": "each", "rows": rows}, headers=admin.headers)

    assert answer.status_code == 200
    assert [(row["outcome"], row["code"]) for row in answer.json()["rows"]] == [
        ("done", None),
        ("refused", "username-taken"),
        ("refused", "beyond-own-rights"),
        ("refused", "weak-password"),
        ("done", None),
    ]
    assert sorted(await events(client, flush, admin, "user.*")) == [
        ("user.created", "denied"),
        ("user.created", "failure"),
        ("user.created", "failure"),
        ("user.created", "success"),
        ("user.created", "success"),
    ]


@pytest.mark.parametrize("mode", ["all-or-nothing", "each"])
async def test_many_people_come_in_one_call(
    client: httpx.AsyncClient,
    make_person: MakePerson,
    superuser: "asyncpg.Connection[asyncpg.Record]",
    mode: str,
) -> None:
    admin = await make_person("ada")

    answer = await client.post(
        BULK,
        json={"mode": mode, "rows": creating(*(f"p{n}" for n in range(50)))},
        headers=admin.headers,
    )

    assert answer.json()["done"] == 50
    assert await superuser.fetchval("SELECT count(*) FROM memberships") == 51


async def test_rows_need_their_own_permissions(
    client: httpx.AsyncClient, make_person: MakePerson
) -> None:
    admin = await make_person("ada")
    await client.post(
        "/api/v1/admin/roles",
        json={"name": "desk", "permissions": ["user:write", "inference:*", "model:read"]},
        headers=admin.headers,
    )
    await make_user(client, admin, "desk", "desk")
    grace = await make_user(client, admin, "grace")
    desk = await sign_in(client, "desk")

    answer = await client.post(
        BULK,
        json={"mode": "each", "rows": [{"act": "remove", "id": grace["id"]}]},
        headers=desk.headers,
    )

    assert answer.status_code == 403


@pytest.mark.parametrize("rows", [[], [{"act": "explode"}], creating(*("x" * 1001))])
async def test_rows_that_are_none_are_422(
    client: httpx.AsyncClient, make_person: MakePerson, rows: list[object]
) -> None:
    admin = await make_person("ada")

    answer = await client.post(BULK, json={"mode": "each", "rows": rows}, headers=admin.headers)

    assert answer.status_code == 422
