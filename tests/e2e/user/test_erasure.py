"""Somebody who left: nothing that names them is left anywhere, and every hash is as it was."""

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import httpx
import pytest

from maas.audit.application.verification import VerifyOptions
from maas.audit.infrastructure.stream import STREAM
from maas.audit.wiring import spool_folder, verify_trail
from maas.shared.infrastructure.clock import SystemClock
from maas.shared.infrastructure.redis import RedisGate
from maas.shared.infrastructure.settings import Settings
from maas.user.wiring import send_due_mails
from maas.worker_services import erase_people
from tests.conftest import MakeSettings
from tests.e2e.canaries.sinks import read_redis, read_tables
from tests.e2e.conftest import Flush, MakePerson, Person, serving_app, sign_in
from tests.e2e.user.people import USERS, make_user
from tests.factories.accounts import PASSWORD

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

NAME, EMAIL = "zqcanary-grace", "zqcanary.grace@example.com"
ADDRESS, AGENT = "203.0.113.77", "zqcanary-browser/1"
FOUND = re.compile(rb"zqcanary|203\.0\.113\.77", re.IGNORECASE)
HEX = re.compile(b"zqcanary".hex(), re.IGNORECASE)

Superuser = asyncpg.Connection


@pytest.fixture
def own_settings(make_settings: MakeSettings, tmp_path: Path) -> Settings:
    return make_settings(data_dir=str(tmp_path / "data"))


@pytest.fixture
async def theirs(own_settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """A client that calls from the person's own address."""
    async with serving_app(own_settings, address=ADDRESS) as client:
        client.headers["User-Agent"] = AGENT
        yield client


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """Who is there, the person who will leave among them, and all that may know of them."""

    make_person: MakePerson
    client: httpx.AsyncClient
    theirs: httpx.AsyncClient
    settings: Settings
    folder: Path
    flush: Flush
    superuser: Superuser
    redis: RedisGate

    async def leave_traces(self) -> Person:
        """Be in events of each kind: one's own, others' about one, and those of nobody."""
        admin = await self.make_person("ada")
        invitation = {"email": EMAIL, "roles": ["user"]}
        await self.client.post("/api/v1/admin/invitations", json=invitation, headers=admin.headers)
        await make_user(self.client, admin, NAME, email=EMAIL)
        for login in (NAME.upper(), EMAIL):
            body = {"username": login, "password": "wrong one!"}
            await self.theirs.post("/api/v1/auth/login", json=body)
        await self.theirs.post("/api/v1/auth/password/forgot", json={"email": EMAIL.title()})
        person = await sign_in(self.theirs, NAME)
        await self.theirs.put(
            "/api/v1/users/profile", json={"display_name": "zqcanary"}, headers=person.headers
        )
        await self.theirs.get(USERS, headers=person.headers)
        return person

    async def leave_raw_traces(self) -> None:
        """Be where nothing could be read, or be delivered."""
        await self.redis.client.xadd(STREAM, {"garbage": f"\x00 {EMAIL} from {NAME}"})
        spools = spool_folder(self.folder)
        spools.mkdir(parents=True, exist_ok=True)
        (spools / "events-1.torn").write_bytes(b"\x00\x01" + f'{{"email": "{EMAIL}"}}'.encode())
        await self.superuser.execute(
            "INSERT INTO undelivered_mails VALUES"
            " (gen_random_uuid(), 'invite', $1, 3, 'refused', now(), now())",
            EMAIL,
        )

    async def leave(self, person: Person) -> None:
        body = {"current_password": PASSWORD}
        answer = await self.theirs.post("/api/v1/users/deletion", json=body, headers=person.headers)
        assert answer.status_code == 204, answer.text

    async def settle(self, *, ticks: int = 3) -> None:
        """Let the worker's ticks go by."""
        for _ in range(ticks):
            await self.superuser.execute(
                "UPDATE audit_outbox SET created_at = created_at - interval '5 s'"
            )
            await self.flush()
            await erase_people(self.settings, self.redis)

    async def places(self) -> set[str]:
        """Name the places that still know the person."""
        held = {**await read_tables(self.superuser), **await read_redis(self.redis.client)}
        held |= read_files(self.folder)
        return {
            name
            for name, text in held.items()
            if FOUND.search(text) or HEX.search(text.decode(errors="replace"))
        }


def read_files(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.fixture
def world(request: pytest.FixtureRequest, own_settings: Settings) -> World:
    assert own_settings.data_dir is not None
    return World(
        make_person=request.getfixturevalue("make_person"),
        client=request.getfixturevalue("client"),
        theirs=request.getfixturevalue("theirs"),
        settings=own_settings,
        folder=own_settings.data_dir,
        flush=request.getfixturevalue("flush"),
        superuser=request.getfixturevalue("superuser"),
        redis=request.getfixturevalue("redis_gate"),
    )


async def test_nothing_that_names_a_person_who_left_is_left(world: World) -> None:
    person = await world.leave_traces()
    await world.leave_raw_traces()
    await send_due_mails(world.settings, data_dir=world.folder, clock=SystemClock())
    await world.flush()
    known = await world.places()
    chain = await world.superuser.fetch("SELECT * FROM audit_chain ORDER BY seq")

    await world.leave(person)
    await world.settle()

    fields = ("actor_name", "email", "address", "user_agent")
    expected = {f"audit_personal.{field}" for field in fields} | {
        "audit_dead_letter.fields",
        "audit/spool/events-1.torn",
        "invitations.email",
        "undelivered_mails.recipient",
    }
    assert expected <= known
    assert any(name.startswith("mail/") for name in known)
    assert await world.superuser.fetchval("SELECT erased_at IS NOT NULL FROM audit_erasures")
    assert await world.places() == set()
    after = await world.superuser.fetch(
        "SELECT * FROM audit_chain WHERE seq <= $1 ORDER BY seq", len(chain)
    )
    assert after == chain
    verdict = await verify_trail(world.settings, VerifyOptions())
    assert list(verdict.findings) == []
    assert verdict.erased > 0


async def test_what_was_on_its_way_is_waited_for_and_comes_without_names(world: World) -> None:
    person = await world.leave_traces()
    await world.leave(person)
    # Longer ago than clocks are apart, and the stream still has what came before.
    await world.superuser.execute(
        "UPDATE audit_erasures SET requested_at = requested_at + interval '1 min'"
    )

    await erase_people(world.settings, world.redis)

    assert not await world.superuser.fetchval("SELECT erased_at IS NOT NULL FROM audit_erasures")
    await world.superuser.execute(
        "UPDATE audit_erasures SET requested_at = requested_at - interval '1 min'"
    )
    await world.settle(ticks=2)
    assert await world.places() == set()
    assert (await verify_trail(world.settings, VerifyOptions())).is_sound


async def test_others_of_the_same_kind_stay_as_they_are(world: World) -> None:
    await make_user(world.client, await world.make_person("lovelace"), "hopper")
    body = {"username": "hopper", "password": "wrong one!"}
    await world.client.post("/api/v1/auth/login", json=body)
    await world.client.post("/api/v1/auth/password/forgot", json={"email": "hopper@example.com"})
    await world.leave(await world.leave_traces())

    await world.settle()

    rows = await world.superuser.fetch(
        "SELECT l.action, p.actor_name, p.email FROM audit_log l JOIN audit_personal p"
        " USING (event_id) WHERE p.actor_name = 'hopper' OR p.email LIKE 'hopper%' ORDER BY seq"
    )
    assert [row["action"] for row in rows] == ["auth.login", "password.reset_requested"]
    assert await world.superuser.fetchval(
        "SELECT count(*) FROM audit_personal WHERE actor_name = 'ada'"
    )
