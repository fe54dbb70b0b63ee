"""One's own sessions and tenants, over HTTP."""

import asyncio
from uuid import UUID

import asyncpg
import httpx
import pytest

from maas.shared.domain.ids import new_id
from maas.shared.infrastructure.redis import RedisGate
from tests.conftest import MakeSettings
from tests.e2e.conftest import Flush, MakePerson, Person, serving_app, sign_in

pytestmark = pytest.mark.e2e

SESSIONS, LOGOUT_ALL = "/api/v1/auth/sessions", "/api/v1/auth/logout-all"
SWITCH, TENANTS = "/api/v1/auth/switch-tenant", "/api/v1/users/tenants"
PROFILE, REFRESH = "/api/v1/users/profile", "/api/v1/auth/refresh"


async def status(client: httpx.AsyncClient, person: Person) -> int:
    return (await client.get(PROFILE, headers=person.headers)).status_code


async def make_tenant(
    superuser: "asyncpg.Connection[asyncpg.Record]", slug: str, member: str | None
) -> UUID:
    """Make a tenant with its `user` role, and let one person in."""
    tenant_id = new_id()
    await superuser.execute(
        "INSERT INTO tenants (id, slug, name) VALUES ($1, $2, initcap($2))", tenant_id, slug
    )
    await superuser.execute(
        "INSERT INTO roles (tenant_id, name, permissions) VALUES ($1, 'user', '{model:read}')",
        tenant_id,
    )
    if member is not None:
        account_id = await superuser.fetchval("SELECT id FROM accounts WHERE username = $1", member)
        await superuser.execute(
            "INSERT INTO memberships (tenant_id, account_id) VALUES ($1, $2)", tenant_id, account_id
        )
        await superuser.execute(
            "INSERT INTO membership_roles VALUES ($1, $2, 'user')", tenant_id, account_id
        )
    return tenant_id


class TestList:
    async def test_shows_live_ones_only_and_which_is_this(
        self, client: httpx.AsyncClient, make_person: MakePerson
    ) -> None:
        ada = await make_person("ada")
        await make_person("eve")
        ended = await sign_in(client, "ada")
        newest = await sign_in(client, "ada")
        await client.post("/api/v1/auth/logout", headers=ended.headers)

        answer = await client.get(SESSIONS, headers=ada.headers)

        items = answer.json()["items"]
        assert [item["is_current"] for item in items] == [False, True]
        assert all(item["tenant"] == "default" for item in items)
        assert items[0]["address"] == "127.0.0.1"
        assert items[0]["user_agent"].startswith("python-httpx")
        assert answer.json()["next_cursor"] is None
        seen_by_other = await client.get(SESSIONS, headers=newest.headers)
        assert [item["is_current"] for item in seen_by_other.json()["items"]] == [True, False]

    async def test_comes_in_pages(self, client: httpx.AsyncClient, make_person: MakePerson) -> None:
        ada = await make_person("ada")
        for _ in range(4):
            await sign_in(client, "ada")

        seen: list[str] = []
        suffix: str | None = ""
        while suffix is not None:
            answer = await client.get(
                f"{SESSIONS}?limit=2&include_total=true{suffix}", headers=ada.headers
            )
            assert answer.json()["total"] == 5
            seen += [item["id"] for item in answer.json()["items"]]
            cursor = answer.json()["next_cursor"]
            suffix = f"&cursor={cursor}" if cursor else None

        assert len(seen) == len(set(seen)) == 5
        assert seen == sorted(seen, reverse=True)


class TestEnd:
    async def test_ends_one_of_ones_own_at_once(
        self, client: httpx.AsyncClient, make_person: MakePerson
    ) -> None:
        ada = await make_person("ada")
        other = await sign_in(client, "ada")
        assert await status(client, other) == 200
        listed = await client.get(SESSIONS, headers=other.headers)
        other_id = next(item["id"] for item in listed.json()["items"] if item["is_current"])

        answer = await client.delete(f"{SESSIONS}/{other_id}", headers=ada.headers)

        assert answer.status_code == 204
        assert await status(client, other) == 401
        refresh = await client.post(REFRESH, json={"refresh_token": other.refresh_token})
        assert refresh.status_code == 401
        assert await status(client, ada) == 200
        again = await client.delete(f"{SESSIONS}/{other_id}", headers=ada.headers)
        assert (again.status_code, again.json()["code"]) == (404, "session-not-found")

    async def test_somebody_elses_looks_like_none(
        self, client: httpx.AsyncClient, make_person: MakePerson
    ) -> None:
        ada, eve = await make_person("ada"), await make_person("eve")
        listed = await client.get(SESSIONS, headers=eve.headers)
        eves = listed.json()["items"][0]["id"]

        foreign = await client.delete(f"{SESSIONS}/{eves}", headers=ada.headers)
        unknown = await client.delete(f"{SESSIONS}/{new_id()}", headers=ada.headers)

        assert foreign.status_code == unknown.status_code == 404
        assert foreign.json()["code"] == unknown.json()["code"]
        assert await status(client, eve) == 200


class TestLogoutAll:
    async def test_ends_every_session_everywhere_and_nobody_elses(
        self,
        client: httpx.AsyncClient,
        make_person: MakePerson,
        redis_gate: RedisGate,
        flush: Flush,
        superuser: "asyncpg.Connection[asyncpg.Record]",
    ) -> None:
        ada, eve = await make_person("ada"), await make_person("eve")
        people = [ada, *[await sign_in(client, "ada") for _ in range(4)]]
        assert [await status(client, person) for person in people] == [200] * 5

        answer = await client.post(LOGOUT_ALL, headers=ada.headers)

        assert answer.status_code == 204
        assert [await status(client, person) for person in people] == [401] * 5
        assert await status(client, eve) == 200
        await flush()
        payload = await superuser.fetchval(
            "SELECT convert_from(payload, 'UTF8') FROM audit_log WHERE action = 'auth.logout_all'"
        )
        assert '"sessions_ended":5' in payload
        await redis_gate.client.flushdb()
        assert [await status(client, person) for person in people] == [401] * 5

    async def test_a_sign_in_at_the_same_time_is_ended_or_new(
        self, client: httpx.AsyncClient, make_person: MakePerson
    ) -> None:
        ada = await make_person("ada")

        results = await asyncio.gather(
            client.post(LOGOUT_ALL, headers=ada.headers),
            client.post(LOGOUT_ALL, headers=ada.headers),
            sign_in(client, "ada"),
        )

        codes = sorted(answer.status_code for answer in results[:2])
        assert codes in ([204, 204], [204, 401])
        assert await status(client, ada) == 401


class TestSwitchTenant:
    async def test_opens_a_session_there_and_leaves_this_one(
        self,
        client: httpx.AsyncClient,
        make_person: MakePerson,
        superuser: "asyncpg.Connection[asyncpg.Record]",
    ) -> None:
        ada = await make_person("ada")
        await make_tenant(superuser, "research", "ada")

        answer = await client.post(SWITCH, json={"tenant": "research"}, headers=ada.headers)

        assert answer.status_code == 200, answer.text
        pair = answer.json()
        there = Person("ada", pair["access_token"], pair["refresh_token"])
        profile = await client.get(PROFILE, headers=there.headers)
        assert profile.json()["tenant"] == "research"
        here = await client.get(PROFILE, headers=ada.headers)
        assert here.json()["tenant"] == "default"
        lives = await superuser.fetch("SELECT expires_at FROM sessions")
        assert len(lives) == 2
        assert len({row["expires_at"] for row in lives}) == 1
        refreshed = await client.post(REFRESH, json={"refresh_token": there.refresh_token})
        assert refreshed.status_code == 200

    async def test_takes_only_the_roles_held_there(
        self,
        client: httpx.AsyncClient,
        make_person: MakePerson,
        superuser: "asyncpg.Connection[asyncpg.Record]",
    ) -> None:
        ada = await make_person("ada", roles=("admin",))
        await make_tenant(superuser, "research", "ada")
        answer = await client.post(SWITCH, json={"tenant": "research"}, headers=ada.headers)
        headers = {"Authorization": f"Bearer {answer.json()['access_token']}"}

        logs = await client.get("/api/v1/audit/logs", headers=headers)

        assert logs.status_code == 403

    @pytest.mark.parametrize("slug", ["research", "nowhere"])
    async def test_a_tenant_one_is_no_member_of_looks_like_none(
        self,
        client: httpx.AsyncClient,
        make_person: MakePerson,
        superuser: "asyncpg.Connection[asyncpg.Record]",
        slug: str,
    ) -> None:
        ada = await make_person("ada")
        await make_tenant(superuser, "research", None)

        answer = await client.post(SWITCH, json={"tenant": slug}, headers=ada.headers)

        assert (answer.status_code, answer.json()["code"]) == (409, "no-membership")


class TestTenants:
    async def test_lists_ones_own_and_no_others(
        self,
        client: httpx.AsyncClient,
        make_person: MakePerson,
        superuser: "asyncpg.Connection[asyncpg.Record]",
    ) -> None:
        ada = await make_person("ada")
        await make_tenant(superuser, "research", "ada")
        await make_tenant(superuser, "secret", None)

        answer = await client.get(TENANTS, headers=ada.headers)
        first = await client.get(f"{TENANTS}?limit=1&include_total=true", headers=ada.headers)

        assert [(i["slug"], i["name"], i["is_current"]) for i in answer.json()["items"]] == [
            ("research", "Research", False),
            ("default", "Default", True),
        ]
        assert first.json()["total"] == 2
        rest = await client.get(
            f"{TENANTS}?limit=1&cursor={first.json()['next_cursor']}", headers=ada.headers
        )
        assert [item["slug"] for item in rest.json()["items"]] == ["default"]


class TestWithoutRedis:
    @pytest.mark.timeout(60)
    async def test_logout_all_is_answered_when_no_process_can_believe_the_session(
        self, make_settings: MakeSettings, client: httpx.AsyncClient, make_person: MakePerson
    ) -> None:
        ada = await make_person("ada")
        cut_off = make_settings(redis={"url": "redis://127.0.0.1:1/0"})
        async with serving_app(cut_off) as without_redis:
            assert await status(client, ada) == 200

            answer = await without_redis.post(LOGOUT_ALL, headers=ada.headers)

        assert answer.status_code == 204
        assert await status(client, ada) == 401
