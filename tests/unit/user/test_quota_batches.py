"""Batches of calls that fail: what was asked is sent again, and holds up nobody else."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, cast
from uuid import UUID

import asyncpg
import pytest

from maas.shared.domain.ids import DEFAULT_TENANT_ID, TenantId, new_id
from maas.shared.infrastructure.database import Database
from maas.user.infrastructure import quota_batches
from maas.user.infrastructure.quota_batches import (
    CallBatches,
    TooManyWaitingError,
    UnansweredError,
)

RELEASE = {"op": "release", "id": "h"}
PATIENCE = 2.0


class LossyConnection:
    """Loses the first statement, and answers the next."""

    def __init__(self, error: Exception) -> None:
        self._errors = [error]

    async def fetch(self, _query: str, _text: str) -> list[Mapping[str, object]]:
        if self._errors:
            raise self._errors.pop()
        return [{"n": 0, "outcome": "done"}]

    def terminate(self) -> None:
        """There is nothing to close."""


class LossyDatabase:
    def __init__(self, error: Exception) -> None:
        self._connection = LossyConnection(error)

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[LossyConnection]:
        yield self._connection


class LockedDatabase:
    """Some tenants are locked: so often it says so at once, and then it waits for the lock."""

    def __init__(self, *locked: TenantId, refusals: int) -> None:
        self._locked = set(locked)
        self._refusals = refusals
        self.unlocked = asyncio.Event()
        self.sent: list[set[TenantId]] = []
        self.waiting: list[set[TenantId]] = []
        self.waits = asyncio.Event()

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator["LockedDatabase"]:
        yield self

    async def fetch(self, _query: str, text: str) -> list[Mapping[str, object]]:
        work = json.loads(text)
        tenants = {TenantId(UUID(part["tenant"])) for part in work}
        self.sent.append(tenants)
        if tenants & self._locked and not self.unlocked.is_set():
            if self._refusals:
                self._refusals -= 1
                raise asyncpg.LockNotAvailableError
            self.waiting.append(tenants)
            self.waits.set()
            await self.unlocked.wait()
        return [{"n": call["n"], "outcome": "done"} for part in work for call in part["calls"]]

    def terminate(self) -> None:
        """There is nothing to close."""


@pytest.fixture(autouse=True)
def _short_rests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quota_batches, "TENANT_PAUSE_SECONDS", 0.01)


@pytest.mark.parametrize(
    "error",
    [
        ConnectionResetError(),
        TimeoutError(),
        asyncpg.ConnectionDoesNotExistError(),
        asyncpg.InterfaceError("the connection is closed"),
        # Raised where a server goes in the middle of a message.
        asyncpg.InternalClientError("cannot switch to state 12"),
    ],
)
async def test_what_was_on_a_lost_connection_is_sent_again(error: Exception) -> None:
    batches = CallBatches(cast("Database", LossyDatabase(error)))

    ask = batches.ask(DEFAULT_TENANT_ID, RELEASE, worth_seconds=5)
    row: Any = await ask.future

    assert row["outcome"] == "done"
    assert ask.is_unknown
    await batches.close()


@pytest.mark.parametrize(
    "error",
    [
        # A server that became a standby, lets nobody in, has another database, lost its grants.
        asyncpg.ReadOnlySQLTransactionError(),
        asyncpg.InvalidAuthorizationSpecificationError(),
        asyncpg.InvalidCatalogNameError(),
        asyncpg.InsufficientPrivilegeError(),
        asyncpg.InternalServerError(),
        asyncpg.DiskFullError(),
        asyncpg.LockNotAvailableError(),
        asyncpg.DeadlockDetectedError(),
    ],
)
async def test_what_says_nothing_of_the_call_has_it_sent_again(error: Exception) -> None:
    batches = CallBatches(cast("Database", LossyDatabase(error)))

    ask = batches.ask(DEFAULT_TENANT_ID, RELEASE, worth_seconds=5)
    row: Any = await ask.future

    assert row["outcome"] == "done"
    assert not ask.is_unknown
    await batches.close()


@pytest.mark.parametrize(
    "error",
    [
        asyncpg.NumericValueOutOfRangeError(),
        asyncpg.NotNullViolationError(),
        asyncpg.RaiseError(),
    ],
)
async def test_what_is_wrong_in_itself_is_not_sent_again(error: Exception) -> None:
    batches = CallBatches(cast("Database", LossyDatabase(error)))

    ask = batches.ask(DEFAULT_TENANT_ID, RELEASE, worth_seconds=5)

    with pytest.raises(type(error)):
        await ask.future
    await batches.close()


class TestLateAsks:
    async def test_what_comes_behind_them_is_sent(self) -> None:
        batches = CallBatches(cast("Database", LockedDatabase(refusals=0)))

        late = [
            batches.ask(DEFAULT_TENANT_ID, RELEASE, worth_seconds=-1)
            for _ in range(2 * quota_batches.MAX_BATCH)
        ]
        good = batches.ask(DEFAULT_TENANT_ID, RELEASE, worth_seconds=5)
        row: Any = await asyncio.wait_for(good.future, PATIENCE)

        assert row["outcome"] == "done"
        assert all(isinstance(ask.future.exception(), UnansweredError) for ask in late)
        await batches.close()


class TestLockedTenants:
    async def test_two_of_them_leave_a_transaction_to_the_others(self) -> None:
        first, second, free = (TenantId(new_id()) for _ in range(3))
        # Both together, then each alone.
        database = LockedDatabase(first, second, refusals=3)
        batches = CallBatches(cast("Database", database))

        locked = [batches.ask(each, RELEASE, worth_seconds=5) for each in (first, second)]
        await asyncio.wait_for(database.waits.wait(), PATIENCE)
        row: Any = await asyncio.wait_for(
            batches.ask(free, RELEASE, worth_seconds=5).future, PATIENCE
        )
        waiting = list(database.waiting)
        database.unlocked.set()
        await asyncio.wait_for(asyncio.gather(*(ask.future for ask in locked)), PATIENCE)

        assert row["outcome"] == "done"
        assert len(waiting) == 1
        await batches.close()

    async def test_they_rest_before_they_are_tried_again(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(quota_batches, "TENANT_PAUSE_SECONDS", 60)
        tenant = TenantId(new_id())
        # With the others, then alone.
        database = LockedDatabase(tenant, refusals=2)
        batches = CallBatches(cast("Database", database))

        batches.ask(tenant, RELEASE, worth_seconds=5)
        for _ in range(5):
            await asyncio.wait_for(
                batches.ask(DEFAULT_TENANT_ID, RELEASE, worth_seconds=5).future, PATIENCE
            )

        assert database.waiting == []
        monkeypatch.setattr(quota_batches, "CLOSE_SECONDS", 0.0)
        await batches.close()

    async def test_once_unlocked_they_go_with_the_others_again(self) -> None:
        tenant = TenantId(new_id())
        database = LockedDatabase(tenant, refusals=1)
        batches = CallBatches(cast("Database", database))
        first = batches.ask(tenant, RELEASE, worth_seconds=5)
        await asyncio.wait_for(database.waits.wait(), PATIENCE)
        database.unlocked.set()
        await asyncio.wait_for(first.future, PATIENCE)

        both = [batches.ask(each, RELEASE, worth_seconds=5) for each in (tenant, DEFAULT_TENANT_ID)]
        await asyncio.wait_for(asyncio.gather(*(ask.future for ask in both)), PATIENCE)

        assert database.sent[-1] == {tenant, DEFAULT_TENANT_ID}
        await batches.close()


async def test_only_what_may_be_refused_is_where_many_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(quota_batches, "MAX_WAITING", 1)
    batches = CallBatches(cast("Database", LockedDatabase(refusals=0)))
    batches.ask(DEFAULT_TENANT_ID, RELEASE, worth_seconds=5)

    kept = batches.ask(DEFAULT_TENANT_ID, RELEASE, worth_seconds=5)
    other = batches.ask(TenantId(new_id()), RELEASE, worth_seconds=5, may_refuse=True)
    with pytest.raises(TooManyWaitingError):
        batches.ask(DEFAULT_TENANT_ID, RELEASE, worth_seconds=5, may_refuse=True)

    assert await asyncio.wait_for(asyncio.gather(kept.future, other.future), PATIENCE)
    await batches.close()
