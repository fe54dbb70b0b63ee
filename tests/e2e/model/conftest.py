"""A person who may do everything in the registry, and a version to do it to."""

import httpx
import pytest

from tests.e2e.conftest import MakePerson, Person
from tests.factories.accounts import PASSWORD

MODEL = {
    "name": "acme/bot:7b",
    "framework": "gguf",
    "description": "回答客户的问题",
    "task": "chat",
}


@pytest.fixture
async def ada(make_person: MakePerson) -> Person:
    return await make_person("ada")


@pytest.fixture
async def api(client: httpx.AsyncClient, ada: Person) -> httpx.AsyncClient:
    client.headers.update(ada.headers)
    client.base_url = httpx.URL("http://maas.test/api/v1/")
    return client


@pytest.fixture
async def operator(make_person: MakePerson) -> Person:
    return await make_person("olga", roles=("admin", "platform_admin"))


@pytest.fixture
async def otto(make_person: MakePerson) -> Person:
    """Who will administer another tenant."""
    return await make_person("otto")


@pytest.fixture
async def other(
    operator: Person, otto: Person, api: httpx.AsyncClient
) -> tuple[str, dict[str, str]]:
    """Another tenant: its id, and the headers of its administrator."""
    users = (await api.get("admin/users", params={"q": otto.username})).json()["items"]
    tenant = await api.post(
        "admin/tenants",
        json={"slug": "other", "name": "Other", "admin_id": users[0]["id"]},
        headers=operator.headers,
    )
    login = await api.post(
        "auth/login",
        json={"username": otto.username, "password": PASSWORD, "tenant": "other"},
    )
    return tenant.json()["id"], {"Authorization": f"Bearer {login.json()['access_token']}"}


async def make_version(api: httpx.AsyncClient) -> str:
    """Make a model with a version, and tell the version's path."""
    made = await api.post("models", json=MODEL)
    assert made.status_code == 201, made.text
    path = f"models/{made.json()['id']}/versions"
    version = await api.post(path, json={"version": "1.0.0"})
    assert version.status_code == 201, version.text
    return f"{path}/1.0.0"
