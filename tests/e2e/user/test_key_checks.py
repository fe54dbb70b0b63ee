"""How keys are checked when servers are away, and how their use is noted."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import asyncpg
import httpx
import pytest

from maas.shared.application.ports import InvalidApiKeyError
from maas.shared.domain.call import Call, serving
from maas.shared.infrastructure.database import Database
from maas.shared.infrastructure.redis import RedisGate
from maas.user.application.admin_ports import SessionEffects
from maas.user.application.ports import KeyMark
from maas.user.infrastructure.admin_sessions import RedisSessionMarks
from maas.user.infrastructure.key_authenticator import KeyAuthenticator
from maas.user.infrastructure.key_uses import KeyUses
from maas.user.infrastructure.sessions import SETTLING_SECONDS, key_entry
from tests.conftest import MakeSettings
from tests.e2e.conftest import MakePerson, serving_app
from tests.e2e.user.keys import KEYS, ask, make_key
from tests.factories.keys import seeded_key
from tests.fakes.recorder import FakeRecorder
from tests.own_valkey import OwnValkey

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(60)]

TRIES = 5
NOBODY_THERE = "redis://127.0.0.1:1/0"


class TestWithoutRedis:
    @pytest.fixture
    async def alone(self, make_settings: MakeSettings) -> AsyncIterator[httpx.AsyncClient]:
        settings = make_settings(redis={"url": NOBODY_THERE, "broker_url": NOBODY_THERE})
        async with serving_app(settings) as client:
            yield client

    async def test_postgresql_tells(
        self, alone: httpx.AsyncClient, client: httpx.AsyncClient, make_person: MakePerson
    ) -> None:
        ada = await make_person("ada")
        made, other = await make_key(client, ada), await make_key(client, ada)
        assert await ask(alone, made["key"]) == 200

        revoked = await client.delete(f"{KEYS}/{made['id']}", headers=ada.headers)

        assert revoked.status_code == 204
        assert await ask(alone, made["key"]) == 401
        assert await ask(alone, other["key"]) == 200

    async def test_whoever_revokes_without_redis_is_heard_by_those_who_have_it(
        self, alone: httpx.AsyncClient, client: httpx.AsyncClient, make_person: MakePerson
    ) -> None:
        ada = await make_person("ada")
        made = await make_key(client, ada)
        assert await ask(client, made["key"]) == 200

        revoked = await alone.delete(f"{KEYS}/{made['id']}", headers=ada.headers)

        assert revoked.status_code == 204
        assert await ask(client, made["key"]) == 401


class TestLastUse:
    async def test_is_noted_to_the_minute_and_waits_for_nobody(
        self,
        client: httpx.AsyncClient,
        make_person: MakePerson,
        database: Database,
        redis_gate: RedisGate,
        superuser: "asyncpg.Connection[asyncpg.Record]",
    ) -> None:
        ada = await make_person("ada")
        made = await make_key(client, ada)
        uses = KeyUses(database)
        keys = KeyAuthenticator(redis=redis_gate, database=database, uses=uses)

        async def last_used() -> asyncpg.Record:
            row = await superuser.fetchrow(
                "SELECT last_used_at, last_used_at = date_trunc('minute', last_used_at)"
                " AS is_whole FROM api_keys WHERE id = $1::uuid",
                made["id"],
            )
            assert row is not None
            return row

        await keys.authenticate(made["key"])
        assert (await last_used())["last_used_at"] is None
        transaction = superuser.transaction()
        await transaction.start()
        await superuser.execute("SELECT FROM api_keys WHERE id = $1::uuid FOR UPDATE", made["id"])
        await uses.tell()
        await transaction.rollback()
        assert (await last_used())["last_used_at"] is None

        # A busy machine may take longer than it waits, and is asked again.
        for _ in range(TRIES):
            await uses.tell()
            if not uses._untold:
                break

        assert (await last_used())["is_whole"]
        read = await client.get(f"{KEYS}/{made['id']}", headers=ada.headers)
        assert read.json()["last_used_at"] is not None
        assert read.headers["etag"] == '"1"', "being used is no change"

    async def test_a_key_that_is_gone_is_let_go_of(
        self, client: httpx.AsyncClient, make_person: MakePerson, database: Database
    ) -> None:
        ada = await make_person("ada")
        made = await make_key(client, ada)
        uses = KeyUses(database)
        uses.note(made["id"])
        await client.delete(f"{KEYS}/{made['id']}", headers=ada.headers)

        for _ in range(TRIES):
            await uses.tell()

        assert not uses._untold

    async def test_a_refused_address_is_no_use(
        self,
        client: httpx.AsyncClient,
        make_person: MakePerson,
        database: Database,
        redis_gate: RedisGate,
        superuser: "asyncpg.Connection[asyncpg.Record]",
    ) -> None:
        ada = await make_person("ada")
        made = await make_key(client, ada, allowed_networks=["192.0.2.0/24"])
        uses = KeyUses(database)
        keys = KeyAuthenticator(redis=redis_gate, database=database, uses=uses)

        async def use(address: str) -> None:
            call = Call(request_id="r", recorder=FakeRecorder(), address=address)
            with serving(call):
                # Once by PostgreSQL, and once by what Redis has of it.
                await keys.authenticate(made["key"])
                await keys.authenticate(made["key"])

        async def is_used() -> bool:
            return bool(
                await superuser.fetchval(
                    "SELECT is_secret_used FROM api_keys WHERE id = $1::uuid", made["id"]
                )
            )

        await use("198.51.100.7")
        assert (uses._untold, await is_used()) == (set(), False)
        await use("192.0.2.7")
        assert ({str(each) for each in uses._untold}, await is_used()) == ({made["id"]}, True)


class TestUnknownIds:
    async def test_are_remembered_until_a_key_is_made(
        self, client: httpx.AsyncClient, make_person: MakePerson, redis_gate: RedisGate
    ) -> None:
        ada = await make_person("ada")
        made = await make_key(client, ada)
        _, mark, public_id, _, _ = made["key"].split("_")
        unknown = seeded_key(7, mark=mark, public_id="00000000").text

        assert await ask(client, unknown) == await ask(client, unknown) == 401

        assert await redis_gate.client.get(key_entry("00000000")) == b"n|0|"
        assert 0 < await redis_gate.client.pttl(key_entry("00000000")) <= 5_000
        assert await redis_gate.client.get(key_entry(public_id)) == b"s|1"

    async def test_are_not_written_to_the_file(
        self, make_settings: MakeSettings, database: Database
    ) -> None:
        valkey = OwnValkey()
        gate = RedisGate(make_settings(redis={"url": valkey.url}).redis)
        keys = KeyAuthenticator(redis=gate, database=database, uses=KeyUses(database))

        async def written() -> int:
            return int((await gate.client.info("persistence"))["aof_current_size"])

        before = await written()
        with pytest.raises(InvalidApiKeyError):
            await keys.authenticate(seeded_key(7, public_id="00000000").text)
        remembered = await gate.client.get(key_entry("00000000"))
        after = await written()
        await gate.close()
        valkey.stop()

        assert remembered == b"n|0|"
        assert after == before

    async def test_a_key_that_is_made_works_at_once(
        self, client: httpx.AsyncClient, make_person: MakePerson, redis_gate: RedisGate
    ) -> None:
        ada = await make_person("ada")
        made = await make_key(client, ada)
        entry = key_entry(made["key"].split("_")[2])
        # As if somebody had asked for the id before there was a key.
        await redis_gate.client.set(entry, "n|0|")
        async with asyncio.timeout(SETTLING_SECONDS + 5):
            # What a server holds that has just started is not believed.
            while True:
                if await ask(client, made["key"]) == 401:
                    break
                await asyncio.sleep(0.1)

        marks = RedisSessionMarks(redis_gate, access_lifetime=timedelta(minutes=1))
        await marks.announce(SessionEffects(new_keys=[KeyMark(made["key"].split("_")[2], 1)]))

        assert await ask(client, made["key"]) == 200
