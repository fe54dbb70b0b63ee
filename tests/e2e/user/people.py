"""People made through the admin area itself, for the tests of it."""

from typing import Any

import httpx

from tests.e2e.conftest import Person
from tests.factories.accounts import PASSWORD

USERS, ROLES, TENANTS = "/api/v1/admin/users", "/api/v1/admin/roles", "/api/v1/admin/tenants"
PROFILE, MODELS = "/api/v1/users/profile", "/api/v1/models"
EVERYTHING = ("admin", "platform_admin")


async def make_user(
    client: httpx.AsyncClient, admin: Person, username: str, *roles: str, **fields: object
) -> dict[str, Any]:
    """Make a person in the admin's tenant, with the password of the other factories."""
    body = {
        "username": username,
        "email": f"{username}@example.com",
        "password": PASSWORD,
        "roles": list(roles or ("user",)),
        **fields,
    }
    answer = await client.post(USERS, json=body, headers=admin.headers)
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


async def make_tenant(
    client: httpx.AsyncClient, platform: Person, slug: str, *, admin_id: str | None = None
) -> str:
    answer = await client.post(
        TENANTS,
        json={"slug": slug, "name": slug.title(), "admin_id": admin_id},
        headers=platform.headers,
    )
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


async def enter(client: httpx.AsyncClient, username: str, tenant: str) -> Person:
    """Sign in to a tenant."""
    answer = await client.post(
        "/api/v1/auth/login", json={"username": username, "password": PASSWORD, "tenant": tenant}
    )
    assert answer.status_code == 200, answer.text
    tokens = answer.json()
    return Person(username, tokens["access_token"], tokens["refresh_token"])


async def id_of(client: httpx.AsyncClient, person: Person) -> str:
    answer = await client.get(PROFILE, headers=person.headers)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"])


async def assign(
    client: httpx.AsyncClient, admin: Person, user_id: str, *roles: str
) -> httpx.Response:
    """Have a person hold exactly these roles."""
    read = await client.get(f"{USERS}/{user_id}", headers=admin.headers)
    return await client.put(
        f"{USERS}/{user_id}/roles",
        json={"roles": list(roles)},
        headers={**admin.headers, "If-Match": read.headers.get("etag", "*")},
    )


async def status_of(client: httpx.AsyncClient, person: Person, path: str = PROFILE) -> int:
    return (await client.get(path, headers=person.headers)).status_code
