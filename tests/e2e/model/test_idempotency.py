import httpx
import pytest

from tests.e2e.conftest import MakePerson

pytestmark = pytest.mark.e2e


async def test_a_key_used_under_another_model_is_refused_and_writes_nothing(
    client: httpx.AsyncClient, make_person: MakePerson
) -> None:
    person = await make_person("ada", roles=("developer",))
    paths = []
    for name in ("acme/a", "acme/b"):
        made = await client.post(
            "/api/v1/models", json={"name": name, "framework": "other"}, headers=person.headers
        )
        paths.append(f"/api/v1/models/{made.json()['id']}/versions")
    headers = {**person.headers, "Idempotency-Key": "same-for-both"}

    first = await client.post(paths[0], json={"version": "1"}, headers=headers)
    again = await client.post(paths[0], json={"version": "1"}, headers=headers)
    other = await client.post(paths[1], json={"version": "1"}, headers=headers)

    assert (first.status_code, again.status_code, other.status_code) == (201, 201, 422)
    assert again.json() == first.json()
    assert other.json()["code"] == "idempotency-key-reused"
    listed = await client.get(paths[1], headers=person.headers)
    assert listed.json()["items"] == []
