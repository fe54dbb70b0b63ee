"""What a key hands on, takes over or outlives: never more than whoever has its text may do."""

from datetime import datetime, timedelta

import httpx
import pytest

from maas.shared.infrastructure.clock import SystemClock
from tests.e2e.conftest import MakePerson, sign_in
from tests.e2e.user.keys import KEYS, SERVICES, ask, make_key, make_service, with_key
from tests.e2e.user.people import EVERYTHING, ROLES, TENANTS, USERS, id_of, make_user
from tests.e2e.user.quotas import limits, of_key, put, tokens
from tests.factories.accounts import PASSWORD

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(60)]

INVITATIONS = "/api/v1/admin/invitations"
FAR_REACHING = (
    "user:write",
    "role:write",
    "role:grant",
    "service_account:write",
    "model:read",
    "inference:*",
    "platform:*",
)
HERE = ["127.0.0.0/8"]


class TestReplay:
    async def test_a_narrow_key_is_not_told_what_a_wide_one_was(
        self, client: httpx.AsyncClient, make_person: MakePerson
    ) -> None:
        ada = await make_person("ada")
        wide = await make_key(client, ada, "model:read", "user:read")
        narrow = await make_key(client, ada, "api_key:write")
        rotate, again = f"{KEYS}/{wide['id']}/rotate", {"Idempotency-Key": "roll"}
        first = await client.post(rotate, json={}, headers={**ada.headers, **again})
        assert first.status_code == 200

        stolen = await client.post(rotate, json={}, headers={**with_key(narrow["key"]), **again})

        assert (stolen.status_code, stolen.json()["code"]) == (403, "beyond-own-rights")
        assert first.json()["key"] not in stolen.text
        repeated = await client.post(rotate, json={}, headers={**ada.headers, **again})
        assert repeated.json() == first.json()

    async def test_a_program_asks_again_for_its_new_secret_with_the_old_one(
        self, client: httpx.AsyncClient, make_person: MakePerson
    ) -> None:
        ada = await make_person("ada")
        made = await make_key(client, ada, "model:read", "api_key:write")
        at, old = f"{KEYS}/{made['id']}", with_key(made["key"])
        once = {**old, "Idempotency-Key": "roll"}
        first = await client.post(f"{at}/rotate", json={}, headers=once)

        again = await client.post(f"{at}/rotate", json={}, headers=once)

        assert (again.status_code, again.json()) == (200, first.json())
        body = {"name": "child", "scopes": ["model:read"]}
        refused = [
            await client.post(f"{at}/rotate", json={"grace_seconds": 0}, headers=old),
            await client.put(at, json={"name": "mine"}, headers=old),
            await client.post(KEYS, json=body, headers=old),
            await client.delete(at, headers=old),
        ]
        assert [answer.json()["code"] for answer in refused] == ["superseded-key"] * 4
        assert await ask(client, made["key"]) == 200, "what it did before it does in its grace"
        new = with_key(first.json()["key"])
        assert (await client.put(at, json={"name": "mine"}, headers=new)).status_code == 200
        assert (await client.delete(at, headers=new)).status_code == 204


class TestLimitedKey:
    async def test_passes_on_no_rights_at_all(
        self, client: httpx.AsyncClient, make_person: MakePerson
    ) -> None:
        ada = await make_person("ada", roles=EVERYTHING)
        grace = await make_user(client, ada, "grace")
        tenant = await client.post(
            TENANTS, json={"slug": "second", "name": "Second"}, headers=ada.headers
        )
        limited = await make_key(client, ada, *FAR_REACHING, allowed_networks=HERE)
        free = await make_key(client, ada, *FAR_REACHING)
        invited = {"email": "bo@example.com", "roles": ["user"], "send_mail": False}
        member = f"{TENANTS}/{tenant.json()['id']}/members/{grace['id']}"
        admin_of = {"slug": "third", "name": "Third", "admin_id": grace["id"]}
        acts: list[tuple[str, str, dict[str, object]]] = [
            ("POST", USERS, {**_person("zoe"), "roles": ["user"]}),
            ("POST", USERS, {**_person("zoe"), "roles": []}),
            ("POST", ROLES, {"name": "reader", "permissions": ["model:read"]}),
            ("POST", SERVICES, {"name": "farm", "roles": ["user"]}),
            ("POST", INVITATIONS, invited),
            ("PUT", member, {"roles": ["user"]}),
            ("POST", TENANTS, admin_of),
            ("PUT", f"{USERS}/{grace['id']}/roles", {"roles": []}),
            ("POST", f"{USERS}/{grace['id']}/password-reset", {}),
        ]

        async def act(key: str, method: str, path: str, body: object) -> httpx.Response:
            headers = {**with_key(key), "If-Match": "*"}
            return await client.request(method, path, json=body, headers=headers)

        refused = [await act(limited["key"], *each) for each in acts]

        assert [answer.json().get("code") for answer in refused] == ["limited-key"] * len(acts)
        allowed = [await act(free["key"], *each) for each in acts[2:]]
        assert {answer.status_code for answer in allowed} <= {200, 201}, "a free one may do it all"

    async def test_may_replace_and_end_itself(
        self, client: httpx.AsyncClient, make_person: MakePerson
    ) -> None:
        ada = await make_person("ada")
        made = await make_key(client, ada, "*:read", "api_key:write", allowed_networks=HERE)
        at = f"{KEYS}/{made['id']}"

        new = await client.post(f"{at}/rotate", json={}, headers=with_key(made["key"]))
        assert new.status_code == 200, new.text
        ended = await client.delete(at, headers=with_key(new.json()["key"]))

        assert ended.status_code == 204


class TestKeyWithQuotas:
    async def test_gets_the_text_of_no_other_key(
        self, client: httpx.AsyncClient, make_person: MakePerson
    ) -> None:
        ada = await make_person("ada")
        farm = await make_service(client, ada, "farm", "user")
        of_farm = f"{SERVICES}/{farm['id']}/api-keys"
        bound = await make_key(client, ada, "api_key:write", "service_account:write", "model:read")
        own, farms = await make_key(client, ada), await make_key(client, ada, at=of_farm)
        await put(client, ada, of_key(bound["id"]), tokens(10))
        body: dict[str, object] = {"name": "free", "scopes": ["model:read"]}

        async def act(key: str, method: str, path: str, body: object) -> httpx.Response:
            return await client.request(method, path, json=body, headers=with_key(key))

        acts: list[tuple[str, str, dict[str, object]]] = [
            ("POST", KEYS, body),
            ("POST", of_farm, body),
            ("PUT", f"{KEYS}/{own['id']}", {"name": "mine"}),
            ("PUT", f"{of_farm}/{farms['id']}", {"name": "mine"}),
            ("POST", f"{KEYS}/{own['id']}/rotate", {}),
            ("POST", f"{of_farm}/{farms['id']}/rotate", {}),
        ]
        refused = [await act(bound["key"], *each) for each in acts]

        assert [answer.json().get("code") for answer in refused] == ["limited-key"] * len(acts)
        new = await act(bound["key"], "POST", f"{KEYS}/{bound['id']}/rotate", {})
        assert new.status_code == 200, "a new secret of its own is bound as the one before"
        still = await act(new.json()["key"], "POST", KEYS, body)
        assert still.json().get("code") == "limited-key"
        await put(client, ada, of_key(bound["id"]))
        allowed = [await act(new.json()["key"], *each) for each in acts]
        assert [answer.status_code for answer in allowed] == [201, 201, 200, 200, 200, 200]

    async def test_of_a_program_makes_no_other_one(
        self, client: httpx.AsyncClient, make_person: MakePerson
    ) -> None:
        ada = await make_person("ada")
        keeper = {"name": "keeper", "permissions": ["api_key:write", "model:read"]}
        await client.post(ROLES, json=keeper, headers=ada.headers)
        farm = await make_service(client, ada, "farm", "keeper")
        at = f"{SERVICES}/{farm['id']}/api-keys"
        bound = await make_key(client, ada, "api_key:write", "model:read", at=at)
        await put(client, ada, f"{at}/{bound['id']}/quota", tokens(10))

        body = {"name": "free", "scopes": ["model:read"]}
        answer = await client.post(KEYS, json=body, headers=with_key(bound["key"]))

        assert (answer.status_code, answer.json()["code"]) == (403, "limited-key")

    async def test_is_freed_by_no_key(
        self, client: httpx.AsyncClient, make_person: MakePerson
    ) -> None:
        ada = await make_person("ada")
        farm = await make_service(client, ada, "farm", "user")
        of_farm = f"{SERVICES}/{farm['id']}/api-keys"
        free = with_key((await make_key(client, ada, "api_key:write", "quota:write"))["key"])
        own, farms = await make_key(client, ada), await make_key(client, ada, at=of_farm)
        bound = [of_key(own["id"]), f"{of_farm}/{farms['id']}/quota"]
        for path in bound:
            assert (await put(client, ada, path, tokens(10))).status_code == 200

        refused = [await put(client, free, path) for path in bound]

        assert [answer.json().get("code") for answer in refused] == ["own-quota"] * 2
        for path in bound:
            assert await limits(client, ada, path) == [("key", "tokens", "month", 10)]


class TestWeakerCaller:
    async def test_ends_and_renames_nothing_stronger(
        self, client: httpx.AsyncClient, make_person: MakePerson
    ) -> None:
        ada = await make_person("ada")
        keeper = {"name": "keeper", "permissions": ["service_account:write", "model:read"]}
        await client.post(ROLES, json=keeper, headers=ada.headers)
        await make_user(client, ada, "grace", "keeper")
        grace = await sign_in(client, "grace")
        admins = await make_service(client, ada, "admins", "admin")
        place = f"{SERVICES}/{admins['id']}"
        strong = await make_key(client, ada, "user:write", at=f"{place}/api-keys")
        own = await make_key(client, ada, "user:read")
        narrow = with_key((await make_key(client, ada, "api_key:write"))["key"])

        answers = [
            await client.delete(f"{place}/api-keys/{strong['id']}", headers=grace.headers),
            await client.put(place, json={"name": "mine"}, headers=grace.headers),
            await client.put(place, json={"description": "mine"}, headers=grace.headers),
            await client.delete(f"{KEYS}/{own['id']}", headers=narrow),
        ]

        assert [answer.json().get("code") for answer in answers] == ["beyond-own-rights"] * 4
        assert await ask(client, own["key"], USERS) == 200
        assert (await client.delete(f"{KEYS}/{own['id']}", headers=ada.headers)).status_code == 204

    async def test_a_narrow_key_does_not_take_its_own_person_over(
        self, client: httpx.AsyncClient, make_person: MakePerson
    ) -> None:
        ada = await make_person("ada")
        key = await make_key(client, ada, "user:write")
        own = f"{USERS}/{await id_of(client, ada)}"

        moved = await client.put(
            own, json={"email": "eve@example.com"}, headers=with_key(key["key"])
        )

        assert (moved.status_code, moved.json()["code"]) == (403, "beyond-own-rights")


class TestExpiry:
    async def test_no_key_prolongs_itself_or_makes_one_that_outlives_it(
        self, client: httpx.AsyncClient, make_person: MakePerson
    ) -> None:
        ada = await make_person("ada")
        end = SystemClock().now() + timedelta(days=2)
        made = await make_key(
            client, ada, "api_key:write", "model:read", expires_at=end.isoformat()
        )
        other = await make_key(client, ada, expires_at=end.isoformat())
        at, headers = f"{KEYS}/{made['id']}", with_key(made["key"])
        later, sooner = ((end + timedelta(days=each)).isoformat() for each in (1, -1))
        body = {"name": "child", "scopes": ["model:read"]}

        refused = [
            await client.put(at, json={"expires_at": later}, headers=headers),
            await client.put(f"{KEYS}/{other['id']}", json={"expires_at": later}, headers=headers),
            await client.post(KEYS, json={**body, "expires_at": later}, headers=headers),
        ]

        assert [answer.json().get("code") for answer in refused] == ["outlives-caller"] * 3
        child = (await client.post(KEYS, json=body, headers=headers)).json()
        assert datetime.fromisoformat(child["expires_at"]) == end
        shortened = await client.put(at, json={"expires_at": sooner}, headers=headers)
        assert shortened.status_code == 200
        listed = (await client.get(KEYS, headers=ada.headers)).json()["items"]
        makers = {each["id"]: each["created_by_key"] for each in listed}
        assert makers == {made["id"]: None, other["id"]: None, child["id"]: made["id"]}


class TestPrograms:
    async def test_neither_redefine_nor_give_a_role_they_hold(
        self, client: httpx.AsyncClient, make_person: MakePerson
    ) -> None:
        ada = await make_person("ada")
        rights = ["role:write", "role:grant", "user:write", "service_account:write", "model:read"]
        for name, permissions in (("maker", rights), ("reader", ["model:read"])):
            role = {"name": name, "permissions": permissions}
            await client.post(ROLES, json=role, headers=ada.headers)
        grace = await make_user(client, ada, "grace")
        farm = await make_service(client, ada, "farm", "maker")
        key = await make_key(client, ada, *rights, at=f"{SERVICES}/{farm['id']}/api-keys")
        own = {**with_key(key["key"]), "If-Match": "*"}

        refused = [
            await client.put(f"{ROLES}/maker", json={"permissions": []}, headers=own),
            await client.put(
                f"{USERS}/{grace['id']}/roles", json={"roles": ["user", "maker"]}, headers=own
            ),
            await client.post(USERS, json={**_person("zoe"), "roles": ["maker"]}, headers=own),
            await client.post(SERVICES, json={"name": "x", "roles": ["maker"]}, headers=own),
        ]

        assert [answer.json().get("code") for answer in refused] == ["own-roles"] * 4
        given = await client.post(SERVICES, json={"name": "x", "roles": ["reader"]}, headers=own)
        assert given.status_code == 201, given.text

    async def test_hand_nobody_the_management_of_access(
        self, client: httpx.AsyncClient, make_person: MakePerson
    ) -> None:
        ada = await make_person("ada")
        rights = ["role:write", "role:grant", "user:write", "service_account:write", "model:read"]
        maker = {"name": "maker", "permissions": rights}
        reader = {"name": "reader", "permissions": ["model:read"]}
        for role in (maker, reader):
            await client.post(ROLES, json=role, headers=ada.headers)
        grace = await make_user(client, ada, "grace", "reader")
        farm = await make_service(client, ada, "farm", "maker")
        key = await make_key(client, ada, *rights, at=f"{SERVICES}/{farm['id']}/api-keys")
        own = {**with_key(key["key"]), "If-Match": "*"}
        # Another name for what the program's own role allows.
        twin = {"name": "twin", "permissions": ["service_account:write", "model:read"]}
        assert (await client.post(ROLES, json=twin, headers=own)).status_code == 201

        refused = [
            await client.post(SERVICES, json={"name": "x", "roles": ["twin"]}, headers=own),
            await client.put(
                f"{USERS}/{grace['id']}/roles", json={"roles": ["reader", "twin"]}, headers=own
            ),
            await client.post(USERS, json={**_person("zoe"), "roles": ["twin"]}, headers=own),
            await client.put(
                f"{ROLES}/reader", json={"permissions": ["model:read", "user:write"]}, headers=own
            ),
        ]

        assert [answer.json().get("code") for answer in refused] == ["own-roles"] * 4
        taken = await client.put(f"{USERS}/{grace['id']}/roles", json={"roles": []}, headers=own)
        assert taken.status_code == 200, taken.text


class TestBadRequests:
    async def test_a_key_does_not_sign_out(
        self, client: httpx.AsyncClient, make_person: MakePerson
    ) -> None:
        key = await make_key(client, await make_person("ada"), "self:write", "model:read")

        answer = await client.post("/api/v1/auth/logout", headers=with_key(key["key"]))

        assert (answer.status_code, answer.json()["code"]) == (403, "session-required")
        assert "DELETE" in answer.json()["detail"]
        assert await ask(client, key["key"]) == 200

    async def test_scopes_name_what_there_is(
        self, client: httpx.AsyncClient, make_person: MakePerson
    ) -> None:
        ada = await make_person("ada", roles=EVERYTHING)
        made = await make_key(client, ada, "model:*", "*:read", "*:*", "inference:*")
        scopes = ["model:read", "models:read", "*:reads", "model:fly"]

        answers = [
            await client.post(KEYS, json={"name": "a", "scopes": scopes}, headers=ada.headers),
            await client.put(f"{KEYS}/{made['id']}", json={"scopes": scopes}, headers=ada.headers),
        ]

        for answer in answers:
            assert (answer.status_code, answer.json()["code"]) == (422, "unknown-scope")
            assert "2, 3, 4" in answer.json()["detail"]

    async def test_a_network_names_no_machine_in_it(
        self, client: httpx.AsyncClient, make_person: MakePerson
    ) -> None:
        ada = await make_person("ada")
        body = {"name": "a", "scopes": ["model:read"], "allowed_networks": ["192.0.2.7/24"]}

        answer = await client.post(KEYS, json=body, headers=ada.headers)

        assert answer.status_code == 422


def _person(name: str) -> dict[str, object]:
    return {"username": name, "email": f"{name}@example.com", "password": PASSWORD}
