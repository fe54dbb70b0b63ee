import csv
import io

import asyncpg
import httpx
import pytest

from tests.e2e.conftest import Flush, MakePerson, sign_in
from tests.e2e.user.people import (
    EVERYTHING,
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


class TestCreate:
    async def test_generates_a_password_that_works_and_must_be_changed(
        self, client: httpx.AsyncClient, make_person: MakePerson
    ) -> None:
        admin = await make_person("ada")

        answer = await client.post(
            USERS,
            json={"username": "grace", "email": "grace@example.com", "roles": ["developer"]},
            headers=admin.headers,
        )

        assert answer.status_code == 201, answer.text
        made = answer.json()
        assert answer.headers["location"] == f"{USERS}/{made['id']}"
        assert made["roles"] == ["developer"]
        assert made["password_change_required"]
        read = await client.get(answer.headers["location"], headers=admin.headers)
        grace = await sign_in(client, "grace", made["initial_password"])
        assert await status_of(client, grace, "/api/v1/models") == 200
        assert "initial_password" not in read.json()
        assert read.headers["etag"] == answer.headers["etag"]

    async def test_the_same_key_brings_the_same_person(
        self, client: httpx.AsyncClient, make_person: MakePerson
    ) -> None:
        admin = await make_person("ada")
        headers = {**admin.headers, "Idempotency-Key": "once"}
        body = {"username": "grace", "email": "grace@example.com"}

        first = await client.post(USERS, json=body, headers=headers)
        again = await client.post(USERS, json=body, headers=headers)

        assert first.status_code == again.status_code == 201
        assert first.json() == again.json()
        assert again.headers["idempotency-replayed"] == "true"

    @pytest.mark.parametrize(
        ("fields", "status", "code"),
        [
            ({"username": "ADA"}, 409, "username-taken"),
            ({"email": "ADA@example.com"}, 409, "email-taken"),
            ({"password": "short"}, 422, "weak-password"),
            ({"roles": ["nothing-like-it"]}, 404, "role-not-found"),
            ({"roles": ["platform_admin"]}, 403, "beyond-own-rights"),
            ({"username": "no spaces"}, 422, None),
            ({"status": "active"}, 422, None),
        ],
    )
    async def test_what_will_not_do_makes_nobody(
        self,
        client: httpx.AsyncClient,
        make_person: MakePerson,
        fields: dict[str, object],
        status: int,
        code: str | None,
    ) -> None:
        admin = await make_person("ada")

        answer = await client.post(
            USERS,
            json={"username": "grace", "email": "grace@example.com", **fields},
            headers=admin.headers,
        )

        assert answer.status_code == status, answer.text
        assert code is None or answer.json()["code"] == code
        found = await client.get(USERS, headers=admin.headers)
        assert [user["username"] for user in found.json()["items"]] == ["ada"]


class TestFind:
    @pytest.mark.parametrize(
        ("q", "found"),
        [
            ("GRA", ["grace"]),
            ("@example.com", ["grace", "wang", "ada"]),
            ("小明", ["wang"]),
            ("明", ["wang"]),
            ("ÉMILE", ["grace"]),
            ("100%", ["wang"]),
            ("%", ["wang"]),
            ("_", []),
            ("nobody", []),
        ],
    )
    async def test_by_any_part_of_a_name_in_any_script(
        self, client: httpx.AsyncClient, make_person: MakePerson, q: str, found: list[str]
    ) -> None:
        admin = await make_person("ada")
        await make_user(client, admin, "wang", display_name="王小明 100%")
        await make_user(client, admin, "grace", display_name="Émile Grace")

        answer = await client.get(
            USERS, params={"q": q, "include_total": True}, headers=admin.headers
        )

        assert [user["username"] for user in answer.json()["items"]] == found
        assert answer.json()["total"] == len(found)

    async def test_filters_and_pages(
        self, client: httpx.AsyncClient, make_person: MakePerson
    ) -> None:
        admin = await make_person("ada")
        people = [
            await make_user(client, admin, f"p{n}", "auditor" if n % 2 else "user")
            for n in range(5)
        ]
        await client.put(
            f"{USERS}/{people[1]['id']}/suspension", json={"reason": "x"}, headers=admin.headers
        )

        async def names(**params: str | int) -> list[str]:
            answer = await client.get(USERS, params=params, headers=admin.headers)
            assert answer.status_code == 200, answer.text
            return [user["username"] for user in answer.json()["items"]]

        assert await names(role="auditor") == ["p3", "p1"]
        assert await names(status="suspended") == ["p1"]
        assert await names(role="auditor", status="active") == ["p3"]
        first = await client.get(USERS, params={"limit": 4}, headers=admin.headers)
        cursor = first.json()["next_cursor"]
        await make_user(client, admin, "late")
        assert await names(limit=4, cursor=cursor) == ["p0", "ada"]

    async def test_another_tenants_people_are_not_there(
        self, client: httpx.AsyncClient, make_person: MakePerson
    ) -> None:
        admin = await make_person("ada", roles=EVERYTHING)
        grace = await make_user(client, admin, "grace")
        await make_tenant(client, admin, "other", admin_id=grace["id"])
        stranger = await enter(client, "grace", "other")
        await make_user(client, stranger, "hedy")
        ada_id = await id_of(client, admin)

        listed = await client.get(USERS, headers=stranger.headers)
        searched = await client.get(USERS, params={"q": "ada"}, headers=stranger.headers)
        counted = await client.get(
            USERS, params={"q": "e", "include_total": True}, headers=stranger.headers
        )
        export = await client.get(f"{USERS}/export", headers=stranger.headers)

        assert {user["username"] for user in listed.json()["items"]} == {"grace", "hedy"}
        assert searched.json()["items"] == []
        assert counted.json()["total"] == 2
        assert "ada@" not in export.text
        attempts = [
            await client.get(f"{USERS}/{ada_id}", headers=stranger.headers),
            await client.put(f"{USERS}/{ada_id}", json={}, headers=stranger.headers),
            await client.delete(f"{USERS}/{ada_id}", headers=stranger.headers),
            await client.put(
                f"{USERS}/{ada_id}/suspension", json={"reason": "x"}, headers=stranger.headers
            ),
            await client.post(
                f"{USERS}/{ada_id}/password-reset", json={}, headers=stranger.headers
            ),
            await assign(client, stranger, ada_id, "user"),
        ]
        assert [(each.status_code, each.json()["code"]) for each in attempts] == [
            (404, "member-not-found")
        ] * len(attempts)

    async def test_the_second_line_holds_where_the_filter_is_gone(
        self,
        client: httpx.AsyncClient,
        make_person: MakePerson,
        servers: "object",
        worker_database: "object",
    ) -> None:
        admin = await make_person("ada", roles=EVERYTHING)
        tenant = await make_tenant(client, admin, "other")
        connection = await servers.connect(worker_database.name, "maas_app")  # type: ignore[attr-defined]  # fixtures of the root
        try:
            async with connection.transaction():
                await connection.execute("SELECT set_config('maas.tenant_id', $1, true)", tenant)
                rows = [
                    await connection.fetchval(
                        f"SELECT count(*) FROM {table} WHERE tenant_id <> $1", tenant
                    )
                    for table in ("memberships", "membership_roles", "roles")
                ]
                found = await connection.fetch(
                    "SELECT * FROM member_search('ada', NULL, NULL, NULL, NULL, 10)"
                )
            with pytest.raises(asyncpg.PostgresError):
                await connection.fetch(
                    "SELECT * FROM member_search(NULL, NULL, NULL, NULL, NULL, 10)"
                )
        finally:
            await connection.close()

        assert rows == [0, 0, 0]
        assert found == []


class TestChange:
    async def test_of_own_data_with_an_etag(
        self, client: httpx.AsyncClient, make_person: MakePerson
    ) -> None:
        admin = await make_person("ada")
        grace = await make_user(client, admin, "grace")
        path = f"{USERS}/{grace['id']}"
        read = await client.get(path, headers=admin.headers)

        changed = await client.put(
            path,
            json={"display_name": "格蕾丝", "email": "g@example.com"},
            headers={**admin.headers, "If-Match": read.headers["etag"]},
        )
        late = await client.put(
            path,
            json={"display_name": None},
            headers={**admin.headers, "If-Match": read.headers["etag"]},
        )
        taken = await client.put(path, json={"email": "ada@example.com"}, headers=admin.headers)

        assert (changed.status_code, late.status_code, taken.status_code) == (200, 412, 409)
        current = await client.get(path, headers=admin.headers)
        assert (current.json()["display_name"], current.json()["email"]) == (
            "格蕾丝",
            "g@example.com",
        )
        assert current.headers["etag"] == changed.headers["etag"] != read.headers["etag"]

    async def test_a_helper_cannot_take_over_an_administrator(
        self, client: httpx.AsyncClient, make_person: MakePerson
    ) -> None:
        admin = await make_person("ada")
        await client.post(
            "/api/v1/admin/roles",
            json={
                "name": "helper",
                "permissions": ["user:*", "role:grant", "inference:*", "model:read"],
            },
            headers=admin.headers,
        )
        await make_user(client, admin, "help", "helper")
        grace = await make_user(client, admin, "grace", "user")
        helper = await sign_in(client, "help")
        ada = f"{USERS}/{await id_of(client, admin)}"

        attempts = [
            await client.post(f"{ada}/password-reset", json={}, headers=helper.headers),
            await client.put(ada, json={"email": "evil@example.com"}, headers=helper.headers),
            await client.put(f"{ada}/suspension", json={"reason": "x"}, headers=helper.headers),
            await client.delete(ada, headers=helper.headers),
            await assign(client, helper, await id_of(client, admin), "user"),
            await assign(client, helper, grace["id"], "user", "admin"),
        ]

        assert {(each.status_code, each.json()["code"]) for each in attempts} == {
            (403, "beyond-own-rights")
        }
        fine = await client.post(
            f"{USERS}/{grace['id']}/password-reset", json={}, headers=helper.headers
        )
        assert fine.status_code == 200

    async def test_nobody_changes_their_own_access(
        self, client: httpx.AsyncClient, make_person: MakePerson
    ) -> None:
        admin = await make_person("ada", roles=EVERYTHING)
        own_id = await id_of(client, admin)
        own = f"{USERS}/{own_id}"

        attempts = [
            await assign(client, admin, own_id, "admin"),
            await client.put(f"{own}/suspension", json={"reason": "x"}, headers=admin.headers),
            await client.delete(f"{own}/suspension", headers=admin.headers),
            await client.delete(own, headers=admin.headers),
            await client.post(f"{own}/password-reset", json={}, headers=admin.headers),
        ]

        assert {(each.status_code, each.json()["code"]) for each in attempts} == {
            (403, "own-roles")
        }

    async def test_roles_want_if_match(
        self, client: httpx.AsyncClient, make_person: MakePerson
    ) -> None:
        admin = await make_person("ada")
        grace = await make_user(client, admin, "grace")
        path = f"{USERS}/{grace['id']}/roles"

        without = await client.put(path, json={"roles": ["auditor"]}, headers=admin.headers)
        old = await client.put(
            path, json={"roles": ["auditor"]}, headers={**admin.headers, "If-Match": '"0"'}
        )
        fine = await assign(client, admin, grace["id"], "auditor", "developer")

        assert (without.status_code, old.status_code, fine.status_code) == (428, 412, 200)
        assert fine.json()["roles"] == ["auditor", "developer"]

    async def test_an_account_of_two_tenants_is_the_platforms(
        self, client: httpx.AsyncClient, make_person: MakePerson
    ) -> None:
        platform = await make_person("root", roles=EVERYTHING)
        admin = await make_person("ada")
        grace = await make_user(client, admin, "grace")
        await make_tenant(client, platform, "other", admin_id=grace["id"])
        path = f"{USERS}/{grace['id']}"

        attempts = [
            await client.put(path, json={"email": "e@example.com"}, headers=admin.headers),
            await client.post(f"{path}/password-reset", json={}, headers=admin.headers),
        ]
        allowed = await client.post(f"{path}/password-reset", json={}, headers=platform.headers)

        assert {(each.status_code, each.json()["code"]) for each in attempts} == {
            (403, "account-elsewhere")
        }
        assert allowed.status_code == 200


class TestRemove:
    async def test_the_account_goes_with_its_only_place_and_the_trail_stays(
        self,
        client: httpx.AsyncClient,
        make_person: MakePerson,
        superuser: "asyncpg.Connection[asyncpg.Record]",
        flush: Flush,
    ) -> None:
        admin = await make_person("ada")
        grace = await make_user(client, admin, "grace")
        person = await sign_in(client, "grace")

        answer = await client.delete(f"{USERS}/{grace['id']}", headers=admin.headers)

        assert answer.status_code == 204
        assert await status_of(client, person) == 401
        assert (
            await superuser.fetchval("SELECT count(*) FROM accounts WHERE username = 'grace'") == 0
        )
        await flush()
        logs = await client.get(
            "/api/v1/audit/logs",
            params={"resource_id": grace["id"], "action": "user.*"},
            headers=admin.headers,
        )
        assert [event["action"] for event in logs.json()["items"]] == [
            "user.removed",
            "user.created",
        ]
        await make_user(client, admin, "grace")

    async def test_an_account_with_another_place_stays(
        self, client: httpx.AsyncClient, make_person: MakePerson
    ) -> None:
        admin = await make_person("ada", roles=EVERYTHING)
        grace = await make_user(client, admin, "grace")
        await make_tenant(client, admin, "other", admin_id=grace["id"])
        here = await enter(client, "grace", "default")
        there = await enter(client, "grace", "other")

        answer = await client.delete(f"{USERS}/{grace['id']}", headers=admin.headers)

        assert answer.status_code == 204
        assert (await status_of(client, here), await status_of(client, there)) == (401, 200)


class TestReset:
    async def test_brings_a_new_password_and_ends_all_sessions(
        self, client: httpx.AsyncClient, make_person: MakePerson
    ) -> None:
        admin = await make_person("ada")
        grace = await make_user(client, admin, "grace")
        person = await sign_in(client, "grace")

        answer = await client.post(
            f"{USERS}/{grace['id']}/password-reset", json={}, headers=admin.headers
        )

        assert answer.status_code == 200
        assert await status_of(client, person) == 401
        old = await client.post(
            "/api/v1/auth/login", json={"username": "grace", "password": PASSWORD}
        )
        assert old.status_code == 401
        again = await sign_in(client, "grace", answer.json()["initial_password"])
        assert await status_of(client, again) == 200

    async def test_reaches_any_account_for_who_runs_the_platform(
        self, client: httpx.AsyncClient, make_person: MakePerson
    ) -> None:
        platform = await make_person("root", roles=EVERYTHING)
        grace = await make_user(client, platform, "grace")
        await make_tenant(client, platform, "other", admin_id=grace["id"])
        there = await enter(client, "grace", "other")
        hedy = await make_user(client, there, "hedy")
        admin = await make_person("ada", roles=("admin",))
        path = f"{USERS}/{hedy['id']}/password-reset"

        refused = await client.post(path, json={}, headers=admin.headers)
        allowed = await client.post(path, json={}, headers=platform.headers)

        assert (refused.status_code, allowed.status_code) == (404, 200)


class TestExport:
    async def test_streams_people_that_no_spreadsheet_runs(
        self, client: httpx.AsyncClient, make_person: MakePerson
    ) -> None:
        admin = await make_person("ada")
        await make_user(client, admin, "evil", display_name='=HYPERLINK("http://x","y")')
        await make_user(client, admin, "wang", display_name='王, "小明"')

        answer = await client.get(f"{USERS}/export", headers=admin.headers)

        assert answer.headers["content-type"].startswith("text/csv")
        rows = list(csv.DictReader(io.StringIO(answer.text)))
        assert [row["username"] for row in rows] == ["wang", "evil", "ada"]
        assert rows[0]["display_name"] == '王, "小明"'
        assert rows[1]["display_name"].startswith("'=")

    async def test_takes_the_filters_of_the_list(
        self, client: httpx.AsyncClient, make_person: MakePerson
    ) -> None:
        admin = await make_person("ada")
        await make_user(client, admin, "wang")

        answer = await client.get(f"{USERS}/export", params={"q": "WAN"}, headers=admin.headers)

        assert len(list(csv.DictReader(io.StringIO(answer.text)))) == 1


async def test_who_lacks_the_permission_is_refused(
    client: httpx.AsyncClient, make_person: MakePerson
) -> None:
    await make_person("ada")
    auditor = await make_person("aud", roles=("auditor",))

    reads = await client.get(USERS, headers=auditor.headers)
    writes = await client.post(
        USERS, json={"username": "x", "email": "x@example.com"}, headers=auditor.headers
    )

    assert (reads.status_code, writes.status_code) == (200, 403)
