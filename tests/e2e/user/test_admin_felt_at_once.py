"""A change of access is felt by the next request, and the last administrator stays."""

import asyncio
from collections.abc import Awaitable, Callable

import asyncpg
import httpx
import pytest

from tests.conftest import MakeSettings
from tests.e2e.conftest import MakePerson, Person, serving_app, sign_in
from tests.e2e.user.people import (
    EVERYTHING,
    MODELS,
    PROFILE,
    ROLES,
    TENANTS,
    USERS,
    assign,
    enter,
    id_of,
    make_tenant,
    make_user,
    status_of,
)

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(60)]

Act = Callable[[httpx.AsyncClient, Person, str], Awaitable[httpx.Response]]


async def suspend(client: httpx.AsyncClient, admin: Person, user_id: str) -> httpx.Response:
    return await client.put(
        f"{USERS}/{user_id}/suspension", json={"reason": "Asked for."}, headers=admin.headers
    )


async def remove(client: httpx.AsyncClient, admin: Person, user_id: str) -> httpx.Response:
    return await client.delete(f"{USERS}/{user_id}", headers=admin.headers)


async def demote(client: httpx.AsyncClient, admin: Person, user_id: str) -> httpx.Response:
    return await client.put(
        f"{USERS}/{user_id}/roles",
        json={"roles": ["user"]},
        headers={**admin.headers, "If-Match": "*"},
    )


class TestNextRequest:
    async def test_a_lost_role_is_403_and_the_session_lives_on(
        self, client: httpx.AsyncClient, make_person: MakePerson
    ) -> None:
        admin = await make_person("ada")
        grace = await make_user(client, admin, "grace", "auditor")
        person = await sign_in(client, "grace")
        assert await status_of(client, person, USERS) == 200

        answer = await assign(client, admin, grace["id"], "user")

        assert answer.status_code == 200
        assert await status_of(client, person, USERS) == 403
        assert await status_of(client, person) == 200
        refreshed = await client.post(
            "/api/v1/auth/refresh", json={"refresh_token": person.refresh_token}
        )
        assert refreshed.status_code == 200

    async def test_a_gained_role_is_felt_too(
        self, client: httpx.AsyncClient, make_person: MakePerson
    ) -> None:
        admin = await make_person("ada")
        grace = await make_user(client, admin, "grace", "user")
        person = await sign_in(client, "grace")
        assert await status_of(client, person, USERS) == 403

        await assign(client, admin, grace["id"], "user", "auditor")

        assert await status_of(client, person, USERS) == 200

    async def test_a_changed_role_is_felt_by_all_who_hold_it(
        self, client: httpx.AsyncClient, make_person: MakePerson
    ) -> None:
        admin = await make_person("ada")
        await client.post(
            ROLES, json={"name": "reader", "permissions": ["user:read"]}, headers=admin.headers
        )
        people = []
        for name in ("p1", "p2", "p3"):
            await make_user(client, admin, name, "reader")
            people.append(await sign_in(client, name))
        assert [await status_of(client, each, USERS) for each in people] == [200] * 3

        read = await client.get(f"{ROLES}/reader", headers=admin.headers)
        changed = await client.put(
            f"{ROLES}/reader",
            json={"permissions": ["model:read"]},
            headers={**admin.headers, "If-Match": read.headers["etag"]},
        )

        assert changed.status_code == 200
        assert [await status_of(client, each, USERS) for each in people] == [403] * 3
        assert [await status_of(client, each, MODELS) for each in people] == [200] * 3

    @pytest.mark.parametrize("act", [suspend, remove])
    async def test_who_is_suspended_or_removed_is_out(
        self, client: httpx.AsyncClient, make_person: MakePerson, act: Act
    ) -> None:
        admin = await make_person("ada")
        grace = await make_user(client, admin, "grace")
        people = [await sign_in(client, "grace") for _ in range(3)]
        assert [await status_of(client, each) for each in people] == [200] * 3

        answer = await act(client, admin, grace["id"])

        assert answer.status_code in {200, 204}
        assert [await status_of(client, each) for each in people] == [401] * 3
        again = await client.post(
            "/api/v1/auth/refresh", json={"refresh_token": people[0].refresh_token}
        )
        assert again.status_code == 401

    async def test_a_restored_person_signs_in_anew(
        self, client: httpx.AsyncClient, make_person: MakePerson
    ) -> None:
        admin = await make_person("ada")
        grace = await make_user(client, admin, "grace")
        before = await sign_in(client, "grace")
        await suspend(client, admin, grace["id"])

        answer = await client.delete(f"{USERS}/{grace['id']}/suspension", headers=admin.headers)

        assert answer.status_code == 204
        assert await status_of(client, before) == 401
        assert await status_of(client, await sign_in(client, "grace")) == 200

    async def test_a_suspended_tenant_is_left_by_all_at_once(
        self, client: httpx.AsyncClient, make_person: MakePerson
    ) -> None:
        platform = await make_person("root", roles=EVERYTHING)
        grace = await make_user(client, platform, "grace")
        tenant = await make_tenant(client, platform, "other", admin_id=grace["id"])
        there, here = await enter(client, "grace", "other"), await enter(client, "grace", "default")
        assert await status_of(client, there) == 200

        answer = await client.put(
            f"{TENANTS}/{tenant}", json={"status": "suspended"}, headers=platform.headers
        )

        assert answer.status_code == 200
        assert (await status_of(client, there), await status_of(client, here)) == (401, 200)

    async def test_without_redis_it_is_acknowledged_once_cached_entries_have_died(
        self, make_settings: MakeSettings, client: httpx.AsyncClient, make_person: MakePerson
    ) -> None:
        admin = await make_person("ada")
        grace = await make_user(client, admin, "grace", "auditor")
        person = await sign_in(client, "grace")
        nowhere = make_settings(redis={"url": "redis://127.0.0.1:1/0"})
        async with serving_app(nowhere) as cut_off:
            assert await status_of(client, person, USERS) == 200
            loop = asyncio.get_running_loop()
            began = loop.time()

            answer = await demote(cut_off, admin, grace["id"])

            assert answer.status_code == 200
            assert loop.time() - began >= 5
            assert await status_of(client, person, USERS) == 403
            assert await status_of(cut_off, person, USERS) == 403
            assert await status_of(client, person, PROFILE) == 200

    async def test_no_request_that_starts_after_the_acknowledgement_is_let_through(
        self, client: httpx.AsyncClient, make_person: MakePerson
    ) -> None:
        admin = await make_person("ada")
        grace = await make_user(client, admin, "grace", "auditor")
        people = [await sign_in(client, "grace") for _ in range(4)]
        accepted = 0
        for _ in range(10):
            await assign(client, admin, grace["id"], "auditor")
            answers = asyncio.gather(*(status_of(client, each, USERS) for each in people * 5))
            demoted = await demote(client, admin, grace["id"])
            assert demoted.status_code == 200
            after = await asyncio.gather(*(status_of(client, each, USERS) for each in people * 10))
            accepted += sum(status != 403 for status in after)
            await answers

        assert accepted == 0


class TestLastAdmin:
    @pytest.mark.parametrize("act", [suspend, remove, demote])
    async def test_one_of_many_stays_whatever_a_hundred_ask_at_once(
        self,
        client: httpx.AsyncClient,
        make_person: MakePerson,
        superuser: "asyncpg.Connection[asyncpg.Record]",
        act: Act,
    ) -> None:
        founder = await make_person("ada")
        await client.post(
            ROLES, json={"name": "boss", "permissions": ["*:*"]}, headers=founder.headers
        )
        await make_user(client, founder, "boss", "boss")
        boss = await sign_in(client, "boss")
        others = [await make_user(client, founder, f"admin{n}", "admin") for n in range(9)]
        ids = [await id_of(client, founder), *(other["id"] for other in others)]

        answers = await asyncio.gather(*(act(client, boss, each) for each in ids * 10))

        assert {answer.status_code for answer in answers} <= {200, 204, 404, 409, 503}
        refused = [answer.json()["code"] for answer in answers if answer.status_code == 409]
        assert set(refused) == {"last-admin"}
        active = await superuser.fetchval(
            """SELECT count(*) FROM membership_roles mr JOIN memberships m
               USING (tenant_id, account_id) WHERE role_name = 'admin' AND m.status = 'active'"""
        )
        assert active == 1

    async def test_the_platforms_last_one_stays_too(
        self, client: httpx.AsyncClient, make_person: MakePerson
    ) -> None:
        first = await make_person("root", roles=EVERYTHING)
        second = await make_person("toor", roles=EVERYTHING)
        ids = {each.username: await id_of(client, each) for each in (first, second)}

        one, other = await asyncio.gather(
            demote(client, first, ids["toor"]), demote(client, second, ids["root"])
        )

        assert min(one.status_code, other.status_code) == 200
        assert max(one.status_code, other.status_code) in {401, 403, 409}

    async def test_suspending_all_in_one_bulk_is_refused(
        self, client: httpx.AsyncClient, make_person: MakePerson
    ) -> None:
        founder = await make_person("ada")
        await client.post(
            ROLES, json={"name": "boss", "permissions": ["*:*"]}, headers=founder.headers
        )
        await make_user(client, founder, "boss", "boss")
        boss = await sign_in(client, "boss")
        other = await make_user(client, founder, "grace", "admin")
        rows = [
            {"act": "suspend", "id": each, "reason": "x"}
            for each in (other["id"], await id_of(client, founder))
        ]

        answer = await client.post(
            f"{USERS}/bulk", json={"mode": "all-or-nothing", "rows": rows}, headers=boss.headers
        )

        assert answer.status_code == 409
        assert (answer.json()["row"], answer.json()["cause"]) == (1, "last-admin")
        assert await status_of(client, founder) == 200
