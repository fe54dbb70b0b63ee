import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from maas.shared.domain.call import Call, serving
from maas.shared.domain.idempotency import (
    Answer,
    IdempotencyClaim,
    IdempotencyInProgressError,
    IdempotencyKeyReusedError,
    KeptAnswerUnreadableError,
    ReplayedAnswer,
)
from maas.shared.domain.ids import DEFAULT_TENANT_ID, TenantId, new_id
from maas.shared.domain.principal import Principal
from maas.shared.infrastructure.database import Database
from maas.shared.infrastructure.idempotency import (
    NoResultError,
    PostgresIdempotency,
    purge_expired,
)
from maas.shared.infrastructure.settings import Settings
from maas.shared.infrastructure.unit_of_work import SqlUnitOfWork
from tests.fakes.clock import FakeClock
from tests.fakes.edge import make_principal
from tests.fakes.recorder import make_call

pytestmark = pytest.mark.integration

NOW = datetime(2026, 11, 21, 8, 0, tzinfo=UTC)
SECRET = "integration-tests-0123456789-abcdefghijklmnop"
PRINCIPAL = make_principal("thing:write")

Superuser: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


class FakeAudit:
    """Lets every change through and writes nothing."""

    def has_scope(self) -> bool:
        return True

    async def write(self, _session: AsyncSession, _call: Call) -> Callable[[], None]:
        return lambda: None


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(NOW)


@pytest.fixture
def store(clock: FakeClock) -> PostgresIdempotency:
    return PostgresIdempotency(SECRET, clock=clock)


@pytest.fixture
async def things(superuser: Superuser, database: Database) -> AsyncIterator[None]:
    """A table of the test's own, so that nothing here depends on a context."""
    await superuser.execute("CREATE TABLE things (name text)")
    await superuser.execute("GRANT SELECT, INSERT ON things TO maas_app")
    yield
    await superuser.execute("DROP TABLE things")


def render(result: object) -> Answer:
    return Answer(status=201, headers={"Location": f"/things/{result}"}, body=f"{result}".encode())


def claim(key: str = "key-1", *, body: bytes = b"a", route: str = "/things") -> IdempotencyClaim:
    return IdempotencyClaim(key=key, route=route, request_hash=body.ljust(32), render=render)


def call_of(principal: Principal | None, key: IdempotencyClaim | None) -> Call:
    call = make_call()
    if principal is not None:
        call.act_as(principal)
    call.idempotency = key
    return call


Create = Callable[..., Coroutine[Any, Any, None]]


@pytest.fixture
def create(database: Database, store: PostgresIdempotency, things: None) -> Create:
    """Create a thing in a transaction, as a use case does."""

    async def create(
        key: IdempotencyClaim | None,
        *,
        principal: Principal | None = PRINCIPAL,
        name: str = "one",
        pause: asyncio.Event | None = None,
        move_to: TenantId | None = None,
        result: object = "one",
        fails: bool = False,
    ) -> None:
        with serving(call_of(principal, key)):
            unit = SqlUnitOfWork(database.engine, audit=FakeAudit(), idempotency=store)
            async with unit as uow:
                if pause is not None:
                    await pause.wait()
                if move_to is not None:
                    await uow.act_in(move_to)
                await uow.session.execute(text("INSERT INTO things VALUES (:name)"), {"name": name})
                if fails:
                    raise RuntimeError
                await uow.commit(result)

    return create


async def count(superuser: Superuser) -> int:
    found: int = await superuser.fetchval("SELECT count(*) FROM things")
    return found


class TestRepeat:
    async def test_brings_the_first_answer_back_and_changes_nothing(
        self, create: Create, superuser: Superuser
    ) -> None:
        await create(claim(), result="one")

        with pytest.raises(ReplayedAnswer) as replay:
            await create(claim(), result="two")

        assert replay.value.answer == render("one")
        assert await count(superuser) == 1

    @pytest.mark.parametrize("other", [claim(body=b"b"), claim(route="/others")])
    async def test_with_another_request_is_refused(
        self, create: Create, superuser: Superuser, other: IdempotencyClaim
    ) -> None:
        await create(claim())

        with pytest.raises(IdempotencyKeyReusedError):
            await create(other)

        assert await count(superuser) == 1

    async def test_with_another_key_is_another_request(
        self, create: Create, superuser: Superuser
    ) -> None:
        await create(claim("key-1"))
        await create(claim("key-2"))

        assert await count(superuser) == 2

    async def test_of_somebody_else_is_their_own(
        self, create: Create, superuser: Superuser
    ) -> None:
        other_tenant = Principal(
            **{
                **{name: getattr(PRINCIPAL, name) for name in Principal.__slots__},
                "tenant_id": TenantId(new_id()),
            }
        )

        await create(claim())
        await create(claim(), principal=make_principal())
        await create(claim(), principal=other_tenant)

        assert await count(superuser) == 3

    async def test_after_a_day_is_a_new_request(
        self, create: Create, superuser: Superuser, clock: FakeClock
    ) -> None:
        await create(claim(), result="one")
        clock.move(timedelta(hours=24))
        await create(claim(body=b"b"), result="two")

        with pytest.raises(ReplayedAnswer) as replay:
            await create(claim(body=b"b"))

        assert replay.value.answer == render("two")
        assert await count(superuser) == 2

    async def test_of_a_failed_request_runs_again(
        self, create: Create, superuser: Superuser
    ) -> None:
        with pytest.raises(RuntimeError):
            await create(claim(), fails=True)

        await create(claim())

        assert await count(superuser) == 1

    async def test_is_found_wherever_the_use_case_went_meanwhile(
        self, create: Create, superuser: Superuser
    ) -> None:
        await create(claim(), move_to=TenantId(new_id()))

        with pytest.raises(ReplayedAnswer):
            await create(claim())

        assert await superuser.fetchval("SELECT tenant_id FROM idempotency_keys") == (
            DEFAULT_TENANT_ID
        )


class TestConcurrency:
    async def test_a_second_one_meanwhile_is_told_to_wait(
        self, create: Create, superuser: Superuser
    ) -> None:
        pause = asyncio.Event()
        first = asyncio.create_task(create(claim(), pause=pause))
        await asyncio.sleep(0.2)

        with pytest.raises(IdempotencyInProgressError) as refusal:
            await create(claim())
        pause.set()
        await first

        assert refusal.value.retry_after == timedelta(seconds=1)
        assert await count(superuser) == 1

    async def test_of_a_hundred_at_once_exactly_one_creates(
        self, create: Create, superuser: Superuser
    ) -> None:
        outcomes = await asyncio.gather(
            *(create(claim()) for _ in range(100)), return_exceptions=True
        )

        kinds = {type(outcome) for outcome in outcomes}
        assert kinds <= {type(None), ReplayedAnswer, IdempotencyInProgressError}
        assert outcomes.count(None) == 1
        assert await count(superuser) == 1


@pytest.mark.usefixtures("things")
class TestOneCall:
    async def test_may_open_further_transactions_after_it_committed(
        self, database: Database, store: PostgresIdempotency, superuser: Superuser
    ) -> None:
        with serving(call_of(PRINCIPAL, claim())):
            for name in ("one", "two"):
                unit = SqlUnitOfWork(database.engine, audit=FakeAudit(), idempotency=store)
                async with unit as uow:
                    await uow.session.execute(text("INSERT INTO things VALUES (:n)"), {"n": name})
                    await uow.commit(name)

        assert await count(superuser) == 2
        assert await superuser.fetchval("SELECT count(*) FROM idempotency_keys") == 1

    async def test_may_read_before_it_changes(
        self, database: Database, store: PostgresIdempotency, create: Create
    ) -> None:
        key = claim()
        with serving(call_of(PRINCIPAL, key)):
            async with SqlUnitOfWork(database.engine, audit=FakeAudit(), idempotency=store) as uow:
                await uow.session.execute(text("SELECT 1"))

        await create(key)

        assert key.is_kept

    async def test_may_try_again_after_a_rollback(self, create: Create) -> None:
        key = claim()
        with pytest.raises(RuntimeError):
            await create(key, fails=True)

        await create(key)

        assert key.is_kept

    async def test_without_a_key_or_a_principal_keeps_nothing(
        self, create: Create, superuser: Superuser
    ) -> None:
        await create(None)
        await create(claim(), principal=None)

        assert await superuser.fetchval("SELECT count(*) FROM idempotency_keys") == 0

    async def test_that_forgets_its_result_is_a_bug_and_commits_nothing(
        self, create: Create, superuser: Superuser
    ) -> None:
        with pytest.raises(NoResultError):
            await create(claim(), result=None)

        assert await count(superuser) == 0


class TestSecrecy:
    async def test_the_answer_cannot_be_read_from_the_table(
        self, create: Create, superuser: Superuser
    ) -> None:
        await create(claim("visible-key"), result="one-time-secret")

        row = await superuser.fetchrow("SELECT * FROM idempotency_keys")

        assert row is not None
        assert b"one-time-secret" not in row["sealed"]
        assert b"visible-key" not in b"".join(v for v in row.values() if isinstance(v, bytes))

    async def test_another_secret_or_row_opens_nothing(
        self, create: Create, superuser: Superuser
    ) -> None:
        await create(claim("key-1"))
        await create(claim("key-2"))
        await superuser.execute(
            """UPDATE idempotency_keys a SET sealed = b.sealed FROM idempotency_keys b
               WHERE a.key_hash <> b.key_hash"""
        )

        with pytest.raises(KeptAnswerUnreadableError):
            await create(claim("key-1"))

    async def test_another_tenant_sees_no_row(self, create: Create, database: Database) -> None:
        await create(claim())

        async with database.tenant(TenantId(new_id())) as connection:
            seen = await connection.fetchval("SELECT count(*) FROM idempotency_keys")
        async with database.tenant(DEFAULT_TENANT_ID) as connection:
            own = await connection.fetchval("SELECT count(*) FROM idempotency_keys")

        assert (seen, own) == (0, 1)


async def test_purging_deletes_what_is_older_than_a_day_of_all_tenants(
    create: Create, settings: Settings, clock: FakeClock, superuser: Superuser
) -> None:
    await create(claim("old"))
    clock.move(timedelta(hours=25))
    await create(claim("new"))

    purged = await purge_expired(settings.database, clock=clock)

    assert purged == 1
    assert await superuser.fetchval("SELECT count(*) FROM idempotency_keys") == 1
