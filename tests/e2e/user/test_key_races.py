"""Keys, their holders and roles, changed by several at once."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from typing import Any, TypeAlias

import asyncpg
import httpx
import pytest

from maas.shared.domain.ids import DEFAULT_TENANT_ID
from tests.conftest import WorkerDatabase
from tests.e2e.conftest import MakePerson, sign_in
from tests.e2e.user.keys import KEYS, SERVICES, ask, make_key, make_service, with_key
from tests.e2e.user.people import ROLES, USERS, assign, id_of, make_user
from tests.servers import Servers

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(60)]

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

ROUNDS = 4


@pytest.fixture
async def other(servers: Servers, worker_database: WorkerDatabase) -> AsyncIterator[Connection]:
    """A second connection past all rules, that holds what the requests then wait for."""
    connection = await servers.connect(worker_database.name)
    yield connection
    await connection.close()


async def waits(superuser: Connection, act: Awaitable[httpx.Response]) -> "asyncio.Task[Any]":
    """Begin a request, and return once it waits for a lock; it must not end before."""
    task = asyncio.ensure_future(act)
    while not await superuser.fetchval(
        "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        " AND datname = current_database())"
    ):
        assert not task.done(), f"it waited for nobody: {task.result().text}"
        await asyncio.sleep(0.01)
    return task


@pytest.mark.parametrize("act", ["PUT ", "POST /rotate", "DELETE "])
async def test_a_holder_is_locked_before_its_keys(
    client: httpx.AsyncClient,
    make_person: MakePerson,
    superuser: Connection,
    other: Connection,
    act: str,
) -> None:
    ada = await make_person("ada")
    farm = await make_service(client, ada, "farm", "user")
    keys = f"{SERVICES}/{farm['id']}/api-keys"
    made = await make_key(client, ada, "model:read", "inference:*", at=keys)
    held = other.transaction()
    await held.start()
    await other.execute("SELECT FROM service_accounts WHERE id = $1::uuid FOR UPDATE", farm["id"])

    method, _, more = act.partition(" ")
    body: dict[str, object] | None = None if method == "DELETE" else {}
    task = await waits(
        superuser,
        client.request(method, f"{keys}/{made['id']}{more}", json=body, headers=ada.headers),
    )
    # As whoever suspends the service account does next: the two must not wait for each other.
    await other.execute("SELECT FROM api_keys WHERE id = $1::uuid FOR UPDATE NOWAIT", made["id"])
    await held.rollback()

    assert (await task).status_code in {200, 204}


async def test_keys_are_ended_before_sessions(
    client: httpx.AsyncClient, make_person: MakePerson, superuser: Connection, other: Connection
) -> None:
    ada = await make_person("ada")
    made = await make_key(client, ada)
    narrowing = other.transaction()
    await narrowing.start()
    await other.execute("SELECT FROM sessions FOR UPDATE")

    task = await waits(
        superuser,
        client.post("/api/v1/auth/logout-all?revoke_api_keys=true", headers=ada.headers),
    )
    # Whoever narrows a role has locked the keys first as well, and so never meets this halfway.
    with pytest.raises(asyncpg.LockNotAvailableError):
        await superuser.execute("SELECT FROM api_keys FOR UPDATE NOWAIT")
    await narrowing.rollback()

    assert (await task).status_code == 204
    assert await ask(client, made["key"]) == 401


async def test_a_role_that_is_being_narrowed_is_given_only_afterwards(
    client: httpx.AsyncClient,
    make_person: MakePerson,
    superuser: Connection,
    other: Connection,
) -> None:
    ada = await make_person("ada")
    reader = {"name": "reader", "permissions": ["model:read", "user:read"]}
    await client.post(ROLES, json=reader, headers=ada.headers)
    grace = await make_user(client, ada, "grace")
    narrowing = other.transaction()
    await narrowing.start()
    await other.execute(
        "UPDATE roles SET permissions = '{model:read}' WHERE tenant_id = $1 AND name = 'reader'",
        DEFAULT_TENANT_ID,
    )

    task = await waits(superuser, assign(client, ada, grace["id"], "user", "reader"))
    await narrowing.commit()

    assert (await task).status_code == 200
    key = (await make_key(client, await sign_in(client, "grace")))["key"]
    assert await ask(client, key) == 200


async def test_nobody_who_changes_access_waits_in_a_circle(
    client: httpx.AsyncClient, make_person: MakePerson
) -> None:
    ada = await make_person("ada")
    await client.post(
        ROLES,
        json={"name": "reader", "permissions": ["model:read", "user:read"]},
        headers=ada.headers,
    )
    grace = await make_user(client, ada, "grace")
    farm = await make_service(client, ada, "farm", "reader")
    place, headers = f"{SERVICES}/{farm['id']}", {**ada.headers, "If-Match": "*"}
    made = await make_key(client, ada, "model:read", "user:read", at=f"{place}/api-keys")
    last = await make_key(client, ada, "model:read", at=f"{place}/api-keys")

    async def put(path: str, **body: object) -> httpx.Response:
        return await client.put(path, json=body, headers=headers)

    for number in range(ROUNDS):
        rights = ["model:read", "user:read"] if number % 2 else ["model:read"]
        answers = await asyncio.gather(
            put(f"{ROLES}/reader", permissions=["model:read", "user:read"]),
            put(f"{USERS}/{grace['id']}/roles", roles=["user", "reader"][: 1 + number % 2]),
            put(place, roles=["user", "reader"]),
            put(place, status="suspended"),
            put(f"{place}/api-keys/{made['id']}", scopes=rights),
            put(f"{place}/api-keys/{last['id']}", name=f"round {number}"),
            put(f"{ROLES}/reader", permissions=["model:read", "user:read", "audit:read"]),
            client.post(
                f"{place}/api-keys",
                json={"name": "more", "scopes": ["model:read"]},
                headers=ada.headers,
            ),
            put(place, status="active"),
        )
        assert {answer.status_code for answer in answers} <= {200, 201}, [
            answer.text for answer in answers if answer.status_code > 201
        ]


class TestLimits:
    async def test_nobody_holds_more_keys_by_making_them_at_once(
        self,
        client: httpx.AsyncClient,
        make_person: MakePerson,
        superuser: Connection,
        other: Connection,
    ) -> None:
        ada = await make_person("ada")
        made = await make_key(client, ada)
        more = (
            "INSERT INTO api_keys SELECT (jsonb_populate_record(k, jsonb_build_object("
            " 'id', gen_random_uuid(), 'public_id', 'x' || n))).*"
            " FROM api_keys k, generate_series($2::int, $3::int) n WHERE k.id = $1::uuid"
        )
        await superuser.execute(more, made["id"], 1, 98)
        # Somebody else's hundredth, with the holder locked as everybody does who makes one.
        making = other.transaction()
        await making.start()
        await other.execute(
            "SELECT FROM accounts WHERE id = $1::uuid FOR UPDATE", await id_of(client, ada)
        )
        await other.execute(more, made["id"], 99, 99)

        body = {"name": "one more", "scopes": ["model:read"]}
        task = await waits(superuser, client.post(KEYS, json=body, headers=ada.headers))
        await making.commit()

        answer = await task
        assert (answer.status_code, answer.json()["code"]) == (409, "too-many-api-keys")

    async def test_a_tenant_has_so_many_service_accounts(
        self, client: httpx.AsyncClient, make_person: MakePerson, superuser: Connection
    ) -> None:
        ada = await make_person("ada")
        first = await make_service(client, ada, "farm")
        await superuser.execute(
            "INSERT INTO service_accounts SELECT (jsonb_populate_record(s, jsonb_build_object("
            " 'id', gen_random_uuid(), 'name', 'x' || n))).*"
            " FROM service_accounts s, generate_series(1, 498) n WHERE s.id = $1::uuid",
            first["id"],
        )

        answers = await asyncio.gather(
            *(
                client.post(SERVICES, json={"name": f"y{n}", "roles": []}, headers=ada.headers)
                for n in range(4)
            )
        )

        assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409]
        refused = {a.json()["code"] for a in answers if a.status_code == 409}
        assert refused == {"too-many-service-accounts"}


async def test_a_session_that_ended_while_it_waited_makes_no_key(
    client: httpx.AsyncClient,
    make_person: MakePerson,
    superuser: Connection,
    other: Connection,
) -> None:
    ada = await make_person("ada")
    account_id = await id_of(client, ada)
    ending = other.transaction()
    await ending.start()
    await other.execute("SELECT FROM accounts WHERE id = $1::uuid FOR UPDATE", account_id)

    body = {"name": "late", "scopes": ["model:read"]}
    task = await waits(superuser, client.post(KEYS, json=body, headers=ada.headers))
    await other.execute(
        "UPDATE sessions SET revoked_at = clock_timestamp(), revoked_reason = 'logout-all'"
        " WHERE account_id = $1::uuid",
        account_id,
    )
    await ending.commit()

    assert (await task).status_code == 401
    assert await superuser.fetchval("SELECT count(*) FROM api_keys") == 0


@pytest.mark.parametrize("act", ["POST", "PUT /{id}", "POST /{id}/rotate", "DELETE /{id}"])
async def test_a_secret_that_was_replaced_while_it_waited_manages_no_keys(
    client: httpx.AsyncClient,
    make_person: MakePerson,
    superuser: Connection,
    other: Connection,
    act: str,
) -> None:
    ada = await make_person("ada")
    made = await make_key(client, ada, "api_key:write", "model:read")
    assert await ask(client, made["key"]) == 200
    rotating = other.transaction()
    await rotating.start()
    await other.execute(
        "SELECT FROM accounts WHERE id = $1::uuid FOR UPDATE", await id_of(client, ada)
    )

    method, _, more = act.partition(" ")
    body: dict[str, object] | None = {"name": "late", "scopes": ["model:read"]}
    if method == "DELETE":
        body = None
    elif more.endswith("/rotate"):
        body = {"grace_seconds": 0}
    path, headers = KEYS + more.format(id=made["id"]), with_key(made["key"])
    task = await waits(superuser, client.request(method, path, json=body, headers=headers))
    # As its owner does who knows that it leaked.
    await other.execute(
        "UPDATE api_keys SET previous_hash = secret_hash, secret_hash = sha256('new'),"
        " previous_valid_until = clock_timestamp() + interval '1 hour',"
        " rotated_at = clock_timestamp(), is_secret_used = false, version = version + 1,"
        " auth_version = auth_version + 1"
    )
    before = await other.fetchrow("SELECT * FROM api_keys")
    await rotating.commit()

    answer = await task
    assert (answer.status_code, answer.json()["code"]) == (401, "invalid-api-key")
    assert await superuser.fetch("SELECT * FROM api_keys") == [before]
