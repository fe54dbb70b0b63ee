import asyncio

import httpx
import pytest

from maas.user.public import BUILT_IN_ROLES
from tests.e2e.conftest import MakePerson, Person, sign_in
from tests.e2e.user.people import EVERYTHING, ROLES, assign, make_user

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(60)]

NEW = {"name": "desk", "description": "Help desk", "permissions": ["user:read", "user:read"]}


def matching(person: Person, answer: httpx.Response) -> dict[str, str]:
    return {**person.headers, "If-Match": answer.headers["etag"]}


async def test_a_role_is_made_read_changed_and_deleted(
    client: httpx.AsyncClient, make_person: MakePerson
) -> None:
    admin = await make_person("ada")

    made = await client.post(ROLES, json=NEW, headers=admin.headers)
    assert made.status_code == 201, made.text
    assert made.json()["permissions"] == ["user:read"]
    path = made.headers["location"]
    read = await client.get(path, headers=admin.headers)
    assert read.json() == made.json()
    changed = await client.put(
        path, json={"permissions": ["model:*"]}, headers=matching(admin, read)
    )
    assert changed.json()["permissions"] == ["model:*"]
    assert changed.json()["description"] == "Help desk"
    deleted = await client.delete(path, headers=matching(admin, changed))
    assert deleted.status_code == 204
    assert (await client.get(path, headers=admin.headers)).status_code == 404


async def test_changes_want_the_etag_last_read(
    client: httpx.AsyncClient, make_person: MakePerson
) -> None:
    admin = await make_person("ada")
    made = await client.post(ROLES, json=NEW, headers=admin.headers)
    path, old = made.headers["location"], matching(admin, made)
    await client.put(path, json={"description": None}, headers=old)

    answers = [
        await client.put(path, json={"permissions": []}, headers=admin.headers),
        await client.delete(path, headers=admin.headers),
        await client.put(path, json={"permissions": []}, headers=old),
        await client.delete(path, headers=old),
    ]

    assert [answer.status_code for answer in answers] == [428, 428, 412, 412]


@pytest.mark.parametrize("name", BUILT_IN_ROLES)
async def test_built_in_roles_stay_as_they_are(
    client: httpx.AsyncClient, make_person: MakePerson, name: str
) -> None:
    admin = await make_person("root", roles=EVERYTHING)
    read = await client.get(f"{ROLES}/{name}", headers=admin.headers)

    answers = [
        await client.put(
            f"{ROLES}/{name}", json={"permissions": []}, headers=matching(admin, read)
        ),
        await client.delete(f"{ROLES}/{name}", headers=matching(admin, read)),
    ]

    assert [(each.status_code, each.json()["code"]) for each in answers] == [
        (409, "role-protected")
    ] * 2


async def test_a_role_somebody_holds_is_not_deleted(
    client: httpx.AsyncClient, make_person: MakePerson
) -> None:
    admin = await make_person("ada")
    made = await client.post(ROLES, json=NEW, headers=admin.headers)
    grace = await make_user(client, admin, "grace", "desk")

    held = await client.delete(made.headers["location"], headers=matching(admin, made))
    await assign(client, admin, grace["id"], "user")
    free = await client.delete(made.headers["location"], headers=matching(admin, made))

    assert (held.status_code, held.json()["code"]) == (409, "role-in-use")
    assert free.status_code == 204


async def test_nothing_is_made_or_changed_beyond_own_rights(
    client: httpx.AsyncClient, make_person: MakePerson
) -> None:
    admin = await make_person("ada")
    for name, permissions in (
        ("clerk", ["role:*", "user:read"]),
        ("other", ["user:read"]),
        ("above", ["user:read", "model:write"]),
    ):
        body = {"name": name, "permissions": permissions}
        await client.post(ROLES, json=body, headers=admin.headers)
    await make_user(client, admin, "clerk", "clerk")
    clerk = await sign_in(client, "clerk")
    anything = {**clerk.headers, "If-Match": "*"}

    async def change(name: str, *permissions: str) -> tuple[int, str | None]:
        answer = await client.put(
            f"{ROLES}/{name}", json={"permissions": list(permissions)}, headers=anything
        )
        return answer.status_code, answer.json().get("code")

    made = [
        await client.post(
            ROLES, json={"name": f"n{n}", "permissions": [permission]}, headers=headers
        )
        for n, (headers, permission) in enumerate(
            [
                (clerk.headers, "user:write"),
                (clerk.headers, "*:*"),
                (clerk.headers, "*:read"),
                (admin.headers, "platform:*"),
                (admin.headers, "platform:tenant-read"),
                (clerk.headers, "role:write"),
            ]
        )
    ]
    assert [answer.status_code for answer in made] == [403, 403, 403, 403, 403, 201]
    assert await change("other", "role:read") == (200, None)
    assert await change("other", "user:write") == (403, "beyond-own-rights")
    assert await change("above", "user:read") == (403, "beyond-own-rights")
    assert await change("clerk", "user:read") == (403, "own-roles")


async def test_a_hundred_at_once_make_one(
    client: httpx.AsyncClient, make_person: MakePerson
) -> None:
    admin = await make_person("ada")

    answers = await asyncio.gather(
        *(client.post(ROLES, json=NEW, headers=admin.headers) for _ in range(100))
    )

    statuses = [answer.status_code for answer in answers]
    assert statuses.count(201) == 1
    assert set(statuses) <= {201, 409, 503}


@pytest.mark.parametrize(
    "body", [{"name": "X"}, {"permissions": ["read"]}, {"permissions": ["a:b:c"]}]
)
async def test_what_is_no_role_is_422(
    client: httpx.AsyncClient, make_person: MakePerson, body: dict[str, object]
) -> None:
    admin = await make_person("ada")

    answer = await client.post(ROLES, json={**NEW, **body}, headers=admin.headers)

    assert answer.status_code == 422


async def test_the_permissions_that_routes_ask_for_are_listed(
    client: httpx.AsyncClient, make_person: MakePerson
) -> None:
    admin = await make_person("ada")

    answer = await client.get("/api/v1/admin/permissions", headers=admin.headers)

    listed = {item["name"]: item["description"] for item in answer.json()["items"]}
    assert {"user:write", "model:read", "platform:tenant-write", "audit:read"} <= set(listed)
    assert all(listed.values())
    assert not any("*" in name for name in listed)
