"""API keys, as whoever holds one and whoever steals one sees them."""

import asyncpg
import httpx
import pytest

from tests.e2e.conftest import MakePerson
from tests.e2e.user.keys import KEYS, ask, make_key, with_key

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(60)]

MODELS, USERS, PROFILE = "/api/v1/models", "/api/v1/admin/users", "/api/v1/users/profile"


class TestUse:
    async def test_a_key_lets_in_by_either_header_within_its_scopes(
        self, client: httpx.AsyncClient, make_person: MakePerson
    ) -> None:
        ada = await make_person("ada")

        made = await make_key(client, ada, "model:read")

        key = made["key"]
        assert await ask(client, key) == 200
        assert (await client.get(MODELS, headers={"X-API-Key": key})).status_code == 200
        assert await ask(client, key, USERS) == 403
        assert await ask(client, key, PROFILE) == 403

    async def test_two_credentials_are_one_too_many(
        self, client: httpx.AsyncClient, make_person: MakePerson
    ) -> None:
        ada = await make_person("ada")
        key = (await make_key(client, ada))["key"]

        answer = await client.get(MODELS, headers={**with_key(key), "X-API-Key": key})

        assert answer.status_code == 401
        assert answer.json()["code"] == "invalid-credential"

    async def test_a_revoked_key_is_refused_at_once(
        self, client: httpx.AsyncClient, make_person: MakePerson
    ) -> None:
        ada = await make_person("ada")
        made = await make_key(client, ada)
        assert await ask(client, made["key"]) == 200

        answer = await client.delete(f"{KEYS}/{made['id']}", headers=ada.headers)

        assert answer.status_code == 204
        refused = await client.get(MODELS, headers=with_key(made["key"]))
        assert refused.status_code == 401
        assert refused.json()["code"] == "invalid-api-key"
        read = await client.get(f"{KEYS}/{made['id']}", headers=ada.headers)
        assert read.status_code == 404


class TestSecrecy:
    async def test_the_key_is_shown_once_and_stands_nowhere(
        self,
        client: httpx.AsyncClient,
        make_person: MakePerson,
        superuser: "asyncpg.Connection[asyncpg.Record]",
    ) -> None:
        ada = await make_person("ada")
        headers = {**ada.headers, "Idempotency-Key": "once"}
        body = {"name": "a key", "scopes": ["model:read"]}

        made = await client.post(KEYS, json=body, headers=headers)

        key = made.json()["key"]
        again = await client.post(KEYS, json=body, headers=headers)
        assert again.json() == made.json()
        assert again.headers["Idempotency-Replayed"] == "true"
        assert await ask(client, key) == 200
        secret = key.split("_")[3]
        for path in (KEYS, f"{KEYS}/{made.json()['id']}"):
            assert secret not in (await client.get(path, headers=ada.headers)).text
        tables = await superuser.fetch(
            "SELECT relname FROM pg_class WHERE relkind IN ('r', 'p')"
            " AND relnamespace = 'public'::regnamespace"
        )
        assert len(tables) > 10
        for row in tables:
            found = await superuser.fetchval(
                f"SELECT count(*) FROM {row['relname']} t"
                " WHERE t::text LIKE '%' || $1 || '%' OR t::text LIKE '%' || $2 || '%'",
                secret,
                secret.encode().hex(),
            )
            assert found == 0, row["relname"]
