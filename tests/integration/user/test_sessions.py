"""No way back for a revoked session: not by a slow reader, an old file, or a dead Redis."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

import asyncpg
import pytest

from maas.shared.application.ports import InvalidTokenError
from maas.shared.domain.errors import UnavailableError
from maas.shared.domain.ids import DEFAULT_TENANT_ID
from maas.shared.infrastructure.clock import SystemClock
from maas.shared.infrastructure.database import Database
from maas.shared.infrastructure.redis import RedisGate
from maas.shared.infrastructure.settings import Settings
from maas.user.domain.session import Session
from maas.user.infrastructure.sessions import (
    RedisSessionCache,
    SessionAuthenticator,
    session_key,
)
from maas.user.infrastructure.tokens import JoseTokenIssuer
from tests.conftest import MakeSettings
from tests.factories.accounts import make_account, make_session

pytestmark = pytest.mark.integration

Superuser: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
NOWHERE = "redis://127.0.0.1:1/0"


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedIn:
    session: Session
    token: str
    tokens: JoseTokenIssuer


@pytest.fixture
async def signed_in(settings: Settings, database: Database, superuser: Superuser) -> SignedIn:
    account, now = make_account(), datetime.now(UTC)  # noqa: TID251  a live session needs the real time
    session = make_session(account_id=account.id)
    await superuser.execute(
        """INSERT INTO accounts (id, username, email, password_hash, status, home_tenant_id,
                                 created_at, updated_at, version)
           VALUES ($1, 'ada', 'ada@example.com', 'x', 'active', $2, $3, $3, 1)""",
        account.id,
        DEFAULT_TENANT_ID,
        now,
    )
    await superuser.execute(
        "INSERT INTO memberships (tenant_id, account_id) VALUES ($1, $2)",
        DEFAULT_TENANT_ID,
        account.id,
    )
    await superuser.execute(
        "INSERT INTO membership_roles VALUES ($1, $2, 'user')", DEFAULT_TENANT_ID, account.id
    )
    await superuser.execute(
        """INSERT INTO sessions (id, account_id, tenant_id, version, generation, current_hash,
               rotated_at, created_at, last_used_at, expires_at, idle_expires_at)
           VALUES ($1, $2, $3, 1, 1, 'x', $4, $4, $4, $5, $5)""",
        session.id,
        account.id,
        DEFAULT_TENANT_ID,
        now,
        now + timedelta(days=1),
    )
    tokens = JoseTokenIssuer(
        settings.auth, secret_key=settings.secret_key.get_secret_value(), clock=SystemClock()
    )
    return SignedIn(session=session, token=tokens.issue_access(session, at=now), tokens=tokens)


def make_authenticator(
    signed_in: SignedIn, redis: RedisGate, database: Database
) -> SessionAuthenticator:
    return SessionAuthenticator(tokens=signed_in.tokens, redis=redis, database=database)


async def end_in_database(superuser: Superuser, signed_in: SignedIn) -> None:
    await superuser.execute(
        "UPDATE sessions SET revoked_at = now(), version = 2 WHERE id = $1", signed_in.session.id
    )


@asynccontextmanager
async def dead_redis(make_settings: MakeSettings) -> AsyncIterator[RedisGate]:
    gate = RedisGate(make_settings(redis={"url": NOWHERE}).redis)
    yield gate
    await gate.close()


class TestAuthenticate:
    async def test_reads_who_is_calling_and_what_they_may_do(
        self, signed_in: SignedIn, redis_gate: RedisGate, database: Database
    ) -> None:
        authenticator = make_authenticator(signed_in, redis_gate, database)

        first = await authenticator.authenticate(signed_in.token)
        cached = await authenticator.authenticate(signed_in.token)

        assert first == cached
        assert first.account_id == signed_in.session.account_id
        assert first.may("model:read")
        assert first.may("self:write")
        assert not first.may("model:write")

    async def test_a_cached_session_lives_five_seconds_at_most(
        self, signed_in: SignedIn, redis_gate: RedisGate, database: Database
    ) -> None:
        await make_authenticator(signed_in, redis_gate, database).authenticate(signed_in.token)

        remaining = await redis_gate.client.pttl(session_key(signed_in.session.id))

        assert 0 < remaining <= 5000

    async def test_a_tombstone_is_obeyed_without_asking_the_database(
        self, signed_in: SignedIn, redis_gate: RedisGate, database: Database, settings: Settings
    ) -> None:
        authenticator = make_authenticator(signed_in, redis_gate, database)
        await authenticator.authenticate(signed_in.token)
        cache = RedisSessionCache(redis_gate, access_lifetime=settings.auth.access_token_lifetime)

        await cache.revoke(signed_in.session.id, version=2)

        with pytest.raises(InvalidTokenError):
            await authenticator.authenticate(signed_in.token)

    async def test_a_reader_that_comes_late_cannot_replace_a_tombstone(
        self, signed_in: SignedIn, redis_gate: RedisGate, database: Database, settings: Settings
    ) -> None:
        slow = make_authenticator(signed_in, redis_gate, database)
        read = asyncio.Event()
        go_on = asyncio.Event()
        read_database = slow._read

        async def read_slowly(claims: object) -> object:
            principal = await read_database(claims)  # type: ignore[arg-type]  # passed on as it came
            read.set()
            await go_on.wait()
            return principal

        slow._read = read_slowly  # type: ignore[method-assign, assignment]  # a reader held up on its way
        late = asyncio.create_task(slow.authenticate(signed_in.token))
        await read.wait()
        cache = RedisSessionCache(redis_gate, access_lifetime=settings.auth.access_token_lifetime)
        await cache.revoke(signed_in.session.id, version=2)
        go_on.set()
        await late

        with pytest.raises(InvalidTokenError):
            await make_authenticator(signed_in, redis_gate, database).authenticate(signed_in.token)

    async def test_a_reader_that_comes_seconds_late_fills_nothing_in(
        self, signed_in: SignedIn, redis_gate: RedisGate, database: Database
    ) -> None:
        authenticator = make_authenticator(signed_in, redis_gate, database)
        claims = signed_in.tokens.read_access(signed_in.token)
        assert claims is not None
        seconds, micros = await redis_gate.client.time()
        long_ago = seconds * 1000 + micros // 1000 - 5001

        await authenticator._read_and_fill(
            claims, session_key(signed_in.session.id), asked_at_ms=long_ago
        )

        assert await redis_gate.client.exists(session_key(signed_in.session.id)) == 0

    async def test_an_entry_older_than_the_token_is_not_believed(
        self,
        signed_in: SignedIn,
        redis_gate: RedisGate,
        database: Database,
        superuser: Superuser,
    ) -> None:
        authenticator = make_authenticator(signed_in, redis_gate, database)
        await authenticator.authenticate(signed_in.token)
        signed_in.session.version = 2
        newer = signed_in.tokens.issue_access(
            signed_in.session,
            at=datetime.now(UTC),  # noqa: TID251  likewise
        )
        await superuser.execute(
            "UPDATE sessions SET version = 2 WHERE id = $1", signed_in.session.id
        )

        principal = await authenticator.authenticate(newer)

        assert principal.version == 2

    async def test_without_redis_the_database_decides(
        self,
        signed_in: SignedIn,
        make_settings: MakeSettings,
        database: Database,
        superuser: Superuser,
    ) -> None:
        async with dead_redis(make_settings) as gate:
            authenticator = make_authenticator(signed_in, gate, database)
            await authenticator.authenticate(signed_in.token)

            await end_in_database(superuser, signed_in)

            with pytest.raises(InvalidTokenError):
                await authenticator.authenticate(signed_in.token)

    async def test_without_either_nobody_is_let_in(
        self, signed_in: SignedIn, make_settings: MakeSettings
    ) -> None:
        nowhere = make_settings(
            database={"url": "postgresql://maas_app@127.0.0.1:1/none", "owner_url": None}
        )
        async with dead_redis(make_settings) as gate:
            database = Database(nowhere.database)
            await database.open()
            authenticator = make_authenticator(signed_in, gate, database)

            with pytest.raises((UnavailableError, OSError)):
                await authenticator.authenticate(signed_in.token)
            await database.close()

    async def test_a_suspended_account_is_out(
        self, signed_in: SignedIn, redis_gate: RedisGate, database: Database, superuser: Superuser
    ) -> None:
        await superuser.execute("UPDATE accounts SET status = 'suspended'")

        with pytest.raises(InvalidTokenError):
            await make_authenticator(signed_in, redis_gate, database).authenticate(signed_in.token)


class TestRevoke:
    async def test_without_redis_it_returns_once_cached_entries_have_died(
        self, signed_in: SignedIn, make_settings: MakeSettings, settings: Settings
    ) -> None:
        async with dead_redis(make_settings) as gate:
            cache = RedisSessionCache(gate, access_lifetime=settings.auth.access_token_lifetime)
            loop = asyncio.get_running_loop()
            began = loop.time()

            await cache.revoke(signed_in.session.id, version=2)

            assert loop.time() - began >= 5
