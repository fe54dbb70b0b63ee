"""Service accounts: programs with roles of their own, whoever made them."""

import asyncpg
import httpx
import pytest

from tests.e2e.conftest import Flush, MakePerson, sign_in
from tests.e2e.user.keys import KEYS, SERVICES, ask, make_key, make_service, with_key
from tests.e2e.user.people import EVERYTHING, MODELS, PROFILE, ROLES, USERS, make_user

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(60)]


def keys_of(service: dict[str, str]) -> str:
    return f"{SERVICES}/{service['id']}/api-keys"


class TestActing:
    async def test_a_program_acts_by_its_roles_and_under_its_own_name(
        self,
        client: httpx.AsyncClient,
        make_person: MakePerson,
        flush: Flush,
        superuser: "asyncpg.Connection[asyncpg.Record]",
    ) -> None:
        ada = await make_person("ada")
        service = await make_service(client, ada, "farm", "developer")
        made = await make_key(client, ada, "model:read", "model:write", at=keys_of(service))

        body = {"name": "org/model", "framework": "other"}
        answer = await client.post(MODELS, json=body, headers=with_key(made["key"]))

        assert answer.status_code == 201, answer.text
        assert await ask(client, made["key"], PROFILE) == 403
        assert await ask(client, made["key"], KEYS) == 403
        await flush()
        event = await superuser.fetchrow(
            "SELECT actor_kind, actor_id::text, api_key_id::text, session_id, outcome"
            " FROM audit_log WHERE request_id = $1",
            answer.headers["x-request-id"],
        )
        assert event is not None
        assert tuple(event) == ("service_account", service["id"], made["id"], None, "success")

    async def test_a_program_rolls_its_own_key_over(
        self, client: httpx.AsyncClient, make_person: MakePerson
    ) -> None:
        ada = await make_person("ada", roles=EVERYTHING)
        await client.post(
            ROLES, json={"name": "roller", "permissions": ["api_key:write"]}, headers=ada.headers
        )
        service = await make_service(client, ada, "farm", "roller")
        made = await make_key(client, ada, "api_key:write", at=keys_of(service))
        own = with_key(made["key"])

        new = await client.post(f"{KEYS}/{made['id']}/rotate", json={}, headers=own)

        assert new.status_code == 200, new.text
        again = await client.post(
            f"{KEYS}/{made['id']}/rotate",
            json={"grace_seconds": 0},
            headers=with_key(new.json()["key"]),
        )
        assert again.status_code == 200
        stale = await client.post(f"{KEYS}/{made['id']}/rotate", json={}, headers=own)
        assert stale.status_code == 401

    async def test_it_survives_its_maker(
        self, client: httpx.AsyncClient, make_person: MakePerson
    ) -> None:
        ada = await make_person("ada", roles=EVERYTHING)
        await make_user(client, ada, "grace", "admin")
        grace = await sign_in(client, "grace")
        service = await make_service(client, grace, "farm", "user")
        made = await make_key(client, grace, at=keys_of(service))
        own = await make_key(client, grace)
        assert await ask(client, made["key"]) == await ask(client, own["key"]) == 200

        removed = await client.delete(f"{USERS}/{service['created_by']}", headers=ada.headers)

        assert removed.status_code == 204, removed.text
        assert await ask(client, made["key"]) == 200
        assert await ask(client, own["key"]) == 401
        kept = await client.get(f"{keys_of(service)}/{made['id']}", headers=ada.headers)
        assert kept.json()["created_by"] == service["created_by"]


class TestNextRequest:
    async def test_suspended_it_rests_and_deleted_it_is_gone(
        self, client: httpx.AsyncClient, make_person: MakePerson
    ) -> None:
        ada = await make_person("ada")
        service = await make_service(client, ada, "farm", "user")
        key = (await make_key(client, ada, at=keys_of(service)))["key"]
        at = f"{SERVICES}/{service['id']}"
        assert await ask(client, key) == 200

        await client.put(at, json={"status": "suspended"}, headers=ada.headers)
        assert await ask(client, key) == 401
        await client.put(at, json={"status": "active"}, headers=ada.headers)
        assert await ask(client, key) == 200
        deleted = await client.delete(at, headers=ada.headers)
        assert deleted.status_code == 204
        assert await ask(client, key) == 401
        assert (await client.get(keys_of(service), headers=ada.headers)).status_code == 404

    async def test_a_role_that_is_taken_or_narrowed_is_felt(
        self, client: httpx.AsyncClient, make_person: MakePerson
    ) -> None:
        ada = await make_person("ada")
        reader = {"name": "reader", "permissions": ["model:read", "user:read"]}
        await client.post(ROLES, json=reader, headers=ada.headers)
        service = await make_service(client, ada, "farm", "reader")
        made = await make_key(client, ada, "model:read", "user:read", at=keys_of(service))
        key = made["key"]
        assert await ask(client, key, USERS) == await ask(client, key) == 200

        narrowed = await client.put(
            f"{ROLES}/reader",
            json={"permissions": ["model:read"]},
            headers={**ada.headers, "If-Match": "*"},
        )
        assert narrowed.status_code == 200
        assert (await ask(client, key, USERS), await ask(client, key)) == (403, 200)
        at = f"{SERVICES}/{service['id']}"
        held = await client.delete(f"{ROLES}/reader", headers={**ada.headers, "If-Match": "*"})
        assert (held.status_code, held.json()["code"]) == (409, "role-in-use")
        await client.put(at, json={"roles": []}, headers=ada.headers)
        assert await ask(client, key) == 403


class TestGiving:
    async def test_nobody_gives_a_program_more_than_they_hold(
        self, client: httpx.AsyncClient, make_person: MakePerson
    ) -> None:
        ada = await make_person("ada")
        keeper = ["service_account:write", "service_account:read", "model:read", "inference:*"]
        await client.post(
            ROLES, json={"name": "keeper", "permissions": keeper}, headers=ada.headers
        )
        await make_user(client, ada, "grace", "keeper")
        grace = await sign_in(client, "grace")
        mine = await make_service(client, grace, "mine", "user")
        admins = await make_service(client, ada, "admins", "admin")

        body = {"name": "more", "roles": ["admin"]}
        key = {"name": "more", "scopes": ["user:write"]}
        answers = [
            await client.post(SERVICES, json=body, headers=grace.headers),
            await client.put(
                f"{SERVICES}/{mine['id']}", json={"roles": ["admin"]}, headers=grace.headers
            ),
            await client.put(
                f"{SERVICES}/{admins['id']}", json={"roles": []}, headers=grace.headers
            ),
            await client.put(
                f"{SERVICES}/{admins['id']}", json={"status": "suspended"}, headers=grace.headers
            ),
            await client.delete(f"{SERVICES}/{admins['id']}", headers=grace.headers),
            await client.post(keys_of(admins), json=key, headers=grace.headers),
        ]

        assert [answer.json().get("code") for answer in answers] == ["beyond-own-rights"] * 6

    async def test_nobody_takes_over_a_stronger_key(
        self, client: httpx.AsyncClient, make_person: MakePerson
    ) -> None:
        ada = await make_person("ada")
        keeper = ["service_account:write", "model:read"]
        await client.post(
            ROLES, json={"name": "keeper", "permissions": keeper}, headers=ada.headers
        )
        await make_user(client, ada, "grace", "keeper")
        grace = await sign_in(client, "grace")
        admins = await make_service(client, ada, "admins", "admin")
        made = await make_key(client, ada, "user:write", at=keys_of(admins))
        at = f"{keys_of(admins)}/{made['id']}"

        rotated = await client.post(f"{at}/rotate", json={}, headers=grace.headers)
        changed = await client.put(at, json={"allowed_networks": None}, headers=grace.headers)

        assert rotated.json()["code"] == changed.json()["code"] == "beyond-own-rights"

    async def test_scopes_lie_within_its_roles(
        self, client: httpx.AsyncClient, make_person: MakePerson
    ) -> None:
        ada = await make_person("ada")
        service = await make_service(client, ada, "farm", "user")

        body = {"name": "more", "scopes": ["user:read"]}
        answer = await client.post(keys_of(service), json=body, headers=ada.headers)

        assert (answer.status_code, answer.json()["code"]) == (403, "scopes-beyond-holder")

    async def test_a_program_changes_neither_its_roles_nor_itself(
        self, client: httpx.AsyncClient, make_person: MakePerson
    ) -> None:
        ada = await make_person("ada")
        service = await make_service(client, ada, "farm", "admin")
        made = await make_key(client, ada, "service_account:write", at=keys_of(service))
        at, own = f"{SERVICES}/{service['id']}", with_key(made["key"])

        answers = [
            await client.put(at, json={"roles": ["auditor"]}, headers=own),
            await client.delete(at, headers=own),
        ]

        assert [answer.json()["code"] for answer in answers] == ["own-roles"] * 2

    async def test_names_are_unique_in_the_tenant(
        self, client: httpx.AsyncClient, make_person: MakePerson
    ) -> None:
        ada = await make_person("ada")
        first = await make_service(client, ada, "farm", "user")
        await make_service(client, ada, "other", "user")

        taken = [
            await client.post(SERVICES, json={"name": "farm", "roles": []}, headers=ada.headers),
            await client.put(
                f"{SERVICES}/{first['id']}", json={"name": "other"}, headers=ada.headers
            ),
        ]

        assert [answer.json()["code"] for answer in taken] == ["service-account-name-taken"] * 2
        gone = await client.post(
            SERVICES, json={"name": "third", "roles": ["no-such"]}, headers=ada.headers
        )
        assert (gone.status_code, gone.json()["code"]) == (404, "role-not-found")
