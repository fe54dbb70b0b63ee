import asyncio

import httpx
import pytest

from maas.shared.infrastructure.redis import RedisGate
from tests.e2e.conftest import MakePerson, sign_in
from tests.factories.accounts import PASSWORD

pytestmark = pytest.mark.e2e

LOGIN, REFRESH, LOGOUT = "/api/v1/auth/login", "/api/v1/auth/refresh", "/api/v1/auth/logout"
PROFILE = "/api/v1/users/profile"


class TestLogin:
    async def test_answers_a_pair_of_tokens(
        self, client: httpx.AsyncClient, make_person: MakePerson
    ) -> None:
        await make_person("ada")

        answer = await client.post(LOGIN, json={"username": "ADA", "password": PASSWORD})

        assert answer.status_code == 200
        body = answer.json()
        assert set(body) == {"access_token", "refresh_token", "token_type", "expires_in"}
        assert body["token_type"] == "bearer"
        assert body["expires_in"] == 600
        assert answer.headers["cache-control"] == "no-store"

    async def test_takes_an_email_address_as_well(
        self, client: httpx.AsyncClient, make_person: MakePerson
    ) -> None:
        await make_person("ada")

        answer = await client.post(
            LOGIN, json={"username": "Ada@Example.com", "password": PASSWORD, "tenant": "default"}
        )

        assert answer.status_code == 200

    async def test_takes_the_form_of_the_docs_authorize_button(
        self, client: httpx.AsyncClient, make_person: MakePerson
    ) -> None:
        await make_person("ada")

        answer = await client.post(
            "/api/v1/auth/token",
            data={"grant_type": "password", "username": "ada", "password": PASSWORD},
        )

        assert answer.status_code == 200, answer.text

    async def test_the_form_takes_no_other_grant(
        self, client: httpx.AsyncClient, make_person: MakePerson
    ) -> None:
        await make_person("ada")

        answer = await client.post(
            "/api/v1/auth/token",
            data={"grant_type": "refresh_token", "username": "ada", "password": PASSWORD},
        )

        assert answer.status_code == 422

    async def test_a_wrong_password_and_an_unknown_name_answer_alike(
        self, client: httpx.AsyncClient, make_person: MakePerson
    ) -> None:
        await make_person("ada")

        wrong = await client.post(LOGIN, json={"username": "ada", "password": "not this one"})
        unknown = await client.post(LOGIN, json={"username": "eve", "password": "not this one"})

        assert wrong.status_code == unknown.status_code == 401
        volatile = {"request_id"}
        assert {k: v for k, v in wrong.json().items() if k not in volatile} == {
            k: v for k, v in unknown.json().items() if k not in volatile
        }
        assert wrong.json()["code"] == "invalid-credentials"

    async def test_a_tenant_one_is_no_member_of_is_refused(
        self, client: httpx.AsyncClient, make_person: MakePerson
    ) -> None:
        await make_person("ada")

        answer = await client.post(
            LOGIN, json={"username": "ada", "password": PASSWORD, "tenant": "elsewhere"}
        )

        assert answer.status_code == 409
        assert answer.json()["code"] == "no-membership"


class TestRefresh:
    async def test_brings_the_next_pair_and_the_old_one_still_within_the_grace_time(
        self, client: httpx.AsyncClient, make_person: MakePerson
    ) -> None:
        person = await make_person("ada")

        first = await client.post(REFRESH, json={"refresh_token": person.refresh_token})
        again = await client.post(REFRESH, json={"refresh_token": person.refresh_token})

        assert first.status_code == again.status_code == 200
        assert first.json()["refresh_token"] != person.refresh_token
        assert again.json()["refresh_token"] == first.json()["refresh_token"]

    async def test_twenty_at_once_bring_one_successor(
        self, client: httpx.AsyncClient, make_person: MakePerson
    ) -> None:
        person = await make_person("ada")

        answers = await asyncio.gather(
            *(client.post(REFRESH, json={"refresh_token": person.refresh_token}) for _ in range(20))
        )

        assert {answer.status_code for answer in answers} == {200}
        assert len({answer.json()["refresh_token"] for answer in answers}) == 1

    async def test_a_stolen_token_ends_the_session(
        self, client: httpx.AsyncClient, make_person: MakePerson
    ) -> None:
        person = await make_person("ada")
        newest = person.refresh_token
        for _ in range(2):
            answer = await client.post(REFRESH, json={"refresh_token": newest})
            newest = answer.json()["refresh_token"]

        theft = await client.post(REFRESH, json={"refresh_token": person.refresh_token})

        assert theft.status_code == 401
        assert theft.json()["code"] == "refresh-token-reused"
        assert (await client.post(REFRESH, json={"refresh_token": newest})).status_code == 401
        assert (await client.get(PROFILE, headers=person.headers)).status_code == 401

    async def test_a_made_up_token_ends_nobodys_session(
        self, client: httpx.AsyncClient, make_person: MakePerson
    ) -> None:
        person = await make_person("ada")
        forged = person.refresh_token[:-8] + "AAAAAAA="

        answer = await client.post(REFRESH, json={"refresh_token": forged})

        assert (answer.status_code, answer.json()["code"]) == (401, "invalid-refresh-token")
        assert (await client.get(PROFILE, headers=person.headers)).status_code == 200
        again = await client.post(REFRESH, json={"refresh_token": person.refresh_token})
        assert again.status_code == 200


class TestLogout:
    async def test_ends_both_tokens_at_once(
        self, client: httpx.AsyncClient, make_person: MakePerson
    ) -> None:
        person = await make_person("ada")
        assert (await client.get(PROFILE, headers=person.headers)).status_code == 200

        answer = await client.post(LOGOUT, headers=person.headers)

        assert answer.status_code == 204
        assert (await client.get(PROFILE, headers=person.headers)).status_code == 401
        refresh = await client.post(REFRESH, json={"refresh_token": person.refresh_token})
        assert refresh.status_code == 401

    async def test_ends_one_session_and_no_other(
        self, client: httpx.AsyncClient, make_person: MakePerson
    ) -> None:
        person = await make_person("ada")
        other = await sign_in(client, "ada")

        await client.post(LOGOUT, headers=person.headers)

        assert (await client.get(PROFILE, headers=other.headers)).status_code == 200

    async def test_a_wiped_redis_revives_nothing(
        self, client: httpx.AsyncClient, make_person: MakePerson, redis_gate: RedisGate
    ) -> None:
        person = await make_person("ada")
        await client.post(LOGOUT, headers=person.headers)

        await redis_gate.client.flushdb()

        assert (await client.get(PROFILE, headers=person.headers)).status_code == 401


class TestProfile:
    async def test_reads_and_changes_ones_own(
        self, client: httpx.AsyncClient, make_person: MakePerson
    ) -> None:
        person = await make_person("ada", roles=("user",))
        before = await client.get(PROFILE, headers=person.headers)

        after = await client.put(
            PROFILE,
            json={"display_name": "王小明"},
            headers={**person.headers, "If-Match": before.headers["etag"]},
        )

        assert before.json()["username"] == "ada"
        assert before.json()["tenant"] == "default"
        assert before.json()["display_name"] is None
        assert after.status_code == 200
        assert after.json()["display_name"] == "王小明"
        assert after.headers["etag"] != before.headers["etag"]

    async def test_a_change_since_it_was_read_is_not_overwritten(
        self, client: httpx.AsyncClient, make_person: MakePerson
    ) -> None:
        person = await make_person("ada")
        read = await client.get(PROFILE, headers=person.headers)
        await client.put(PROFILE, json={"display_name": "Ada"}, headers=person.headers)

        late = await client.put(
            PROFILE,
            json={"display_name": "Eve"},
            headers={**person.headers, "If-Match": read.headers["etag"]},
        )

        assert late.status_code == 412
        current = await client.get(PROFILE, headers=person.headers)
        assert current.json()["display_name"] == "Ada"

    async def test_null_clears_and_absent_leaves(
        self, client: httpx.AsyncClient, make_person: MakePerson
    ) -> None:
        person = await make_person("ada")
        await client.put(PROFILE, json={"display_name": "Ada"}, headers=person.headers)

        left = await client.put(PROFILE, json={}, headers=person.headers)
        cleared = await client.put(PROFILE, json={"display_name": None}, headers=person.headers)

        assert left.json()["display_name"] == "Ada"
        assert cleared.json()["display_name"] is None

    @pytest.mark.parametrize(
        "headers",
        [
            {},
            {"Authorization": "Bearer nonsense"},
            {"Authorization": "Basic YTpi"},
            {"Authorization": "Bearer a.b.c", "X-API-Key": "maas_x"},
        ],
    )
    async def test_without_a_good_token_it_is_401(
        self, client: httpx.AsyncClient, headers: dict[str, str]
    ) -> None:
        answer = await client.get(PROFILE, headers=headers)

        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert answer.headers["content-type"] == "application/problem+json"


class TestPassword:
    async def test_changing_it_ends_every_other_session(
        self, client: httpx.AsyncClient, make_person: MakePerson
    ) -> None:
        person = await make_person("ada")
        other = await sign_in(client, "ada")
        new = "another long enough phrase"

        answer = await client.post(
            "/api/v1/users/password",
            json={"current_password": PASSWORD, "new_password": new},
            headers=person.headers,
        )

        assert answer.status_code == 204
        assert (await client.get(PROFILE, headers=person.headers)).status_code == 200
        assert (await client.get(PROFILE, headers=other.headers)).status_code == 401
        old = await client.post(LOGIN, json={"username": "ada", "password": PASSWORD})
        assert old.status_code == 401
        await sign_in(client, "ada", new)

    @pytest.mark.parametrize(
        ("current", "new", "code"),
        [
            ("wrong", "another long enough phrase", "wrong-password"),
            (PASSWORD, "short", "weak-password"),
            (PASSWORD, PASSWORD, "same-password"),
        ],
    )
    async def test_a_wrong_or_weak_one_changes_nothing(
        self,
        client: httpx.AsyncClient,
        make_person: MakePerson,
        current: str,
        new: str,
        code: str,
    ) -> None:
        person = await make_person("ada")

        answer = await client.post(
            "/api/v1/users/password",
            json={"current_password": current, "new_password": new},
            headers=person.headers,
        )

        assert (answer.status_code, answer.json()["code"]) == (422, code)
        await sign_in(client, "ada")
