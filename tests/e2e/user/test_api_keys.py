"""API keys, as whoever holds one and whoever steals one sees them."""

import asyncio
from datetime import datetime, timedelta

import asyncpg
import httpx
import pytest

from maas.shared.domain.ids import DEFAULT_TENANT_ID
from maas.shared.infrastructure.clock import SystemClock
from tests.e2e.conftest import Flush, MakePerson, sign_in
from tests.e2e.user.keys import KEYS, ask, make_key, with_key
from tests.e2e.user.people import EVERYTHING, assign, enter, id_of, make_tenant, make_user
from tests.factories.accounts import PASSWORD

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

    async def test_a_key_of_the_operator_reads_metrics_from_elsewhere_and_nothing_more(
        self, client: httpx.AsyncClient, make_person: MakePerson
    ) -> None:
        olga = await make_person("olga", roles=("admin", "platform_admin"))

        key = (await make_key(client, olga, "platform:metrics"))["key"]
        elsewhere = {"X-Forwarded-For": "203.0.113.7"}
        stranger = await client.get("/metrics", headers=elsewhere)
        answer = await client.get("/metrics", headers={**elsewhere, **with_key(key)})

        assert stranger.status_code == 401
        assert (answer.status_code, "maas_http_requests_total" in answer.text) == (200, True)
        assert await ask(client, key) == 403

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


class TestBounds:
    async def test_a_wildcard_scope_reaches_no_access(
        self, client: httpx.AsyncClient, make_person: MakePerson
    ) -> None:
        ada = await make_person("ada")
        everything = (await make_key(client, ada, "*:*"))["key"]
        named = (await make_key(client, ada, "*:*", "user:read", "self:read"))["key"]

        assert await ask(client, everything) == 200
        for path in (USERS, PROFILE, KEYS, "/api/v1/admin/service-accounts"):
            assert await ask(client, everything, path) == 403, path
        assert await ask(client, named, USERS) == await ask(client, named, PROFILE) == 200
        assert await ask(client, named, KEYS) == 403

    async def test_nobody_makes_a_key_that_may_more_than_they(
        self, client: httpx.AsyncClient, make_person: MakePerson
    ) -> None:
        ada = await make_person("ada", roles=("user",))

        for scope in ("user:read", "model:*", "*:*", "*:read", "platform:tenant-read"):
            body = {"name": "more", "scopes": ["model:read", scope]}
            answer = await client.post(KEYS, json=body, headers=ada.headers)
            assert (answer.status_code, answer.json()["code"]) == (403, "beyond-own-rights")
        made = await make_key(client, ada, "model:read")
        answer = await client.put(
            f"{KEYS}/{made['id']}", json={"scopes": ["user:read"]}, headers=ada.headers
        )
        assert (answer.status_code, answer.json()["code"]) == (403, "beyond-own-rights")

    async def test_a_key_hands_on_no_more_than_it_may(
        self, client: httpx.AsyncClient, make_person: MakePerson
    ) -> None:
        ada = await make_person("ada")
        wide = await make_key(client, ada, "*:*")
        keeper = with_key(
            (await make_key(client, ada, "*:*", "api_key:write", "role:write"))["key"]
        )

        child = {"name": "child", "scopes": ["api_key:write"]}
        assert (await client.post(KEYS, json=child, headers=keeper)).status_code == 201
        for scopes in (["*:*"], ["user:write"], ["model:read"]):
            answer = await client.post(
                KEYS, json={"name": "more", "scopes": scopes}, headers=keeper
            )
            assert (answer.status_code, answer.json()["code"]) == (403, "beyond-own-rights")
        stolen = await client.post(f"{KEYS}/{wide['id']}/rotate", json={}, headers=keeper)
        assert (stolen.status_code, stolen.json()["code"]) == (403, "beyond-own-rights")
        role = {"name": "all", "permissions": ["*:*"]}
        answer = await client.post("/api/v1/admin/roles", json=role, headers=keeper)
        assert (answer.status_code, answer.json()["code"]) == (403, "beyond-own-rights")

    async def test_it_is_taken_only_from_where_it_may_be_used(
        self,
        client: httpx.AsyncClient,
        make_person: MakePerson,
        flush: Flush,
        superuser: "asyncpg.Connection[asyncpg.Record]",
    ) -> None:
        ada = await make_person("ada")
        made = await make_key(client, ada, allowed_networks=["192.0.2.7", "2001:DB8::/32"])
        assert made["allowed_networks"] == ["192.0.2.7/32", "2001:db8::/32"]

        refused = await client.get(MODELS, headers=with_key(made["key"]))

        assert (refused.status_code, refused.json()["code"]) == (403, "address-not-allowed")
        await flush()
        event = await superuser.fetchrow(
            "SELECT outcome, reason, api_key_id::text, session_id FROM audit_log"
            " WHERE request_id = $1",
            refused.headers["x-request-id"],
        )
        assert event is not None
        assert tuple(event) == ("denied", "address-not-allowed", made["id"], None)
        answer = await client.put(
            f"{KEYS}/{made['id']}",
            json={"allowed_networks": ["127.0.0.0/8"]},
            headers=ada.headers,
        )
        assert answer.status_code == 200
        assert await ask(client, made["key"]) == 200

    async def test_a_limited_key_makes_no_unlimited_one(
        self, client: httpx.AsyncClient, make_person: MakePerson
    ) -> None:
        ada = await make_person("ada")
        made = await make_key(client, ada, "api_key:write", requests_per_minute=5)
        other = await make_key(client, ada)
        own, headers = f"{KEYS}/{made['id']}", with_key(made["key"])

        body = {"name": "free", "scopes": ["api_key:write"]}
        answers = [
            await client.post(KEYS, json=body, headers=headers),
            await client.put(own, json={"requests_per_minute": None}, headers=headers),
            await client.post(f"{KEYS}/{other['id']}/rotate", json={}, headers=headers),
        ]

        assert [answer.json()["code"] for answer in answers] == ["limited-key"] * 3
        assert (await client.post(f"{own}/rotate", json={}, headers=headers)).status_code == 200

    async def test_the_keys_of_others_are_not_there(
        self, client: httpx.AsyncClient, make_person: MakePerson
    ) -> None:
        ada, bob = await make_person("ada"), await make_person("bob")
        made = await make_key(client, ada)

        at, headers = f"{KEYS}/{made['id']}", bob.headers
        answers = [
            await client.get(at, headers=headers),
            await client.put(at, json={"name": "mine"}, headers=headers),
            await client.post(f"{at}/rotate", json={}, headers=headers),
            await client.delete(at, headers=headers),
        ]

        assert {answer.json()["code"] for answer in answers} == {"api-key-not-found"}
        assert (await client.get(KEYS, headers=headers)).json()["items"] == []
        assert await ask(client, made["key"]) == 200

    async def test_an_expiry_lies_ahead_and_within_a_year(
        self, client: httpx.AsyncClient, make_person: MakePerson
    ) -> None:
        ada = await make_person("ada")
        now = SystemClock().now()
        for moment in (now - timedelta(hours=1), now + timedelta(days=400)):
            body = {"name": "a", "scopes": ["model:read"], "expires_at": moment.isoformat()}
            answer = await client.post(KEYS, json=body, headers=ada.headers)
            assert (answer.status_code, answer.json()["code"]) == (422, "invalid-expiry")
        usual = datetime.fromisoformat((await make_key(client, ada))["expires_at"])
        assert timedelta(days=89) < usual - now < timedelta(days=91)

    async def test_what_is_remembered_of_a_key_does_not_outlive_it(
        self,
        client: httpx.AsyncClient,
        make_person: MakePerson,
        superuser: "asyncpg.Connection[asyncpg.Record]",
    ) -> None:
        made = await make_key(client, await make_person("ada"))
        # Past the rules, so that no slow machine makes it too late to ask for.
        expires_at = await superuser.fetchval(
            "UPDATE api_keys SET expires_at = clock_timestamp() + interval '1.5 s'"
            " WHERE id = $1::uuid RETURNING expires_at",
            made["id"],
        )

        before = await ask(client, made["key"])
        await asyncio.sleep(max((expires_at - SystemClock().now()).total_seconds(), 0) + 0.01)

        assert before in {200, 401}
        assert await ask(client, made["key"]) == 401


class TestHolder:
    async def test_a_right_that_the_holder_lost_is_lost_at_the_next_request(
        self, client: httpx.AsyncClient, make_person: MakePerson
    ) -> None:
        ada = await make_person("ada")
        grace = await make_user(client, ada, "grace", "auditor")
        person = await sign_in(client, "grace")
        key = (await make_key(client, person, "user:read", "self:read"))["key"]
        assert await ask(client, key, USERS) == 200

        await assign(client, ada, grace["id"], "user")
        assert await ask(client, key, USERS) == 403
        assert await ask(client, key, PROFILE) == 200

        await assign(client, ada, grace["id"], "auditor")
        assert await ask(client, key, USERS) == 200

    async def test_it_rests_while_the_holder_is_suspended_and_ends_with_the_membership(
        self, client: httpx.AsyncClient, make_person: MakePerson
    ) -> None:
        ada = await make_person("ada", roles=EVERYTHING)
        grace = await make_user(client, ada, "grace", "user")
        # At home elsewhere too, so that removal does not delete the account.
        tenant = await make_tenant(client, ada, "second")
        member = f"/api/v1/admin/tenants/{tenant}/members/{grace['id']}"
        await client.put(member, json={"roles": ["user"]}, headers=ada.headers)
        key = (await make_key(client, await enter(client, "grace", "default")))["key"]
        elsewhere = (await make_key(client, await enter(client, "grace", "second")))["key"]
        assert await ask(client, key) == await ask(client, elsewhere) == 200

        place = f"{USERS}/{grace['id']}"
        await client.put(f"{place}/suspension", json={"reason": "a"}, headers=ada.headers)
        assert (await ask(client, key), await ask(client, elsewhere)) == (401, 200)
        await client.delete(f"{place}/suspension", headers=ada.headers)
        assert await ask(client, key) == 200
        await client.delete(place, headers=ada.headers)
        assert (await ask(client, key), await ask(client, elsewhere)) == (401, 200)
        back = f"/api/v1/admin/tenants/{DEFAULT_TENANT_ID}/members/{grace['id']}"
        joined = await client.put(back, json={"roles": ["user"]}, headers=ada.headers)
        assert joined.status_code == 200, joined.text
        assert await ask(client, key) == 401, "what ended does not come back"

    async def test_it_rests_in_every_tenant_while_the_account_is_deactivated(
        self, client: httpx.AsyncClient, make_person: MakePerson
    ) -> None:
        ada = await make_person("ada", roles=EVERYTHING)
        grace = await make_user(client, ada, "grace", "user")
        tenant = await make_tenant(client, ada, "second")
        member = f"/api/v1/admin/tenants/{tenant}/members/{grace['id']}"
        await client.put(member, json={"roles": ["user"]}, headers=ada.headers)
        here, there = (
            await enter(client, "grace", "default"),
            await enter(client, "grace", "second"),
        )
        keys = [(await make_key(client, each))["key"] for each in (here, there)]
        assert [await ask(client, key) for key in keys] == [200, 200]

        left = await client.post(
            "/api/v1/users/deactivation", json={"current_password": PASSWORD}, headers=here.headers
        )

        assert left.status_code == 204
        assert [await ask(client, key) for key in keys] == [401, 401]

    async def test_it_rests_while_the_tenant_is_suspended(
        self, client: httpx.AsyncClient, make_person: MakePerson
    ) -> None:
        ada = await make_person("ada", roles=EVERYTHING)
        grace = await make_user(client, ada, "grace", "user")
        tenant = await make_tenant(client, ada, "second", admin_id=grace["id"])
        key = (await make_key(client, await enter(client, "grace", "second")))["key"]
        assert await ask(client, key) == 200
        at, headers = f"/api/v1/admin/tenants/{tenant}", {**ada.headers, "If-Match": "*"}

        await client.put(at, json={"status": "suspended"}, headers=headers)
        assert await ask(client, key) == 401
        await client.put(at, json={"status": "active"}, headers=headers)
        assert await ask(client, key) == 200

    @pytest.mark.parametrize("is_revoking", [False, True])
    async def test_a_new_password_and_signing_out_end_it_if_told_to(
        self, client: httpx.AsyncClient, make_person: MakePerson, *, is_revoking: bool
    ) -> None:
        ada = await make_person("ada", roles=EVERYTHING)
        tenant = await make_tenant(client, ada, "second", admin_id=await id_of(client, ada))
        there = await enter(client, "ada", "second")
        keys = [(await make_key(client, each))["key"] for each in (ada, there)]
        assert tenant
        assert [await ask(client, key) for key in keys] == [200, 200]
        body: dict[str, object] = {
            "current_password": PASSWORD,
            "new_password": "another long enough phrase",
        }
        if is_revoking:
            body["revoke_api_keys"] = True

        changed = await client.post("/api/v1/users/password", json=body, headers=ada.headers)

        assert changed.status_code == 204
        expected = 401 if is_revoking else 200
        assert [await ask(client, key) for key in keys] == [expected, expected]
        made = (await make_key(client, ada))["key"]
        query = "?revoke_api_keys=true" if is_revoking else ""
        out = await client.post(f"/api/v1/auth/logout-all{query}", headers=ada.headers)
        assert out.status_code == 204
        assert await ask(client, made) == expected

    @pytest.mark.parametrize("is_kept", [False, True])
    async def test_a_password_that_is_reset_ends_it_unless_told_not_to(
        self, client: httpx.AsyncClient, make_person: MakePerson, *, is_kept: bool
    ) -> None:
        ada = await make_person("ada")
        grace = await make_user(client, ada, "grace")
        key = (await make_key(client, await sign_in(client, "grace")))["key"]
        own = (await make_key(client, ada))["key"]
        assert await ask(client, key) == 200

        reset = await client.post(
            f"{USERS}/{grace['id']}/password-reset",
            json={"revoke_api_keys": False} if is_kept else {},
            headers=ada.headers,
        )

        assert reset.status_code == 200, reset.text
        assert (await ask(client, key), await ask(client, own)) == (200 if is_kept else 401, 200)
