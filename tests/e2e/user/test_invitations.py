from collections.abc import AsyncIterator

import httpx
import pytest

from maas.shared.infrastructure.database import Database
from tests.conftest import MakeSettings
from tests.e2e.conftest import MakePerson, serving_app, sign_in
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
