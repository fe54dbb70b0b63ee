"""What was read before a change of rights is never believed after it was announced."""

import asyncio

import pytest

from maas.shared.application.ports import InvalidTokenError
from maas.shared.domain.ids import SessionId, new_id
from maas.shared.infrastructure.database import Database
from maas.shared.infrastructure.redis import RedisGate
from maas.shared.infrastructure.settings import Settings
from maas.user.application.admin_ports import SessionEffects, SessionMark
from maas.user.infrastructure.admin_sessions import MARKED_AT_ONCE, RedisSessionMarks
from maas.user.infrastructure.sessions import session_key
from tests.conftest import MakeSettings
from tests.integration.user.test_sessions import (
    NOWHERE,
    SignedIn,
    Superuser,
    make_authenticator,
    signed_in,
)

__all__ = ["signed_in"]

pytestmark = pytest.mark.integration


def stale(session_id: SessionId, version: int) -> SessionEffects:
    return SessionEffects(stale=[SessionMark(session_id, version)])


def ended(session_id: SessionId, version: int) -> SessionEffects:
    return SessionEffects(ended=[SessionMark(session_id, version)])


@pytest.fixture
def marks(redis_gate: RedisGate, settings: Settings, database: Database) -> RedisSessionMarks:
    return RedisSessionMarks(redis_gate, access_lifetime=settings.auth.access_token_lifetime)


async def change_role(superuser: Superuser, role: str, *, version: int) -> None:
    await superuser.execute("UPDATE membership_roles SET role_name = $1", role)
    await superuser.execute("UPDATE sessions SET version = $1", version)


class TestStale:
    async def test_has_the_next_request_read_its_rights_anew(
        self,
        signed_in: SignedIn,
        redis_gate: RedisGate,
        database: Database,
        superuser: Superuser,
        marks: RedisSessionMarks,
    ) -> None:
        authenticator = make_authenticator(signed_in, redis_gate, database)
        before = await authenticator.authenticate(signed_in.token)
        await change_role(superuser, "developer", version=2)

        await marks.announce(stale(signed_in.session.id, 2))

        after = await authenticator.authenticate(signed_in.token)
        cached = await authenticator.authenticate(signed_in.token)
        assert (before.may("model:write"), after.may("model:write")) == (False, True)
        assert after == cached
        entry = await redis_gate.client.get(session_key(signed_in.session.id))
        assert isinstance(entry, bytes)
        assert entry.startswith(b"v|2|")
        assert 0 < await redis_gate.client.pttl(session_key(signed_in.session.id)) <= 5000

    async def test_a_reader_that_comes_late_cannot_replace_it(
        self,
        signed_in: SignedIn,
        redis_gate: RedisGate,
        database: Database,
        superuser: Superuser,
        marks: RedisSessionMarks,
    ) -> None:
        slow = make_authenticator(signed_in, redis_gate, database)
        read, go_on = asyncio.Event(), asyncio.Event()
        read_database = slow._read

        async def read_slowly(claims: object) -> object:
            principal = await read_database(claims)  # type: ignore[arg-type]  # passed on as it came
            read.set()
            await go_on.wait()
            return principal

        slow._read = read_slowly  # type: ignore[method-assign, assignment]  # a reader held up on its way
        late = asyncio.create_task(slow.authenticate(signed_in.token))
        await read.wait()
        await change_role(superuser, "developer", version=2)
        await marks.announce(stale(signed_in.session.id, 2))
        go_on.set()
        await late

        entry = await redis_gate.client.get(session_key(signed_in.session.id))
        fresh = await make_authenticator(signed_in, redis_gate, database).authenticate(
            signed_in.token
        )
        assert entry == b"s|2"
        assert fresh.may("model:write")

    async def test_lives_longer_than_a_reader_may_take(
        self, signed_in: SignedIn, redis_gate: RedisGate, marks: RedisSessionMarks
    ) -> None:
        await marks.announce(stale(signed_in.session.id, 2))

        assert await redis_gate.client.pttl(session_key(signed_in.session.id)) > 5000

    async def test_never_hides_a_tombstone_nor_a_newer_mark(
        self, signed_in: SignedIn, redis_gate: RedisGate, marks: RedisSessionMarks
    ) -> None:
        key = session_key(signed_in.session.id)
        await marks.announce(stale(signed_in.session.id, 5))
        await marks.announce(stale(signed_in.session.id, 4))
        newer = await redis_gate.client.get(key)
        await marks.announce(ended(signed_in.session.id, 6))
        await marks.announce(stale(signed_in.session.id, 7))

        assert newer == b"s|5"
        assert await redis_gate.client.get(key) == b"x|6"


class TestEnded:
    async def test_is_obeyed_by_the_next_request(
        self,
        signed_in: SignedIn,
        redis_gate: RedisGate,
        database: Database,
        marks: RedisSessionMarks,
    ) -> None:
        authenticator = make_authenticator(signed_in, redis_gate, database)
        await authenticator.authenticate(signed_in.token)

        await marks.announce(ended(signed_in.session.id, 2))

        with pytest.raises(InvalidTokenError):
            await authenticator.authenticate(signed_in.token)

    async def test_many_are_marked_in_few_round_trips(
        self, redis_gate: RedisGate, marks: RedisSessionMarks
    ) -> None:
        many = [SessionMark(SessionId(new_id()), 2) for _ in range(MARKED_AT_ONCE + 1)]

        await marks.announce(SessionEffects(ended=many))

        assert await redis_gate.client.dbsize() == len(many)


async def test_without_redis_it_returns_once_cached_entries_have_died(
    signed_in: SignedIn, make_settings: MakeSettings, settings: Settings
) -> None:
    gate = RedisGate(make_settings(redis={"url": NOWHERE}).redis)
    marks = RedisSessionMarks(gate, access_lifetime=settings.auth.access_token_lifetime)
    loop = asyncio.get_running_loop()
    began = loop.time()

    await marks.announce(stale(signed_in.session.id, 2))

    assert loop.time() - began >= 5
    await gate.close()
