"""Leaving the platform, by one's own wish, and what is left of one then."""

from collections.abc import Awaitable, Callable

import asyncpg
import httpx
import pytest

from maas.audit.wiring import erase_personal_fields
from maas.shared.infrastructure.clock import SystemClock
from maas.shared.infrastructure.settings import Settings
from tests.e2e.conftest import Flush, MakePerson, Person, sign_in
from tests.e2e.user.people import (
    EVERYTHING,
    PROFILE,
    TENANTS,
    USERS,
    enter,
    make_tenant,
    make_user,
    status_of,
)
from tests.factories.accounts import PASSWORD

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(60)]

Superuser = asyncpg.Connection
DEACTIVATION, DELETION = "/api/v1/users/deactivation", "/api/v1/users/deletion"
BOTH = pytest.mark.parametrize("path", [DEACTIVATION, DELETION])

Settle = Callable[[], Awaitable[None]]


@pytest.fixture
def settle(flush: Flush, settings: Settings, superuser: Superuser) -> Settle:
    """Let the worker's ticks go by: flush, erase, flush."""

    async def run() -> None:
        for _ in range(2):
            await superuser.execute(
                "UPDATE audit_outbox SET created_at = created_at - interval '5 s'"
            )
            await flush()
            await erase_personal_fields(settings.database, clock=SystemClock())

    return run


async def leave(
    client: httpx.AsyncClient, person: Person, path: str, password: str = PASSWORD
) -> httpx.Response:
    return await client.post(path, json={"current_password": password}, headers=person.headers)


async def put(
    client: httpx.AsyncClient, admin: Person, path: str, body: dict[str, object]
) -> httpx.Response:
    return await client.put(path, json=body, headers=admin.headers)


class TestLeaving:
    @BOTH
    async def test_ends_every_session_and_lets_nobody_in_again(
        self, client: httpx.AsyncClient, make_person: MakePerson, path: str
    ) -> None:
        admin = await make_person("ada")
        await make_user(client, admin, "grace")
        here, there = await sign_in(client, "grace"), await sign_in(client, "grace")

        answer = await leave(client, here, path)

        assert answer.status_code == 204, answer.text
        assert [await status_of(client, each) for each in (here, there)] == [401, 401]
        again = await client.post(
            "/api/v1/auth/login", json={"username": "grace", "password": PASSWORD}
        )
        assert (again.status_code, again.json()["code"]) == (401, "invalid-credentials")

    @BOTH
    async def test_takes_the_password(
        self, client: httpx.AsyncClient, make_person: MakePerson, path: str
    ) -> None:
        await make_user(client, await make_person("ada"), "grace")
        grace = await sign_in(client, "grace")

        answer = await leave(client, grace, path, "not the passphrase")

        assert answer.json()["code"] == "wrong-password"
        assert await status_of(client, grace) == 200

    @BOTH
    async def test_is_not_for_the_last_administrator(
        self, client: httpx.AsyncClient, make_person: MakePerson, path: str
    ) -> None:
        admin = await make_person("ada")
        await make_user(client, admin, "grace")

        answer = await leave(client, admin, path)

        assert (answer.status_code, answer.json()["code"]) == (409, "last-admin")
        assert await status_of(client, admin) == 200

    @BOTH
    async def test_is_not_for_the_last_administrator_of_another_tenant(
        self, client: httpx.AsyncClient, make_person: MakePerson, path: str
    ) -> None:
        platform = await make_person("ada", roles=EVERYTHING)
        grace = await make_user(client, platform, "grace")
        await make_tenant(client, platform, "lab", admin_id=grace["id"])
        person = await enter(client, "grace", "default")

        answer = await leave(client, person, path)

        assert (answer.status_code, answer.json()["code"]) == (409, "last-admin")


class TestDeactivated:
    async def test_is_reactivated_by_the_home_tenants_administrator(
        self, client: httpx.AsyncClient, make_person: MakePerson
    ) -> None:
        admin = await make_person("ada")
        made = await make_user(client, admin, "grace")
        await leave(client, await sign_in(client, "grace"), DEACTIVATION)
        shown = await client.get(f"{USERS}/{made['id']}", headers=admin.headers)

        answer = await client.delete(f"{USERS}/{made['id']}/deactivation", headers=admin.headers)

        assert shown.json()["account_status"] == "deactivated"
        assert answer.status_code == 204, answer.text
        await sign_in(client, "grace")

    async def test_elsewhere_too_is_the_platforms_to_reactivate(
        self, client: httpx.AsyncClient, make_person: MakePerson
    ) -> None:
        platform, admin = await make_person("ada", roles=EVERYTHING), await make_person("alan")
        made = await make_user(client, admin, "grace")
        lab = await make_tenant(client, platform, "lab")
        path = f"{TENANTS}/{lab}/members/{made['id']}"
        assert (await put(client, platform, path, {"roles": ["user"]})).status_code == 200
        await leave(client, await enter(client, "grace", "default"), DEACTIVATION)
        route = f"{USERS}/{made['id']}/deactivation"

        refused = await client.delete(route, headers=admin.headers)
        done = await client.delete(route, headers=platform.headers)

        assert refused.json()["code"] == "account-elsewhere"
        assert done.status_code == 204
        await enter(client, "grace", "lab")

    async def test_holders_do_not_count_as_administrators(
        self, client: httpx.AsyncClient, make_person: MakePerson
    ) -> None:
        admin, other = await make_person("ada"), await make_person("alan")
        assert (await leave(client, other, DEACTIVATION)).status_code == 204

        answer = await leave(client, admin, DEACTIVATION)

        assert answer.json()["code"] == "last-admin"


class TestDeleted:
    async def test_is_gone_and_so_is_the_name_in_the_trail(
        self,
        client: httpx.AsyncClient,
        make_person: MakePerson,
        settle: Settle,
        superuser: Superuser,
    ) -> None:
        admin = await make_person("ada")
        made = await make_user(client, admin, "grace")
        grace = await sign_in(client, "grace")
        await settle()
        named = await superuser.fetchval(
            "SELECT count(*) FROM audit_personal WHERE actor_name = 'grace'"
        )

        await leave(client, grace, DELETION)
        await settle()

        query = f"/api/v1/audit/logs?actor_id={made['id']}"
        events = (await client.get(query, headers=admin.headers)).json()["items"]
        erased = await client.get(
            "/api/v1/audit/logs?action=audit.personal_erased", headers=admin.headers
        )
        assert named >= 1
        assert {event["action"] for event in events} >= {"auth.login", "account.deleted"}
        assert {(e["actor"]["name"], e["address"], e["user_agent"]) for e in events} == {
            (None, None, None)
        }
        assert (
            await superuser.fetchval(
                "SELECT count(*) FROM audit_personal p JOIN audit_log l USING (event_id)"
                " WHERE l.actor_id = $1::text::uuid",
                made["id"],
            )
            == 0
        )
        assert [e["changes"]["after"] for e in erased.json()["items"]] == [{"erased_events": named}]
        assert await superuser.fetchval("SELECT count(*) FROM accounts") == 1

    async def test_leaves_an_event_in_the_trail_of_each_tenant(
        self,
        client: httpx.AsyncClient,
        make_person: MakePerson,
        settle: Settle,
        superuser: Superuser,
    ) -> None:
        platform = await make_person("ada", roles=EVERYTHING)
        made = await make_user(client, platform, "grace")
        lab = await make_tenant(client, platform, "lab")
        path = f"{TENANTS}/{lab}/members/{made['id']}"
        await put(client, platform, path, {"roles": ["user"]})

        answer = await leave(client, await enter(client, "grace", "lab"), DELETION)
        await settle()

        rows = await superuser.fetch(
            "SELECT tenant_id::text AS id FROM audit_log WHERE action = 'account.deleted'"
        )
        assert answer.status_code == 204, answer.text
        assert len(rows) == 2
        assert lab in {row["id"] for row in rows}

    async def test_by_an_administrator_is_forgotten_too(
        self,
        client: httpx.AsyncClient,
        make_person: MakePerson,
        settle: Settle,
        superuser: Superuser,
    ) -> None:
        admin = await make_person("ada")
        made = await make_user(client, admin, "grace")
        await sign_in(client, "grace")

        await client.delete(f"{USERS}/{made['id']}", headers=admin.headers)
        await settle()

        query = "SELECT count(*) FROM audit_personal WHERE actor_name = $1"
        assert await superuser.fetchval(query, "grace") == 0
        assert await superuser.fetchval(query, "ada") > 0


class TestHome:
    async def test_is_moved_by_the_platform_to_a_tenant_of_theirs(
        self, client: httpx.AsyncClient, make_person: MakePerson
    ) -> None:
        platform, admin = await make_person("ada", roles=EVERYTHING), await make_person("alan")
        made = await make_user(client, admin, "grace")
        lab = await make_tenant(client, platform, "lab")
        path, body = f"{USERS}/{made['id']}", {"home_tenant_id": lab}

        stranger = await put(client, platform, path, dict(body))
        member = f"{TENANTS}/{lab}/members/{made['id']}"
        await put(client, platform, member, {"roles": ["user"]})
        owner = await put(client, await enter(client, "grace", "lab"), path, dict(body))
        refused = await put(client, admin, path, dict(body))
        done = await put(client, platform, path, dict(body))

        assert (stranger.status_code, stranger.json()["code"]) == (409, "not-a-home")
        assert owner.status_code == 403
        assert refused.status_code == 403
        assert (done.status_code, done.json()["home_tenant_id"]) == (200, lab)

    async def test_is_not_a_tenants_own_to_give_away(
        self, client: httpx.AsyncClient, make_person: MakePerson
    ) -> None:
        platform, admin = await make_person("ada", roles=EVERYTHING), await make_person("alan")
        made = await make_user(client, admin, "grace")
        lab = await make_tenant(client, platform, "lab")

        answer = await put(client, admin, f"{USERS}/{made['id']}", {"home_tenant_id": lab})

        assert (answer.status_code, answer.json()["code"]) == (403, "platform-only")


class TestSameAgain:
    async def test_of_ones_own_profile_leaves_the_version(
        self,
        client: httpx.AsyncClient,
        make_person: MakePerson,
        settle: Settle,
        superuser: Superuser,
    ) -> None:
        ada = await make_person("ada")
        first = await put(client, ada, PROFILE, {"display_name": "Ada"})

        again = await put(client, ada, PROFILE, {"display_name": "Ada"})
        nothing = await put(client, ada, PROFILE, {})
        await settle()

        assert first.json() == again.json() == nothing.json()
        assert first.headers["etag"] == again.headers["etag"] == nothing.headers["etag"]
        # Each was acknowledged, so each is in the trail; the first alone says what changed.
        rows = await superuser.fetch(
            "SELECT payload FROM audit_log WHERE action = 'profile.updated' ORDER BY occurred_at"
        )
        assert [b'"fields":["display_name"]' in row["payload"] for row in rows] == [
            True, False, False,
        ]  # fmt: skip

    async def test_of_a_members_address_leaves_it_verified(
        self, client: httpx.AsyncClient, make_person: MakePerson, superuser: Superuser
    ) -> None:
        admin = await make_person("ada")
        made = await make_user(client, admin, "grace")
        await superuser.execute("UPDATE accounts SET email_verified_at = now()")
        path = f"{USERS}/{made['id']}"

        same = await put(client, admin, path, {"email": "grace@example.com"})
        kept = await client.get(PROFILE, headers=(await sign_in(client, "grace")).headers)
        moved = await put(client, admin, path, {"email": "hopper@example.com"})
        lost = await client.get(PROFILE, headers=(await sign_in(client, "grace")).headers)

        assert same.json()["updated_at"] == made["updated_at"]
        assert moved.json()["updated_at"] > made["updated_at"]
        assert [kept.json()["email_verified"], lost.json()["email_verified"]] == [True, False]
