"""API keys rolled over: both secrets for a while, and never more than two."""

import asyncio

import httpx
import pytest

from tests.e2e.conftest import MakePerson
from tests.e2e.user.keys import KEYS, ask, make_key, with_key
from tests.e2e.user.people import MODELS

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(60)]


class TestRotation:
    async def test_both_secrets_are_good_for_the_grace(
        self, client: httpx.AsyncClient, make_person: MakePerson
    ) -> None:
        ada = await make_person("ada")
        made = await make_key(client, ada)
        rotate = f"{KEYS}/{made['id']}/rotate"
        assert await ask(client, made["key"]) == 200

        new = (await client.post(rotate, json={}, headers=ada.headers)).json()

        assert new["id"] == made["id"]
        assert new["prefix"] == made["prefix"]
        assert new["key"] != made["key"]
        assert await ask(client, made["key"]) == await ask(client, new["key"]) == 200
        refused = await client.post(rotate, json={}, headers=ada.headers)
        assert (refused.status_code, refused.json()["code"]) == (409, "rotation-under-way")
        last = await client.post(rotate, json={"grace_seconds": 0}, headers=ada.headers)
        assert await ask(client, made["key"]) == await ask(client, new["key"]) == 401
        assert await ask(client, last.json()["key"]) == 200

    async def test_an_answer_that_was_lost_is_given_again(
        self, client: httpx.AsyncClient, make_person: MakePerson
    ) -> None:
        ada = await make_person("ada")
        made = await make_key(client, ada)
        rotate, key = f"{KEYS}/{made['id']}/rotate", with_key(made["key"])
        headers = {**ada.headers, "Idempotency-Key": "roll"}

        first, again = [
            await client.post(rotate, json={"grace_seconds": 60}, headers=headers) for _ in range(2)
        ]

        assert (first.status_code, again.status_code) == (200, 200)
        assert first.json() == again.json()
        assert await ask(client, first.json()["key"]) == 200
        assert (await client.get(MODELS, headers=key)).status_code == 200

    async def test_rotating_again_replaces_a_secret_that_nobody_has_used(
        self, client: httpx.AsyncClient, make_person: MakePerson
    ) -> None:
        ada = await make_person("ada")
        made = await make_key(client, ada)
        rotate, own = f"{KEYS}/{made['id']}/rotate", ada.headers

        lost = (await client.post(rotate, json={"grace_seconds": 600}, headers=own)).json()
        found = (await client.post(rotate, json={}, headers=own)).json()

        assert found["previous_valid_until"] == lost["previous_valid_until"]
        assert await ask(client, lost["key"]) == 401
        assert await ask(client, made["key"]) == await ask(client, found["key"]) == 200

    async def test_many_at_once_leave_two_secrets_at_most(
        self, client: httpx.AsyncClient, make_person: MakePerson
    ) -> None:
        ada = await make_person("ada")
        made = await make_key(client, ada)
        rotate = f"{KEYS}/{made['id']}/rotate"

        answers = await asyncio.gather(
            *(client.post(rotate, json={}, headers=ada.headers) for _ in range(20))
        )

        issued = [answer.json()["key"] for answer in answers if answer.status_code == 200]
        assert {answer.status_code for answer in answers} <= {200, 409, 503}
        good = [key for key in issued if await ask(client, key) == 200]
        assert len(good) == 1
        assert await ask(client, made["key"]) == 200
