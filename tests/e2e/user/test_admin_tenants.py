import httpx
import pytest

from maas.shared.domain.ids import DEFAULT_TENANT_ID
from tests.e2e.conftest import Flush, MakePerson
from tests.e2e.user.people import (
    EVERYTHING,
    ROLES,
    TENANTS,
    USERS,
    enter,
    id_of,
    make_tenant,
    make_user,
    status_of,
)
from tests.factories.accounts import PASSWORD

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(60)]


async def test_a_new_tenant_has_the_built_in_roles_and_its_first_admin(
    client: httpx.AsyncClient, make_person: MakePerson
) -> None:
    platform = await make_person("root", roles=EVERYTHING)

    tenant = await make_tenant(client, platform, "research", admin_id=await id_of(client, platform))

    there = await enter(client, "root", "research")
    roles = await client.get(ROLES, headers=there.headers)
    assert [role["name"] for role in roles.json()["items"]] == [
        "admin",
        "auditor",
        "developer",
        "user",
    ]
    assert all(role["is_protected"] for role in roles.json()["items"])
    made = await make_user(client, there, "grace")
    assert made["home_tenant_id"] == tenant
    # What one may do to the platform does not come along into the tenant.
    assert await status_of(client, there, TENANTS) == 403


async def test_tenants_are_found_changed_and_closed(
    client: httpx.AsyncClient, make_person: MakePerson
) -> None:
    platform = await make_person("root", roles=EVERYTHING)
    tenant = await make_tenant(client, platform, "research")
    path = f"{TENANTS}/{tenant}"
    read = await client.get(path, headers=platform.headers)

    renamed = await client.put(
        path, json={"name": "研究"}, headers={**platform.headers, "If-Match": read.headers["etag"]}
    )
    late = await client.put(
        path, json={"name": "Z"}, headers={**platform.headers, "If-Match": read.headers["etag"]}
    )
    found = await client.get(
        TENANTS, params={"q": "研", "include_total": True}, headers=platform.headers
    )
    taken = await client.post(
        TENANTS, json={"slug": "research", "name": "Again"}, headers=platform.headers
    )
    deleted = await client.delete(path, headers=platform.headers)
    gone = await client.get(path, headers=platform.headers)
    never_again = await client.post(
        TENANTS, json={"slug": "research", "name": "Again"}, headers=platform.headers
    )

    assert (renamed.status_code, late.status_code) == (200, 412)
    assert [each["slug"] for each in found.json()["items"]] == ["research"]
    assert found.json()["total"] == 1
    assert (taken.status_code, taken.json()["code"]) == (409, "tenant-slug-taken")
    assert (deleted.status_code, gone.status_code, never_again.status_code) == (204, 404, 409)


async def test_a_suspended_tenant_lets_nobody_in_until_it_is_restored(
    client: httpx.AsyncClient, make_person: MakePerson
) -> None:
    platform = await make_person("root", roles=EVERYTHING)
    grace = await make_user(client, platform, "grace")
    tenant = await make_tenant(client, platform, "other", admin_id=grace["id"])
    person = await enter(client, "grace", "other")
    path = f"{TENANTS}/{tenant}"

    suspended = await client.put(
        path, json={"status": "suspended", "status_reason": "Unpaid."}, headers=platform.headers
    )
    refused = await client.post(
        "/api/v1/auth/login", json={"username": "grace", "password": PASSWORD, "tenant": "other"}
    )
    await client.put(path, json={"status": "active"}, headers=platform.headers)

    assert suspended.json()["status_reason"] == "Unpaid."
    assert refused.status_code == 409
    assert await status_of(client, person) == 401
    assert await status_of(client, await enter(client, "grace", "other")) == 200


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
async def test_the_default_tenant_is_always_there(
    client: httpx.AsyncClient, make_person: MakePerson, method: str
) -> None:
    platform = await make_person("root", roles=EVERYTHING)

    answer = await client.request(
        method,
        f"{TENANTS}/{DEFAULT_TENANT_ID}",
        json={"status": "suspended"} if method == "PUT" else None,
        headers=platform.headers,
    )

    assert (answer.status_code, answer.json()["code"]) == (409, "default-tenant")


async def test_people_are_joined_to_a_tenant_and_taken_out(
    client: httpx.AsyncClient, make_person: MakePerson, flush: Flush
) -> None:
    platform = await make_person("root", roles=EVERYTHING)
    admin = await make_user(client, platform, "boss")
    grace = await make_user(client, platform, "grace")
    tenant = await make_tenant(client, platform, "other", admin_id=admin["id"])
    members = f"{TENANTS}/{tenant}/members"
    path = f"{members}/{grace['id']}"

    joined = await client.put(path, json={"roles": ["developer"]}, headers=platform.headers)
    assert joined.status_code == 200, joined.text
    person = await enter(client, "grace", "other")
    changed = await client.put(path, json={"roles": ["auditor"]}, headers=platform.headers)
    assert changed.json()["roles"] == ["auditor"]
    assert await status_of(client, person, USERS) == 200
    listed = await client.get(members, params={"q": "gra"}, headers=platform.headers)
    assert [each["username"] for each in listed.json()["items"]] == ["grace"]
    removed = await client.delete(path, headers=platform.headers)
    assert removed.status_code == 204
    assert await status_of(client, person) == 401
    assert (await client.get(f"{USERS}/{grace['id']}", headers=platform.headers)).status_code == 200
    boss = await enter(client, "boss", "other")
    await flush()
    logs = await client.get(
        "/api/v1/audit/logs", params={"action": "tenant.*"}, headers=boss.headers
    )
    assert [event["action"] for event in logs.json()["items"]] == [
        "tenant.member_removed",
        "tenant.member_put",
        "tenant.member_put",
        "tenant.member_put",  # the first administrator, made with the tenant
    ]


async def test_the_rules_hold_for_the_platform_too(
    client: httpx.AsyncClient, make_person: MakePerson
) -> None:
    platform = await make_person("root", roles=EVERYTHING)
    grace = await make_user(client, platform, "grace")
    tenant = await make_tenant(client, platform, "other", admin_id=grace["id"])
    own = f"{TENANTS}/{tenant}/members/{await id_of(client, platform)}"
    last = f"{TENANTS}/{tenant}/members/{grace['id']}"
    nobody = f"{TENANTS}/{tenant}/members/{DEFAULT_TENANT_ID}"

    answers = [
        await client.put(own, json={"roles": ["admin"]}, headers=platform.headers),
        await client.put(last, json={"roles": ["user"]}, headers=platform.headers),
        await client.delete(last, headers=platform.headers),
        await client.put(nobody, json={"roles": ["user"]}, headers=platform.headers),
        await client.put(last, json={"roles": ["nothing"]}, headers=platform.headers),
    ]

    assert [answer.json()["code"] for answer in answers] == [
        "own-roles",
        "last-admin",
        "last-admin",
        "account-not-found",
        "role-not-found",
    ]


async def test_no_tenant_administrator_gets_near_it(
    client: httpx.AsyncClient, make_person: MakePerson
) -> None:
    platform = await make_person("root", roles=EVERYTHING)
    admin = await make_person("ada", roles=("admin",))
    tenant = await make_tenant(client, platform, "other")
    own_id = await id_of(client, admin)

    answers = [
        await client.get(TENANTS, headers=admin.headers),
        await client.post(TENANTS, json={"slug": "x", "name": "X"}, headers=admin.headers),
        await client.get(f"{TENANTS}/{tenant}", headers=admin.headers),
        await client.put(f"{TENANTS}/{tenant}", json={"name": "X"}, headers=admin.headers),
        await client.delete(f"{TENANTS}/{tenant}", headers=admin.headers),
        await client.get(f"{TENANTS}/{tenant}/members", headers=admin.headers),
        await client.put(
            f"{TENANTS}/{tenant}/members/{own_id}", json={"roles": ["admin"]}, headers=admin.headers
        ),
        await client.delete(f"{TENANTS}/{tenant}/members/{own_id}", headers=admin.headers),
        await client.delete(f"{USERS}/{await id_of(client, platform)}", headers=admin.headers),
    ]

    assert {answer.status_code for answer in answers} == {403}
