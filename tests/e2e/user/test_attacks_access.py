"""Ways around access control that were tried, each by the steps an attacker would take."""

from collections.abc import AsyncIterator
from typing import TypeAlias

import asyncpg
import httpx
import pytest

from maas.shared.infrastructure.database import Database
from maas.user.domain.links import hash_link, new_link_token
from maas.user.infrastructure.passwords import Argon2Hasher
from maas.user.infrastructure.session_queries import PostgresSessionQueries
from tests.conftest import MakeSettings
from tests.e2e.conftest import Flush, MakePerson, Person, serving_app, sign_in
from tests.e2e.user.people import (
    EVERYTHING,
    TENANTS,
    USERS,
    assign,
    enter,
    id_of,
    make_tenant,
    make_user,
    status_of,
)
from tests.factories.accounts import PASSWORD

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(60)]

INVITATIONS, REGISTER = "/api/v1/admin/invitations", "/api/v1/auth/register"
REFRESH, SWITCH = "/api/v1/auth/refresh", "/api/v1/auth/switch-tenant"
LOGIN, RESET = "/api/v1/auth/login", "/api/v1/auth/password/reset"
CHANGE = "/api/v1/users/password"
NEW_PASSWORD = "another long enough phrase"

Superuser: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


@pytest.fixture
async def client(
    make_settings: MakeSettings, database: Database
) -> AsyncIterator[httpx.AsyncClient]:
    async with serving_app(make_settings(auth={"registration": "invitation"})) as client:
        yield client


async def mailed_link(superuser: "Superuser", user_id: str, username: str) -> str:
    """Leave a link to a new password as the mailer does, and give what stands in the mail."""
    token = new_link_token()
    await superuser.execute(
        "INSERT INTO link_tokens VALUES ($1, 'reset-password', $2, $3, now(), now() + '1 hour')",
        hash_link(token),
        user_id,
        f"{username}@example.com",
    )
    return token


class TestLinkToANewPassword:
    @pytest.mark.parametrize("is_by_admin", [False, True])
    async def test_dies_with_the_password_it_was_to_replace(
        self,
        client: httpx.AsyncClient,
        make_person: MakePerson,
        superuser: "Superuser",
        *,
        is_by_admin: bool,
    ) -> None:
        """Who read the mailbox once must not get in after the owner has changed the password."""
        admin = await make_person("ada")
        made = await make_user(client, admin, "bo")
        bo = await sign_in(client, "bo")
        token = await mailed_link(superuser, made["id"], "bo")

        if is_by_admin:
            changed = await client.post(
                f"{USERS}/{made['id']}/password-reset", json={}, headers=admin.headers
            )
        else:
            passwords = {"current_password": PASSWORD, "new_password": NEW_PASSWORD}
            changed = await client.post(CHANGE, json=passwords, headers=bo.headers)
        stolen = await client.post(
            RESET, json={"token": token, "new_password": "the thief's very own phrase"}
        )

        assert changed.status_code in {200, 204}
        assert (stolen.status_code, stolen.json()["code"]) == (422, "invalid-link")


class TestInvitation:
    async def invite(
        self, client: httpx.AsyncClient, inviter: Person, email: str, *roles: str
    ) -> str:
        body = {"email": email, "roles": list(roles), "send_mail": False}
        answer = await client.post(INVITATIONS, json=body, headers=inviter.headers)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["token"])

    async def accept(
        self, client: httpx.AsyncClient, token: str, username: str, email: str
    ) -> httpx.Response:
        body = {"username": username, "email": email, "password": PASSWORD, "invitation": token}
        return await client.post(REGISTER, json=body)

    @pytest.mark.parametrize("loss", ["removed", "suspended", "demoted"])
    async def test_gives_nothing_that_its_maker_may_no_longer_give(
        self, client: httpx.AsyncClient, make_person: MakePerson, loss: str
    ) -> None:
        """An administrator who is let go has invited their other address before."""
        admin = await make_person("ada")
        made = await make_user(client, admin, "mallory", "admin")
        mallory = await sign_in(client, "mallory")
        token = await self.invite(client, mallory, "back@example.com", "admin")

        match loss:
            case "removed":
                lost = await client.delete(f"{USERS}/{made['id']}", headers=admin.headers)
            case "suspended":
                lost = await client.put(
                    f"{USERS}/{made['id']}/suspension",
                    json={"reason": "Let go."},
                    headers=admin.headers,
                )
            case _:
                lost = await assign(client, admin, made["id"], "user")
        back = await self.accept(client, token, "back", "back@example.com")

        assert lost.is_success, lost.text
        assert (back.status_code, back.json()["code"]) == (422, "invalid-invitation")

    async def test_dies_with_the_account_of_whom_it_was_for(
        self, client: httpx.AsyncClient, make_person: MakePerson
    ) -> None:
        """Invited twice and removed, nobody comes back by the second link."""
        admin = await make_person("ada")
        first = await self.invite(client, admin, "bo@example.com", "developer")
        second = await self.invite(client, admin, "Bo@example.com", "developer")
        joined = await self.accept(client, first, "bo", "bo@example.com")
        bo = await sign_in(client, "bo")

        removed = await client.delete(f"{USERS}/{await id_of(client, bo)}", headers=admin.headers)
        back = await self.accept(client, second, "bo", "bo@example.com")

        assert (joined.status_code, removed.status_code) == (202, 204)
        assert (back.status_code, back.json()["code"]) == (422, "invalid-invitation")


class TestStolenRefreshToken:
    async def test_takes_the_sessions_opened_with_it_along(
        self, client: httpx.AsyncClient, make_person: MakePerson
    ) -> None:
        """The thief switches tenants, and so to a session of their own, before the reuse shows."""
        owner = await make_person("ada", roles=EVERYTHING)
        await make_tenant(client, owner, "research", admin_id=await id_of(client, owner))
        elsewhere = await sign_in(client, "ada")
        taken = (await client.post(REFRESH, json={"refresh_token": owner.refresh_token})).json()
        again = (await client.post(REFRESH, json={"refresh_token": taken["refresh_token"]})).json()
        thief = {"Authorization": f"Bearer {again['access_token']}"}
        switched = (await client.post(SWITCH, json={"tenant": "research"}, headers=thief)).json()

        reused = await client.post(REFRESH, json={"refresh_token": owner.refresh_token})
        kept = await client.post(REFRESH, json={"refresh_token": switched["refresh_token"]})
        used = await client.get(
            "/api/v1/users/profile",
            headers={"Authorization": f"Bearer {switched['access_token']}"},
        )

        assert reused.json()["code"] == "refresh-token-reused"
        assert (kept.status_code, used.status_code) == (401, 401)
        assert await status_of(client, elsewhere) == 200


class TestPasswordGuessing:
    @pytest.mark.parametrize("path", [CHANGE, "/api/v1/users/deletion"])
    async def test_is_held_wherever_the_password_is_asked_for_again(
        self, client: httpx.AsyncClient, make_person: MakePerson, path: str
    ) -> None:
        """Who took a session over must not try passwords until one fits."""
        ada = await make_person("ada")
        more = {"new_password": NEW_PASSWORD} if path == CHANGE else {}
        answers = [
            await client.post(
                path, json={"current_password": f"wrong guess {n}", **more}, headers=ada.headers
            )
            for n in range(12)
        ]

        guessed = [answer.status_code for answer in answers]
        assert guessed.count(422) <= 10
        assert guessed[-1] == 429


class TestRaces:
    async def test_a_sign_in_under_way_opens_nothing_where_one_was_suspended(
        self,
        client: httpx.AsyncClient,
        make_person: MakePerson,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        admin = await make_person("ada")
        made = await make_user(client, admin, "bo")
        verify = Argon2Hasher.verify

        async def suspend_meanwhile(self: Argon2Hasher, *args: str) -> bool:
            is_right = await verify(self, *args)
            await client.put(
                f"{USERS}/{made['id']}/suspension", json={"reason": "-"}, headers=admin.headers
            )
            return is_right

        monkeypatch.setattr(Argon2Hasher, "verify", suspend_meanwhile)
        answer = await client.post(LOGIN, json={"username": "bo", "password": PASSWORD})

        assert (answer.status_code, answer.json()["code"]) == (409, "no-membership")

    async def test_a_switch_under_way_opens_nothing_where_one_was_suspended(
        self,
        client: httpx.AsyncClient,
        make_person: MakePerson,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        owner = await make_person("ada", roles=EVERYTHING)
        tenant_id = await make_tenant(
            client, owner, "research", admin_id=await id_of(client, owner)
        )
        find = PostgresSessionQueries.find_tenant

        async def close_meanwhile(self: PostgresSessionQueries, *args: object) -> object:
            found = await find(self, *args)  # type: ignore[arg-type]  # handed on as they are
            await client.put(
                f"{TENANTS}/{tenant_id}", json={"status": "suspended"}, headers=owner.headers
            )
            return found

        monkeypatch.setattr(PostgresSessionQueries, "find_tenant", close_meanwhile)
        answer = await client.post(SWITCH, json={"tenant": "research"}, headers=owner.headers)

        assert (answer.status_code, answer.json()["code"]) == (409, "no-membership")


class TestTrail:
    async def test_a_tenants_first_administrator_is_named_in_both_trails(
        self, client: httpx.AsyncClient, make_person: MakePerson, flush: Flush
    ) -> None:
        owner = await make_person("ada", roles=EVERYTHING)
        made = await make_user(client, owner, "bo")
        tenant_id = await make_tenant(client, owner, "research", admin_id=made["id"])
        bo = await enter(client, "bo", "research")

        await flush()
        logs = await client.get(
            "/api/v1/audit/logs", params={"action": "tenant.*"}, headers=bo.headers
        )
        platforms = await client.get(
            "/api/v1/audit/logs", params={"action": "tenant.*"}, headers=owner.headers
        )

        (joined,) = logs.json()["items"]
        assert (joined["action"], joined["resource"]["id"]) == ("tenant.member_put", made["id"])
        assert joined["changes"]["after"]["roles"] == ["admin"]
        (created,) = platforms.json()["items"]
        assert (created["action"], created["resource"]["id"]) == ("tenant.created", tenant_id)
