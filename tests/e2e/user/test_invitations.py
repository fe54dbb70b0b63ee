from collections.abc import AsyncIterator

import httpx
import pytest

from maas.shared.infrastructure.database import Database
from tests.conftest import MakeSettings
from tests.e2e.conftest import MakePerson, serving_app, sign_in
from tests.e2e.user.keys import KEYS, SERVICES, make_key, make_service, with_key
from tests.e2e.user.people import USERS, make_user
from tests.factories.accounts import PASSWORD

pytestmark = pytest.mark.e2e

INVITATIONS, REGISTER = "/api/v1/admin/invitations", "/api/v1/auth/register"
BODY = {"email": "bo@example.com", "roles": ["developer"], "send_mail": False}


@pytest.fixture
async def client(
    make_settings: MakeSettings, database: Database
) -> AsyncIterator[httpx.AsyncClient]:
    async with serving_app(make_settings(auth={"registration": "invitation"})) as client:
        yield client


def registration(token: str) -> dict[str, str]:
    return {
        "username": "bo",
        "email": "bo@example.com",
        "password": PASSWORD,
        "invitation": token,
    }


class TestInvite:
    async def test_whoever_has_the_link_joins_with_the_roles_it_names(
        self, client: httpx.AsyncClient, make_person: MakePerson
    ) -> None:
        admin = await make_person("ada")

        invited = await client.post(INVITATIONS, json=BODY, headers=admin.headers)
        joined = await client.post(REGISTER, json=registration(invited.json()["token"]))

        assert invited.status_code == 201, invited.text
        assert invited.headers["location"] == f"{INVITATIONS}/{invited.json()['id']}"
        assert joined.status_code in {201, 202}, joined.text
        bo = await sign_in(client, "bo")
        model = {"name": "acme/m", "framework": "other"}
        made = await client.post("/api/v1/models", json=model, headers=bo.headers)
        assert made.status_code == 201

    async def test_nobody_invites_with_rights_they_lack(
        self, client: httpx.AsyncClient, make_person: MakePerson
    ) -> None:
        developer = await make_person("dev", roles=("developer",))

        answer = await client.post(INVITATIONS, json=BODY, headers=developer.headers)

        assert answer.status_code == 403

    @pytest.mark.parametrize(
        ("change", "status"),
        [({"roles": ["nonesuch"]}, 404), ({"roles": []}, 422), ({"email": "nobody"}, 422)],
    )
    async def test_what_will_not_do_is_refused(
        self,
        client: httpx.AsyncClient,
        make_person: MakePerson,
        change: dict[str, object],
        status: int,
    ) -> None:
        admin = await make_person("ada")

        answer = await client.post(INVITATIONS, json={**BODY, **change}, headers=admin.headers)

        assert answer.status_code == status
        assert answer.headers["content-type"] == "application/problem+json"


class TestWithdraw:
    async def test_its_link_is_worth_nothing_afterwards(
        self, client: httpx.AsyncClient, make_person: MakePerson
    ) -> None:
        admin = await make_person("ada")
        invited = await client.post(INVITATIONS, json=BODY, headers=admin.headers)

        withdrawn = await client.delete(invited.headers["location"], headers=admin.headers)
        joined = await client.post(REGISTER, json=registration(invited.json()["token"]))

        assert withdrawn.status_code == 204
        assert (joined.status_code, joined.json()["code"]) == (422, "invalid-invitation")


class TestPrograms:
    async def test_invite_nobody_and_what_a_key_makes_ends_with_the_key(
        self, client: httpx.AsyncClient, make_person: MakePerson
    ) -> None:
        ada = await make_person("ada")
        farm = await make_service(client, ada, "farm", "admin")
        scopes = ("user:write", "model:read", "inference:*")
        program = await make_key(client, ada, *scopes, at=f"{SERVICES}/{farm['id']}/api-keys")
        ended, cut, kept = [await make_key(client, ada, *scopes) for _ in range(3)]

        async def invite(name: str, key: str) -> httpx.Response:
            body = {"email": f"{name}@example.com", "roles": ["user"], "send_mail": False}
            return await client.post(INVITATIONS, json=body, headers=with_key(key))

        refused = await invite("bo", program["key"])
        assert (refused.status_code, refused.json()["code"]) == (403, "person-required")
        tokens = {
            name: (await invite(name, key["key"])).json()["token"]
            for name, key in (("bo", ended), ("cy", cut), ("di", kept))
        }
        await client.delete(f"{KEYS}/{ended['id']}", headers=ada.headers)
        await client.put(
            f"{KEYS}/{cut['id']}", json={"scopes": ["user:write"]}, headers=ada.headers
        )

        joined = {
            name: await client.post(REGISTER, json={**registration(token), **_named(name)})
            for name, token in tokens.items()
        }

        assert {name: answer.status_code for name, answer in joined.items()} == {
            "bo": 422,
            "cy": 422,
            "di": 202,
        }
        assert joined["bo"].json()["code"] == "invalid-invitation"

    async def test_an_invitation_ends_with_its_makers_rights(
        self, client: httpx.AsyncClient, make_person: MakePerson
    ) -> None:
        ada = await make_person("ada")
        grace = await make_user(client, ada, "grace", "admin")
        key = await make_key(
            client, await sign_in(client, "grace"), "user:write", "model:read", "inference:*"
        )
        body = {"email": "bo@example.com", "roles": ["user"], "send_mail": False}
        invited = await client.post(INVITATIONS, json=body, headers=with_key(key["key"]))
        assert invited.status_code == 201, invited.text

        await client.put(
            f"{USERS}/{grace['id']}/roles",
            json={"roles": ["user"]},
            headers={**ada.headers, "If-Match": "*"},
        )

        token = invited.json()["token"]
        joined = await client.post(REGISTER, json={**registration(token)})
        assert (joined.status_code, joined.json()["code"]) == (422, "invalid-invitation")


def _named(name: str) -> dict[str, str]:
    return {"username": name, "email": f"{name}@example.com"}
