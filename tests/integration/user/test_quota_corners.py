"""Corners of charging: calls that cross, late prices, clocks that step, holds that fail."""

import asyncio
import dataclasses
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any, Literal

import asyncpg
import pytest
from typing_extensions import override

from maas.shared.domain.ids import DEFAULT_TENANT_ID, new_id
from maas.shared.infrastructure.database import Database, PooledConnection
from maas.shared.infrastructure.settings import Settings
from maas.user.infrastructure import quota_expiry
from maas.user.infrastructure.quota_budgets import HELD_WAIT, PostgresBudgets
from maas.user.infrastructure.quota_expiry import expire_holds
from maas.user.public import (
    Amounts,
    BudgetExceededError,
    Hold,
    HoldId,
    Payer,
    QuotaExceededError,
    UsageFigures,
)
from tests.conftest import WorkerDatabase
from tests.integration.user.charging import (
    EVENTS,
    Superuser,
    balance,
    limit,
    make_payer,
    make_tenant,
    miscounted,
    reserve,
    until,
)
from tests.servers import Servers

pytestmark = pytest.mark.integration

APPLY = "SELECT * FROM quota_apply($1::jsonb, $2)"
EXPIRED = "SELECT * FROM quota_expired($1, NULL, NULL, '{}')"


@pytest.fixture
async def budgets(database: Database) -> AsyncIterator[PostgresBudgets]:
    budgets = PostgresBudgets(database)
    yield budgets
    await budgets.close()


def work(*calls: dict[str, object]) -> str:
    numbered = [{**call, "n": n} for n, call in enumerate(calls)]
    return json.dumps([{"tenant": str(DEFAULT_TENANT_ID), "calls": numbered}])


def reserving(payer: Payer, tokens: int, hold_id: object = None, **more: object) -> dict[str, Any]:
    return {
        "op": "reserve", "id": str(hold_id or new_id()), "account": str(payer.account_id),
        "kind": "account", "model": "m", "request": "r", "lease": 60, "again": False,
        "requests": 1, "tokens": tokens, "cost": 0, "storage": 0, **more,
    }  # fmt: skip


def settling(hold: Hold, tokens: int) -> dict[str, Any]:
    return {
        "op": "settle", "id": str(hold.id), "input": tokens, "cached": 0, "output": 0,
        "reasoning": 0, "cost": 0, "storage": 0, "estimated": False,
    }  # fmt: skip


class ListeningDatabase(Database):
    """Notes what is sent through it, and tells."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.sent: list[dict[str, Any]] = []
        self.heard: Callable[[], object] = lambda: None

    @override
    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[PooledConnection]:
        async with super().acquire() as connection:
            yield _Listening(self, connection)  # type: ignore[misc]  # stands in for one method of it


class _Listening:
    def __init__(self, database: ListeningDatabase, connection: PooledConnection) -> None:
        self._database, self._connection = database, connection

    async def fetch(self, query: str, *args: Any) -> list[asyncpg.Record]:
        for part in json.loads(args[0]):
            self._database.sent += part["calls"]
        self._database.heard()
        rows: list[asyncpg.Record] = await self._connection.fetch(query, *args)
        return rows


@pytest.fixture
async def listening(settings: Settings, clean: None) -> AsyncIterator[ListeningDatabase]:
    listening = ListeningDatabase(settings.database)
    await listening.open()
    yield listening
    await listening.close()


@pytest.fixture
async def heard(listening: ListeningDatabase) -> AsyncIterator[PostgresBudgets]:
    budgets = PostgresBudgets(listening)
    yield budgets
    await budgets.close()


class Crossing:
    """Statements sent at once, each on a connection of its own."""

    def __init__(self, superuser: Superuser, now: datetime) -> None:
        self._superuser, self._now = superuser, now
        self._tasks: dict[Superuser, asyncio.Task[Any]] = {}

    async def send(self, connection: Superuser, *calls: dict[str, Any]) -> None:
        """Return when it is done, or waits for a lock."""
        sending = connection.fetch(APPLY, work(*calls), self._now)
        self._tasks[connection] = asyncio.create_task(sending)

        async def waits() -> bool:
            return bool(await self.blocking(connection))

        await self.until_done_or(connection, waits)

    async def blocking(self, connection: Superuser) -> list[int]:
        pids = "SELECT pg_blocking_pids($1)"
        return list(await self._superuser.fetchval(pids, connection.get_server_pid()))

    async def until_done_or(
        self, connection: Superuser, condition: Callable[[], Awaitable[bool]]
    ) -> None:
        async def either() -> bool:
            return self._tasks[connection].done() or await condition()

        await until(either)

    async def end(self, *connections: Superuser) -> None:
        await asyncio.gather(*(self._tasks[connection] for connection in connections))


@pytest.fixture
async def applying(
    servers: Servers, worker_database: WorkerDatabase
) -> AsyncIterator[list[Superuser]]:
    """Four connections, as the role that serves has them."""
    name = worker_database.name
    connections = [await servers.connect(name, "maas_app") for _ in range(4)]
    yield connections
    for connection in connections:
        await connection.close()


class TestCallsThatCross:
    async def test_a_hold_given_back_while_it_is_made_takes_no_charge_along(
        self,
        heard: PostgresBudgets,
        listening: ListeningDatabase,
        superuser: Superuser,
        applying: list[Superuser],
    ) -> None:
        giving, making, charging, blocking = applying
        payer, other, late = make_payer(), make_payer(), new_id()
        tokens = await limit(superuser, other.account_id, "tokens", 1_000)
        busy = await reserve(heard, payer, Amounts(tokens=1))
        charged = await reserve(heard, other, Amounts(tokens=200))
        await heard.release(dataclasses.replace(charged, id=HoldId(late)))
        release = listening.sent[-1]
        progress = {"op": "progress", "id": str(busy.id), "tokens": 1, "cost": 0, "storage": 0}
        crossing = Crossing(superuser, await superuser.fetchval("SELECT now()"))

        async def waits_for_the_charge() -> bool:
            return charging.get_server_pid() in await crossing.blocking(giving)

        block, charge = blocking.transaction(), charging.transaction()
        await block.start()
        own = "SELECT set_config('maas.tenant_id', $1, true)"
        await blocking.execute(own, str(DEFAULT_TENANT_ID))
        await blocking.execute("SELECT FROM quota_holds WHERE id = $1 FOR UPDATE", busy.id)
        # It has looked for its hold, which is made only now; and it waits before it deletes it.
        await crossing.send(giving, release, progress)
        await crossing.send(making, reserving(other, 300, late))
        await charge.start()
        await crossing.send(charging, settling(charged, 200))
        await block.commit()
        await crossing.until_done_or(giving, waits_for_the_charge)
        await crossing.end(charging)
        await charge.commit()
        await crossing.end(giving, making)

        assert (await balance(superuser, tokens))[0] == 200
        assert await miscounted(superuser) == []

    async def test_whatever_ends_a_hold_says_whose_it_is(
        self, heard: PostgresBudgets, listening: ListeningDatabase
    ) -> None:
        payer = make_payer()
        holds = [await reserve(heard, payer, Amounts(tokens=1)) for _ in range(2)]
        await heard.progress(holds[0], Amounts(tokens=1))
        await heard.settle(holds[0], UsageFigures(output_tokens=1))
        await heard.release(holds[1])

        said = {call["op"]: (call.get("account"), call.get("key")) for call in listening.sent}
        whose = (str(payer.account_id), str(payer.api_key_id))
        assert said == dict.fromkeys(("reserve", "progress", "settle", "release"), whose)

    async def test_so_does_what_gives_back_for_a_caller_who_has_left(
        self, heard: PostgresBudgets, listening: ListeningDatabase
    ) -> None:
        payer = make_payer()
        caller = asyncio.create_task(reserve(heard, payer, Amounts(tokens=1)))
        listening.heard = caller.cancel
        with pytest.raises(asyncio.CancelledError):
            await caller

        async def given_back() -> bool:
            return bool(listening.sent[-1]["op"] == "release")

        await until(given_back)
        assert listening.sent[-1].get("account") == str(payer.account_id)
        assert listening.sent[-1].get("key") == str(payer.api_key_id)

    async def test_sent_again_it_is_looked_for_as_far_back_as_a_caller_waits(
        self, database: Database, superuser: Superuser
    ) -> None:
        payer = make_payer()
        now: datetime = await superuser.fetchval("SELECT now()")
        outcomes = []
        for age in (5, 60):
            hold_id = new_id()
            await superuser.execute(
                "INSERT INTO usage VALUES ($1, $2, now(), $3, NULL, 'account', NULL, 'm', NULL,"
                " 'r', 1, 0, 0, 0, 0, 0, 0, NULL, false, false)",
                *(hold_id, now - timedelta(seconds=age), payer.tenant_id),
            )
            call = reserving(payer, 1, hold_id, again=True)
            async with database.acquire() as connection:
                row = await connection.fetchrow(APPLY, work(call), now)
            assert row is not None
            outcomes.append(row["outcome"])

        assert outcomes == ["ended", "granted"]


class TestPrices:
    @pytest.mark.parametrize("currency", [None, "USD"])
    async def test_progress_is_in_the_currency_of_the_hold(
        self, budgets: PostgresBudgets, currency: str | None
    ) -> None:
        hold = await reserve(budgets, make_payer(), Amounts(tokens=5, currency=currency))

        with pytest.raises(ValueError, match="currency"):
            await budgets.progress(hold, Amounts(tokens=1, cost_nanos=5, currency="EUR"))

    async def test_progress_without_a_price_leaves_the_cost_that_is_held(
        self, budgets: PostgresBudgets, superuser: Superuser, settings: Settings
    ) -> None:
        wanted = Amounts(tokens=50, cost_nanos=70, currency="USD")
        hold = await reserve(budgets, make_payer(), wanted)
        await budgets.progress(hold, Amounts(tokens=10))
        await expire_all(superuser, settings)

        row = await superuser.fetchrow("SELECT output_tokens, cost_nanos FROM usage")
        assert row is not None
        assert tuple(row) == (10, 70)

    async def test_a_cost_noted_of_a_hold_without_a_price_does_not_keep_it(
        self,
        budgets: PostgresBudgets,
        database: Database,
        superuser: Superuser,
        settings: Settings,
    ) -> None:
        hold = await reserve(budgets, make_payer(), Amounts(tokens=50))
        call = {"op": "progress", "id": str(hold.id), "tokens": 10, "cost": 5, "storage": 0}
        async with database.acquire() as connection:
            await connection.fetch(APPLY, work(call), hold.created_at)

        assert await expire_all(superuser, settings) == 1
        assert await superuser.fetchval("SELECT cost_nanos FROM usage") == 0

    async def test_a_bill_for_a_call_without_a_price_is_an_overrun(
        self, budgets: PostgresBudgets, superuser: Superuser
    ) -> None:
        payer = make_payer()
        hold = await reserve(budgets, payer, Amounts(tokens=5))
        await limit(superuser, payer.account_id, "cost", 1_000)

        await budgets.settle(hold, UsageFigures(output_tokens=5, cost_nanos=5, currency="USD"))

        assert await superuser.fetchval("SELECT is_overrun FROM usage") is True
        assert await superuser.fetchval("SELECT is_closed FROM quota_balances") is True


class TestOverrunsAreTold:
    async def test_an_overrun_of_a_quota_used_up_already_is_told(
        self, budgets: PostgresBudgets, superuser: Superuser
    ) -> None:
        payer = make_payer()
        await limit(superuser, payer.account_id, "tokens", 100)
        holds = [await reserve(budgets, payer, Amounts(tokens=each)) for each in (95, 5)]
        await budgets.settle(holds[0], UsageFigures(output_tokens=95))
        await superuser.execute("UPDATE quotas SET limit_amount = 95")
        await superuser.execute("DELETE FROM quota_alerts")

        await budgets.settle(holds[1], UsageFigures(output_tokens=99))

        rows = await superuser.fetch("SELECT threshold, is_overrun, settled FROM quota_alerts")
        assert [tuple(row) for row in rows] == [(100, True, 194)]


class TestClocks:
    async def test_a_balance_made_late_begins_with_what_was_used(
        self, budgets: PostgresBudgets, database: Database, superuser: Superuser
    ) -> None:
        payer = make_payer()
        assert payer.api_key_id is not None
        subjects = {
            "user": payer.account_id,
            "key": payer.api_key_id,
            "tenant": DEFAULT_TENANT_ID,
        }
        for each in (payer, make_payer()):
            hold = await reserve(budgets, each, Amounts(tokens=100))
            await budgets.settle(hold, UsageFigures(output_tokens=100))
        # As if used last month; and the clock steps back there once the quotas are made.
        await superuser.execute(
            "UPDATE usage_months SET month = (month - interval '1 month')::date"
        )
        before: datetime = await superuser.fetchval(
            "SELECT date_trunc('month', now()) - '1 s'::interval"
        )
        for scope, subject in subjects.items():
            await limit(superuser, subject, "tokens", 1_000, scope=scope)

        async with database.acquire() as connection:
            call = reserving(payer, 1, key=str(payer.api_key_id))
            await connection.fetch(APPLY, work(call), before)

        rows = await superuser.fetch(
            "SELECT q.scope, b.settled FROM quotas q JOIN quota_balances b ON b.quota_id = q.id"
            " WHERE b.held = 1"
        )
        assert {row["scope"]: row["settled"] for row in rows} == {
            "user": 100,
            "key": 100,
            "tenant": 200,
        }


async def expire_all(superuser: Superuser, settings: Settings) -> int:
    await superuser.execute("UPDATE quota_holds SET lease_until = now() - interval '1 second'")
    return await expire_holds(settings.database, events=EVENTS)


class TestExpiry:
    async def test_progress_never_goes_back(
        self, budgets: PostgresBudgets, superuser: Superuser, settings: Settings
    ) -> None:
        hold = await reserve(
            budgets, make_payer(), Amounts(tokens=100, cost_nanos=100, currency="USD")
        )
        for each in (80, 20):
            noted = Amounts(tokens=each, cost_nanos=each, currency="USD")
            await budgets.progress(hold, noted)
        await asyncio.gather(
            budgets.progress(hold, Amounts(tokens=90)), budgets.progress(hold, Amounts(tokens=30))
        )
        await expire_all(superuser, settings)

        row = await superuser.fetchrow("SELECT output_tokens, cost_nanos FROM usage")
        assert row is not None
        assert tuple(row) == (90, 80)

    @pytest.mark.parametrize("most", [3, 100])
    async def test_holds_that_cannot_be_settled_hold_up_nobody_else(
        self,
        budgets: PostgresBudgets,
        superuser: Superuser,
        settings: Settings,
        monkeypatch: pytest.MonkeyPatch,
        most: int,
    ) -> None:
        monkeypatch.setattr(quota_expiry, "SLICE", 5)
        monkeypatch.setattr(quota_expiry, "MAX_FAILURES", most, raising=False)
        payer = make_payer()
        tokens = await limit(superuser, payer.account_id, "tokens", 100)
        await reserve(budgets, payer, Amounts(tokens=60))
        # A cost that has no currency is what the ledger refuses.
        await superuser.execute(
            "INSERT INTO quota_holds (id, tenant_id, account_id, actor_kind, model, request_id,"
            " requests, tokens, cost_nanos, storage_bytes, created_at, lease, lease_until)"
            " SELECT gen_random_uuid(), $1, gen_random_uuid(), 'account', 'm', 'r', 1, 1, 5, 0,"
            " now(), '1 min', now() - interval '1 hour' FROM generate_series(1, 12)",
            await make_tenant(superuser),
        )

        await superuser.execute(
            "UPDATE quota_holds SET lease_until = now() - interval '1 second'"
            " WHERE lease_until > now()"
        )
        expired = await expire_holds(settings.database, events=EVENTS)

        assert expired == 1
        assert await balance(superuser, tokens) == (60, 0)
        assert await superuser.fetchval("SELECT count(*) FROM quota_holds") == 12

    async def test_serving_roles_look_up_what_has_expired_by_the_databases_clock(
        self, database: Database, budgets: PostgresBudgets, superuser: Superuser
    ) -> None:
        hold = await reserve(budgets, make_payer(), Amounts())
        async with database.acquire() as connection:
            before = await connection.fetch(EXPIRED, 5_000)
        await superuser.execute(
            "INSERT INTO quota_holds (id, tenant_id, account_id, actor_kind, model, request_id,"
            " requests, tokens, cost_nanos, storage_bytes, created_at, lease, lease_until)"
            " SELECT gen_random_uuid(), tenant_id, account_id, 'account', 'm', 'r', 1, 1, 0, 0,"
            " now(), '1 min', now() FROM quota_holds, generate_series(1, 1001) WHERE id = $1",
            hold.id,
        )

        async with database.acquire() as connection:
            after = await connection.fetch(EXPIRED, 5_000)
        assert (len(before), len(after)) == (0, 1_000)


class TestGrants:
    async def test_what_was_reached_is_told_by_the_system_role_alone(
        self, superuser: Superuser
    ) -> None:
        held = await superuser.fetch(
            "SELECT r.role, p.privilege"
            " FROM unnest(ARRAY['maas_app', 'maas_system']) AS r(role),"
            " unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS p(privilege)"
            " WHERE has_table_privilege(r.role, 'quota_alerts', p.privilege)"
        )

        assert {tuple(row) for row in held} == {
            ("maas_app", "INSERT"),
            ("maas_system", "SELECT"),
            ("maas_system", "DELETE"),
        }

    async def test_a_month_of_the_ledger_is_nobodys_whatever_is_given_by_default(
        self, superuser: Superuser
    ) -> None:
        attempt = superuser.transaction()
        await attempt.start()
        await superuser.execute(
            "ALTER DEFAULT PRIVILEGES FOR ROLE maas_owner GRANT ALL ON TABLES"
            " TO PUBLIC, maas_app, maas_system"
        )
        name = await superuser.fetchval("SELECT usage_ensure_partition(now() + '9 months')")
        granted = await superuser.fetchval(
            "SELECT count(*) FROM pg_class c, aclexplode(c.relacl) a"
            " WHERE c.relname = $1 AND a.grantee <> c.relowner",
            name,
        )
        await attempt.rollback()

        assert granted == 0


class TestWhatIsHeld:
    @pytest.mark.parametrize("meter", ["tokens", "cost"])
    async def test_what_is_only_set_aside_may_be_had_soon(
        self, budgets: PostgresBudgets, superuser: Superuser, meter: Literal["tokens", "cost"]
    ) -> None:
        payer = make_payer()
        await limit(superuser, payer.account_id, meter, 100)
        all_of_it = Amounts(tokens=100, cost_nanos=100, currency="USD")
        hold = await reserve(budgets, payer, all_of_it)

        with pytest.raises((QuotaExceededError, BudgetExceededError)) as refusal:
            await reserve(budgets, payer, Amounts(tokens=10, cost_nanos=10, currency="USD"))
        await budgets.settle(hold, UsageFigures(output_tokens=91, cost_nanos=91, currency="USD"))
        with pytest.raises((QuotaExceededError, BudgetExceededError)) as used_up:
            await reserve(budgets, payer, Amounts(tokens=10, cost_nanos=10, currency="USD"))

        assert refusal.value.retry_after == HELD_WAIT
        assert used_up.value.retry_after is None or used_up.value.retry_after > HELD_WAIT


class TestText:
    @pytest.mark.parametrize("text", ["a\x00b", "\ud800", "", "x" * 513])
    async def test_names_that_cannot_be_booked_are_a_mistake(
        self, budgets: PostgresBudgets, superuser: Superuser, text: str
    ) -> None:
        for name in ("model", "request_id"):
            with pytest.raises(ValueError, match=name):
                await reserve(budgets, make_payer(), Amounts(), **{name: text})
        assert await superuser.fetchval("SELECT count(*) FROM quota_holds") == 0
        hold = await reserve(budgets, make_payer(), Amounts())
        with pytest.raises(ValueError, match="provider"):
            await budgets.settle(hold, UsageFigures(provider=text))

    @pytest.mark.parametrize("lease", [timedelta(), timedelta(seconds=-5), timedelta(days=32)])
    async def test_a_lease_lies_ahead_and_ends(
        self, budgets: PostgresBudgets, lease: timedelta
    ) -> None:
        with pytest.raises(ValueError, match="lease"):
            await reserve(budgets, make_payer(), Amounts(), lease=lease)
