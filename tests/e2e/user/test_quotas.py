"""Quotas as they are set and shown: by whom, of whom, and against whoever set them meanwhile."""

import asyncio
import json

import asyncpg
import httpx
import pytest

from tests.e2e.conftest import Flush, MakePerson, Person, sign_in
from tests.e2e.user.keys import KEYS, SERVICES, make_key, make_service, with_key
from tests.e2e.user.people import EVERYTHING, ROLES, enter, id_of, make_tenant, make_user
from tests.e2e.user.quotas import (
    OWN,
    TENANTS_OWN,
    cost,
    limits,
    of_key,
    of_service,
    of_tenant,
    of_user,
    put,
    tokens,
)

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(60)]

PAST_53_BITS = 2**53 + 1


@pytest.fixture
async def ada(make_person: MakePerson) -> Person:
    return await make_person("ada", roles=EVERYTHING)


class TestSetting:
    async def test_what_is_set_is_read_by_whom_it_binds_and_stands_in_the_trail(
        self,
        client: httpx.AsyncClient,
        ada: Person,
        flush: Flush,
        superuser: "asyncpg.Connection[asyncpg.Record]",
    ) -> None:
        bo = await make_user(client, ada, "bo", "user")
        path = of_user(bo["id"])
        empty = await client.get(path, headers=ada.headers)
        assert empty.json() == {"quotas": []}

        first = await put(
            client, ada, path, tokens(1000), cost(5 * 10**9), if_match=empty.headers["etag"]
        )
        second = await put(
            client,
            ada,
            path,
            tokens(2000),
            {"meter": "storage", "period": "total", "limit": 1},
            if_match=first.headers["etag"],
        )

        assert (first.status_code, second.status_code) == (200, 200), second.text
        shown = (await client.get(path, headers=ada.headers)).json()
        assert shown == second.json()
        assert [each["meter"] for each in shown["quotas"]] == ["storage", "tokens"]
        own = await client.get(OWN, headers=(await sign_in(client, "bo")).headers)
        assert own.json() == shown
        (storage, month) = shown["quotas"]
        assert storage["resets_at"] is None
        assert month["resets_at"].endswith("-01T00:00:00Z")
        figures = (month["used"], month["held"], month["remaining"], month["is_closed"])
        assert figures == (0, 0, 2000, False)
        await flush()
        row = await superuser.fetchrow(
            "SELECT action, resource_kind, resource_id, payload FROM audit_log"
            " WHERE request_id = $1",
            second.headers["x-request-id"],
        )
        assert row is not None
        assert tuple(row)[:3] == ("quota.set", "account", bo["id"])
        assert json.loads(row["payload"])["changes"] == {
            "before": {"quotas": ["cost/month EUR 5000000000", "tokens/month 1000"]},
            "after": {"quotas": ["storage/total 1", "tokens/month 2000"]},
        }
        gone = await put(client, ada, path)
        assert gone.json() == {"quotas": []}
        assert gone.headers["etag"] == empty.headers["etag"]

    async def test_it_takes_the_version_that_was_read(
        self, client: httpx.AsyncClient, ada: Person
    ) -> None:
        path = of_user((await make_user(client, ada, "bo", "user"))["id"])
        empty = (await client.get(path, headers=ada.headers)).headers["etag"]

        blind = await client.put(path, json={"quotas": []}, headers=ada.headers)
        racing = await asyncio.gather(
            *(put(client, ada, path, tokens(limit), if_match=empty) for limit in range(1, 9))
        )
        stale = await put(client, ada, path, if_match=empty)

        assert (blind.status_code, blind.json()["code"]) == (428, "precondition-required")
        assert sorted(answer.status_code for answer in racing) == [200] + [412] * 7
        assert (stale.status_code, stale.json()["code"]) == (412, "precondition-failed")
        (won,) = (answer for answer in racing if answer.status_code == 200)
        assert (await client.get(path, headers=ada.headers)).json() == won.json()

    async def test_what_is_used_is_told_though_no_limit_changed(
        self,
        client: httpx.AsyncClient,
        ada: Person,
        superuser: "asyncpg.Connection[asyncpg.Record]",
    ) -> None:
        path = of_user((await make_user(client, ada, "bo", "user"))["id"])
        tag = (await put(client, ada, path, tokens(10))).headers["etag"]
        await superuser.execute("UPDATE quota_balances SET settled = 7")

        again = await client.get(path, headers={**ada.headers, "If-None-Match": tag})
        own = await client.get(OWN, headers=(await sign_in(client, "bo")).headers)

        assert (again.status_code, again.headers["etag"]) == (200, tag)
        assert [each["used"] for each in again.json()["quotas"]] == [7]
        assert "etag" not in own.headers

    async def test_what_goes_together_is_told(self, client: httpx.AsyncClient, ada: Person) -> None:
        path = of_user((await make_user(client, ada, "bo", "user"))["id"])
        wrong = {
            "invalid-quota": [
                [{"meter": "cost", "period": "month", "limit": 1}],
                [{**tokens(1), "currency": "EUR"}],
                [{"meter": "storage", "period": "month", "limit": 1}],
                [tokens(1), tokens(2)],
                [cost(1, "EUR"), cost(1, "USD")],
            ],
            "validation-failed": [
                [tokens(-1)],
                [tokens(str(2**63))],
                [tokens("1e3")],
                [tokens(1.0)],
                [tokens(limit=True)],
                [tokens(None)],
                [cost(1, "eur")],
                [cost(1, "EURO")],
                [{**tokens(1), "used": 0}],
                [{"meter": "words", "period": "month", "limit": 1}],
                [{"meter": "tokens", "period": "day", "limit": 1}],
                [tokens(1)] * 9,
            ],
        }

        for code, bodies in wrong.items():
            for body in bodies:
                answer = await put(client, ada, path, *body)
                assert (answer.status_code, answer.json()["code"]) == (422, code), body
                assert answer.json()["errors"][0]["loc"][:2] == ["body", "quotas"], body

        last = await put(
            client, ada, path, tokens(1), tokens(1, "total"), {**cost(1), "currency": None}
        )
        assert last.json()["errors"][0]["loc"] == ["body", "quotas", 2, "currency"]
        assert await limits(client, ada, path) == []

    async def test_amounts_that_json_would_round_are_strings(
        self, client: httpx.AsyncClient, ada: Person
    ) -> None:
        path = of_user((await make_user(client, ada, "bo", "user"))["id"])

        answer = await put(
            client, ada, path, tokens(str(2**63 - 1)), cost("7"), tokens(2**53, "total")
        )

        quotas = answer.json()["quotas"]
        assert [each["limit"] for each in quotas] == [7, str(2**63 - 1), 2**53]
        assert [each["remaining"] for each in quotas] == [7, str(2**63 - 1), 2**53]
        exact = await put(client, ada, path, tokens(PAST_53_BITS))
        assert exact.json()["quotas"][0]["limit"] == str(PAST_53_BITS)

    async def test_a_budget_in_another_currency_is_another_budget(
        self, client: httpx.AsyncClient, ada: Person
    ) -> None:
        path = of_user((await make_user(client, ada, "bo", "user"))["id"])
        first = await put(client, ada, path, cost(5, "EUR"))

        second = await put(client, ada, path, cost(5, "USD"), if_match=first.headers["etag"])
        third = await put(client, ada, path, cost(5, "USD"), if_match=second.headers["etag"])

        assert [each["currency"] for each in second.json()["quotas"]] == ["USD"]
        assert second.headers["etag"] != first.headers["etag"]
        assert third.headers["etag"] == second.headers["etag"], "nothing changed"


class TestWhoMay:
    async def test_nobody_sets_what_binds_themselves(
        self, client: httpx.AsyncClient, ada: Person
    ) -> None:
        role = {"name": "keeper", "permissions": ["quota:*", "api_key:*", "model:read"]}
        await client.post(ROLES, json=role, headers=ada.headers)
        service = await make_service(client, ada, "farm", "keeper")
        at = f"{SERVICES}/{service['id']}/api-keys"
        program = await make_key(client, ada, "quota:*", "api_key:*", at=at)
        own = await make_key(client, ada, "quota:write", "api_key:write", "model:read")
        limited = await make_key(client, ada, "api_key:write", requests_per_minute=60)
        with_own, with_program = with_key(own["key"]), with_key(program["key"])

        answers = [
            await put(client, ada, of_user(await id_of(client, ada)), tokens(1)),
            await put(client, with_own, of_user(await id_of(client, ada)), tokens(1)),
            await put(client, with_own, of_key(own["id"]), tokens(1)),
            await put(client, with_program, of_service(service["id"]), tokens(1)),
            await put(client, with_program, of_key(program["id"]), tokens(1)),
            await put(client, with_program, f"{at}/{program['id']}/quota", tokens(1)),
        ]
        lifted = await put(client, with_key(limited["key"]), of_key(own["id"]), tokens(1))
        await put(client, ada, of_key(own["id"]), tokens(1))
        freed = await put(client, with_own, of_key(limited["id"]))

        assert [each.json().get("code") for each in answers] == ["own-quota"] * 6
        assert {each.status_code for each in answers} == {403}
        assert lifted.json()["code"] == freed.json()["code"] == "own-quota"
        assert await limits(client, ada) == []

    async def test_a_key_and_a_program_are_bound_by_whoever_holds_or_runs_them(
        self, client: httpx.AsyncClient, ada: Person
    ) -> None:
        await make_user(client, ada, "bo", "developer")
        bo = await sign_in(client, "bo")
        key = await make_key(client, bo, "self:read", "api_key:read")
        service = await make_service(client, ada, "farm", "developer")
        program = await make_key(
            client, ada, "model:read", at=f"{SERVICES}/{service['id']}/api-keys"
        )

        assert (await put(client, bo, of_key(key["id"]), tokens(5))).status_code == 200
        assert (await put(client, ada, of_service(service["id"]), tokens(6))).status_code == 200
        key_path = f"{SERVICES}/{service['id']}/api-keys/{program['id']}/quota"
        assert (await put(client, ada, key_path, tokens(7))).status_code == 200

        assert await limits(client, bo) == []
        assert await limits(client, with_key(key["key"])) == [("key", "tokens", "month", 5)]
        assert await limits(client, with_key(key["key"]), of_key(key["id"])) == [
            ("key", "tokens", "month", 5)
        ]
        assert await limits(client, ada, of_service(service["id"])) == [
            ("user", "tokens", "month", 6)
        ]
        assert await limits(client, ada, key_path) == [("key", "tokens", "month", 7)]
        others = await put(client, ada, of_key(key["id"]), tokens(1))
        assert (others.status_code, others.json()["code"]) == (404, "api-key-not-found")

    async def test_those_of_a_key_go_with_it(
        self,
        client: httpx.AsyncClient,
        ada: Person,
        superuser: "asyncpg.Connection[asyncpg.Record]",
    ) -> None:
        gone, kept = [await make_key(client, ada, "self:read") for _ in range(2)]
        for key in (gone, kept):
            assert (await put(client, ada, of_key(key["id"]), tokens(1))).status_code == 200

        answer = await client.delete(
            f"{KEYS}/{gone['id']}", headers={**ada.headers, "If-Match": "*"}
        )

        assert answer.status_code == 204, answer.text
        left = await superuser.fetch(
            "SELECT q.subject_id::text FROM quotas q JOIN quota_balances b ON b.quota_id = q.id"
        )
        assert [row["subject_id"] for row in left] == [kept["id"]]
        assert await superuser.fetchval("SELECT count(*) FROM quota_balances") == 1

    async def test_a_tenant_is_bound_by_the_platform_and_sees_it(
        self,
        client: httpx.AsyncClient,
        ada: Person,
        flush: Flush,
        superuser: "asyncpg.Connection[asyncpg.Record]",
    ) -> None:
        grace_id = (await make_user(client, ada, "grace", "user"))["id"]
        tenant = await make_tenant(client, ada, "other", admin_id=grace_id)
        grace = await enter(client, "grace", "other")

        refused = await put(client, grace, of_tenant(tenant), tokens(1))
        answer = await put(client, ada, of_tenant(tenant), tokens(100), cost(9))

        assert (refused.status_code, refused.json()["code"]) == (403, "permission-denied")
        assert answer.status_code == 200, answer.text
        both = [("tenant", "cost", "month", 9), ("tenant", "tokens", "month", 100)]
        assert await limits(client, grace) == both
        assert await limits(client, grace, TENANTS_OWN) == both
        assert await limits(client, ada, of_tenant(tenant)) == both
        assert await limits(client, ada) == await limits(client, ada, TENANTS_OWN) == []
        await flush()
        where = await superuser.fetchval(
            "SELECT tenant_id::text FROM audit_log WHERE request_id = $1",
            answer.headers["x-request-id"],
        )
        assert where == tenant
