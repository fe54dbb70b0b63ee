"""API keys made through the API itself, for the tests of them."""

from typing import Any

import httpx

from tests.e2e.conftest import Person

KEYS, SERVICES = "/api/v1/users/api-keys", "/api/v1/admin/service-accounts"


async def make_key(
    client: httpx.AsyncClient, person: Person, *scopes: str, at: str = KEYS, **fields: object
) -> dict[str, Any]:
    body = {"name": "a key", "scopes": list(scopes or ("model:read",)), **fields}
    answer = await client.post(at, json=body, headers=person.headers)
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


async def make_service(
    client: httpx.AsyncClient, person: Person, name: str, *roles: str
) -> dict[str, Any]:
    answer = await client.post(
        SERVICES, json={"name": name, "roles": list(roles)}, headers=person.headers
    )
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


def with_key(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


async def ask(client: httpx.AsyncClient, key: str, path: str = "/api/v1/models") -> int:
    return (await client.get(path, headers=with_key(key))).status_code
