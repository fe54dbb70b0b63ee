"""What a call is granted, and how it is booked, against PostgreSQL."""

import asyncio
import dataclasses
import json
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from maas.shared.domain.ids import DEFAULT_TENANT_ID
from maas.shared.infrastructure.database import Database
from maas.shared.infrastructure.settings import Settings
from maas.user.infrastructure.quota_budgets import PostgresBudgets
from maas.user.infrastructure.quota_expiry import expire_holds
from maas.user.public import (
    Amounts,
    BudgetCurrencyError,
    BudgetExceededError,
    QuotaExceededError,
    UsageFigures,
)
from tests.integration.user.charging import (
    EVENTS,
    Superuser,
    balance,
    limit,
    make_payer,
    make_tenant,
    miscounted,
    reserve,
)

pytestmark = pytest.mark.integration

MAX = 2**63 - 1
APPLY = "SELECT * FROM quota_apply($1::jsonb, $2)"
PAST = timedelta(milliseconds=1)


@pytest.fixture
async def budgets(database: Database) -> AsyncIterator[PostgresBudgets]:
    budgets = PostgresBudgets(database)
    yield budgets
    await budgets.close()


class TestCharging:
    async def test_a_call_is_held_in_every_scope_and_settled_to_what_it_used(
        self, budgets: PostgresBudgets, superuser: Superuser
    ) -> None:
        payer = make_payer()
        assert payer.api_key_id is not None
        tokens = [
            await limit(superuser, DEFAULT_TENANT_ID, "tokens", 10_000),
            await limit(superuser, payer.account_id, "tokens", 5_000),
            await limit(superuser, payer.api_key_id, "tokens", 1_000, scope="key", period="total"),
        ]
        cost = await limit(superuser, payer.account_id, "cost", 10**9)
        requests = await limit(superuser, payer.account_id, "requests", 10)

        hold = await reserve(budgets, payer, Amounts(tokens=500, cost_nanos=700, currency="USD"))
        held = [await balance(superuser, each) for each in (*tokens, cost, requests)]
        await budgets.settle(
            hold,
            UsageFigures(
                input_tokens=100,
                cached_tokens=50,
                output_tokens=200,
                reasoning_tokens=30,
                cost_nanos=400,
                currency="USD",
                provider="openai",
            ),
        )
        settled = [await balance(superuser, each) for each in (*tokens, cost, requests)]
        row = await superuser.fetchrow("SELECT * FROM usage")

        assert held == [(0, 500)] * 3 + [(0, 700), (0, 1)]
        assert settled == [(330, 0)] * 3 + [(400, 0), (1, 0)]
        assert row is not None
        assert (row["id"], row["at"]) == (hold.id, hold.created_at)
        assert (row["model"], row["provider"], row["request_id"]) == ("gemma", "openai", "r1")
        assert (row["account_id"], row["api_key_id"]) == (payer.account_id, payer.api_key_id)
        assert (row["is_estimated"], row["is_overrun"]) == (False, False)
        assert await superuser.fetchval("SELECT count(*) FROM quota_holds") == 0

    async def test_released_it_costs_nothing(
        self, budgets: PostgresBudgets, superuser: Superuser
    ) -> None:
        payer = make_payer()
        tokens = await limit(superuser, payer.account_id, "tokens", 100)

        hold = await reserve(budgets, payer, Amounts(tokens=100))
        await budgets.release(hold)
        await budgets.release(hold)
        await budgets.settle(hold, UsageFigures(output_tokens=7))

        assert await balance(superuser, tokens) == (0, 0)
        assert await superuser.fetchval("SELECT count(*) FROM usage") == 0

    async def test_settled_twice_it_is_booked_once(
        self, budgets: PostgresBudgets, superuser: Superuser
    ) -> None:
        payer = make_payer()
        tokens = await limit(superuser, payer.account_id, "tokens", 100)

        hold = await reserve(budgets, payer, Amounts(tokens=50))
        await budgets.settle(hold, UsageFigures(output_tokens=7))
        await budgets.settle(hold, UsageFigures(output_tokens=9))
        await budgets.release(hold)

        assert await balance(superuser, tokens) == (7, 0)
        assert await miscounted(superuser) == []

    async def test_a_call_that_no_quota_binds_stands_in_the_ledger(
        self, budgets: PostgresBudgets, superuser: Superuser
    ) -> None:
        hold = await reserve(budgets, make_payer(), Amounts(tokens=10**12))
        await budgets.settle(hold, UsageFigures(output_tokens=3))

        assert await superuser.fetchval("SELECT output_tokens FROM usage") == 3

    async def test_a_quota_may_be_as_large_as_it_gets(
        self, budgets: PostgresBudgets, superuser: Superuser
    ) -> None:
        payer = make_payer()
        cost = await limit(superuser, payer.account_id, "cost", MAX)
        await superuser.execute("UPDATE quota_balances SET settled = $1", MAX - 10)

        hold = await reserve(budgets, payer, Amounts(cost_nanos=10, currency="USD"))
        with pytest.raises(BudgetExceededError) as refusal:
            await reserve(budgets, payer, Amounts(cost_nanos=1, currency="USD"))
        await budgets.settle(hold, UsageFigures(cost_nanos=10**17, currency="USD"))

        assert refusal.value.extensions["limit"] == str(MAX)
        assert await balance(superuser, cost) == (MAX, 0)


class TestRefusals:
    async def test_a_quota_that_is_used_up_says_so(
        self, budgets: PostgresBudgets, superuser: Superuser
    ) -> None:
        payer = make_payer()
        await limit(superuser, payer.account_id, "tokens", 100)
        hold = await reserve(budgets, payer, Amounts(tokens=60))
        await budgets.settle(hold, UsageFigures(output_tokens=40))
        await reserve(budgets, payer, Amounts(tokens=30))

        with pytest.raises(QuotaExceededError) as refusal:
            await reserve(budgets, payer, Amounts(tokens=31))

        found = refusal.value.shortage
        assert (found.scope, found.meter, found.period) == ("user", "tokens", "month")
        assert (found.limit, found.used, found.held) == (100, 40, 30)
        assert found.resets_at is not None
        assert found.resets_at.day == 1
        assert refusal.value.retry_after is not None
        assert timedelta() < refusal.value.retry_after < timedelta(days=32)

    async def test_each_scope_binds(self, budgets: PostgresBudgets, superuser: Superuser) -> None:
        payer = make_payer()
        assert payer.api_key_id is not None
        subjects = {
            "tenant": DEFAULT_TENANT_ID,
            "user": payer.account_id,
            "key": payer.api_key_id,
        }
        for scope, subject in subjects.items():
            quota_id = await limit(superuser, subject, "requests", 0, scope=scope, period="total")

            with pytest.raises(QuotaExceededError) as refusal:
                await reserve(budgets, payer, Amounts())

            assert refusal.value.shortage.scope == scope
            assert refusal.value.retry_after is None
            await superuser.execute("DELETE FROM quotas WHERE id = $1", quota_id)

    async def test_money_is_refused_as_money_and_first(
        self, budgets: PostgresBudgets, superuser: Superuser
    ) -> None:
        payer = make_payer()
        await limit(superuser, payer.account_id, "tokens", 0)
        await limit(superuser, DEFAULT_TENANT_ID, "cost", 10)

        with pytest.raises(BudgetExceededError) as refusal:
            await reserve(budgets, payer, Amounts(tokens=1, cost_nanos=11, currency="USD"))

        assert refusal.value.shortage.currency == "USD"

    @pytest.mark.parametrize("currency", ["EUR", None])
    async def test_a_call_without_a_price_in_the_budgets_currency_is_refused(
        self, budgets: PostgresBudgets, superuser: Superuser, currency: str | None
    ) -> None:
        payer = make_payer()
        await limit(superuser, payer.account_id, "cost", 10**9)

        with pytest.raises(BudgetCurrencyError):
            await reserve(budgets, payer, Amounts(tokens=1, currency=currency))

    async def test_bytes_need_no_price(
        self, budgets: PostgresBudgets, superuser: Superuser
    ) -> None:
        payer = make_payer()
        await limit(superuser, payer.account_id, "cost", 10**9)
        storage = await limit(superuser, payer.account_id, "storage", 1_000)

        hold = await reserve(budgets, payer, Amounts(requests=0, storage_bytes=1_000))
        await budgets.settle(hold, UsageFigures(storage_bytes=900))

        assert await balance(superuser, storage) == (900, 0)

    async def test_what_is_refused_holds_nothing_anywhere(
        self, budgets: PostgresBudgets, superuser: Superuser
    ) -> None:
        payer = make_payer()
        roomy = await limit(superuser, DEFAULT_TENANT_ID, "tokens", 1_000)
        await limit(superuser, payer.account_id, "tokens", 10)

        with pytest.raises(QuotaExceededError):
            await reserve(budgets, payer, Amounts(tokens=11))

        assert await balance(superuser, roomy) == (0, 0)
        assert await superuser.fetchval("SELECT count(*) FROM quota_holds") == 0


class TestClamping:
    async def test_a_call_gets_what_is_left(
        self, budgets: PostgresBudgets, superuser: Superuser
    ) -> None:
        payer = make_payer()
        tokens = await limit(superuser, payer.account_id, "tokens", 1_000)

        hold = await reserve(budgets, payer, Amounts(tokens=4_100), least=Amounts(tokens=100))

        assert hold.granted == Amounts(tokens=1_000)
        assert await balance(superuser, tokens) == (0, 1_000)

    async def test_all_meters_are_cut_in_one_proportion(
        self, budgets: PostgresBudgets, superuser: Superuser
    ) -> None:
        payer = make_payer()
        await limit(superuser, payer.account_id, "tokens", 1_100)
        await limit(superuser, payer.account_id, "cost", 10**9)

        hold = await reserve(
            budgets,
            payer,
            Amounts(tokens=4_100, cost_nanos=41_000, currency="USD"),
            least=Amounts(tokens=100, cost_nanos=1_000, currency="USD"),
        )

        # 1,000 of 4,000 more tokens, so a quarter of the price of them, and two for rounding.
        assert hold.granted.tokens == 1_100
        assert hold.granted.cost_nanos == 11_002

    @pytest.mark.parametrize("room", [1_000, 1_001, 1_002, 1_003, 7_777, 40_999])
    async def test_money_left_buys_no_more_tokens_than_it_pays_for(
        self, budgets: PostgresBudgets, superuser: Superuser, room: int
    ) -> None:
        payer = make_payer()
        await limit(superuser, payer.account_id, "cost", room)

        hold = await reserve(
            budgets,
            payer,
            Amounts(tokens=4_100, cost_nanos=41_000, currency="USD"),
            least=Amounts(tokens=100, cost_nanos=1_000, currency="USD"),
        )

        assert 100 <= hold.granted.tokens <= hold.granted.cost_nanos / 10
        assert room - 12 <= hold.granted.cost_nanos <= room

    async def test_less_than_the_least_is_refused(
        self, budgets: PostgresBudgets, superuser: Superuser
    ) -> None:
        payer = make_payer()
        await limit(superuser, payer.account_id, "tokens", 99)

        with pytest.raises(QuotaExceededError):
            await reserve(budgets, payer, Amounts(tokens=200), least=Amounts(tokens=100))

    @pytest.mark.parametrize(
        "least", [Amounts(tokens=11), Amounts(tokens=1, currency="EUR"), Amounts(requests=2)]
    )
    async def test_a_least_beyond_what_is_wanted_is_a_mistake(
        self, budgets: PostgresBudgets, least: Amounts
    ) -> None:
        with pytest.raises(ValueError, match="the least"):
            await reserve(budgets, make_payer(), Amounts(tokens=10), least=least)


class TestOverruns:
    async def test_more_than_was_held_is_booked_and_closes_what_it_lay_on(
        self, budgets: PostgresBudgets, superuser: Superuser
    ) -> None:
        payer = make_payer()
        tokens = await limit(superuser, payer.account_id, "tokens", 1_000)
        requests = await limit(superuser, payer.account_id, "requests", 1_000)

        hold = await reserve(budgets, payer, Amounts(tokens=100))
        await budgets.settle(hold, UsageFigures(output_tokens=150))
        with pytest.raises(QuotaExceededError):
            await reserve(budgets, payer, Amounts(tokens=1), least=Amounts(tokens=0))
        await reserve(budgets, payer, Amounts(tokens=0))
        alerts = await superuser.fetch("SELECT threshold, is_overrun, settled FROM quota_alerts")
        closed = await superuser.fetch("SELECT quota_id FROM quota_balances WHERE is_closed")

        assert await superuser.fetchval("SELECT is_overrun FROM usage") is True
        assert await balance(superuser, tokens) == (150, 0)
        assert [row["quota_id"] for row in closed] == [tokens]
        assert [tuple(row) for row in alerts] == [(100, True, 150)]
        assert await balance(superuser, requests) == (1, 1)

    async def test_setting_the_limit_opens_it_again(
        self, budgets: PostgresBudgets, superuser: Superuser
    ) -> None:
        payer = make_payer()
        tokens = await limit(superuser, payer.account_id, "tokens", 1_000)
        hold = await reserve(budgets, payer, Amounts(tokens=100))
        await budgets.settle(hold, UsageFigures(output_tokens=150))

        await superuser.execute("UPDATE quotas SET version = 2 WHERE id = $1", tokens)

        assert (await reserve(budgets, payer, Amounts(tokens=850))).granted.tokens == 850

    async def test_a_bill_in_another_currency_is_an_overrun(
        self, budgets: PostgresBudgets, superuser: Superuser
    ) -> None:
        payer = make_payer()
        cost = await limit(superuser, payer.account_id, "cost", 1_000)
        hold = await reserve(budgets, payer, Amounts(cost_nanos=500, currency="USD"))

        await budgets.settle(hold, UsageFigures(cost_nanos=5, currency="EUR"))

        assert await balance(superuser, cost) == (0, 0)
        with pytest.raises(BudgetExceededError):
            await reserve(budgets, payer, Amounts(cost_nanos=1, currency="USD"))
        row = await superuser.fetchrow("SELECT cost_nanos, currency, is_overrun FROM usage")
        assert row is not None
        assert tuple(row) == (5, "EUR", True)


class TestAlerts:
    async def test_each_threshold_is_told_once(
        self, budgets: PostgresBudgets, superuser: Superuser
    ) -> None:
        payer = make_payer()
        await limit(superuser, payer.account_id, "tokens", 100)
        told = []
        for used in (79, 1, 1, 19, 0):
            hold = await reserve(budgets, payer, Amounts(tokens=used))
            await budgets.settle(hold, UsageFigures(output_tokens=used))
            rows = await superuser.fetch("SELECT threshold FROM quota_alerts ORDER BY 1")
            told.append([row["threshold"] for row in rows])

        assert told == [[], [80], [80], [80, 100], [80, 100]]

    async def test_a_higher_limit_is_told_of_anew(
        self, budgets: PostgresBudgets, superuser: Superuser
    ) -> None:
        payer = make_payer()
        tokens = await limit(superuser, payer.account_id, "tokens", 100)
        hold = await reserve(budgets, payer, Amounts(tokens=100))
        await budgets.settle(hold, UsageFigures(output_tokens=100))

        await superuser.execute("UPDATE quotas SET limit_amount = 1000 WHERE id = $1", tokens)
        hold = await reserve(budgets, payer, Amounts(tokens=700))
        await budgets.settle(hold, UsageFigures(output_tokens=700))

        rows = await superuser.fetch("SELECT threshold, limit_amount FROM quota_alerts ORDER BY 2")
        assert sorted(tuple(row) for row in rows) == [(80, 100), (80, 1_000), (100, 100)]


class TestQuotasThatComeAndGo:
    async def test_a_new_one_begins_with_what_was_used_and_is_held(
        self, budgets: PostgresBudgets, superuser: Superuser
    ) -> None:
        payer, stranger = make_payer(), make_payer()
        for each in (payer, stranger):
            hold = await reserve(budgets, each, Amounts(tokens=50, cost_nanos=9, currency="USD"))
            await budgets.settle(hold, UsageFigures(input_tokens=30, cost_nanos=6, currency="USD"))
        open_hold = await reserve(budgets, payer, Amounts(tokens=20, cost_nanos=4, currency="USD"))

        mine = await limit(superuser, payer.account_id, "tokens", 60)
        all_of_us = await limit(superuser, DEFAULT_TENANT_ID, "tokens", 1_000, period="total")
        dollars = await limit(superuser, payer.account_id, "cost", 100)
        euros = await limit(
            superuser, payer.account_id, "cost", 100, currency="EUR", period="total"
        )

        assert await balance(superuser, mine) == (30, 20)
        assert await balance(superuser, all_of_us) == (60, 20)
        assert await balance(superuser, dollars) == (6, 4)
        assert await balance(superuser, euros) == (0, 0)
        await superuser.execute("DELETE FROM quotas WHERE id = $1", euros)
        await budgets.settle(open_hold, UsageFigures(input_tokens=5, currency="USD", cost_nanos=1))
        assert await miscounted(superuser) == []

    async def test_one_that_is_deleted_is_forgotten_by_its_holds(
        self, budgets: PostgresBudgets, superuser: Superuser
    ) -> None:
        payer = make_payer()
        tokens = await limit(superuser, payer.account_id, "tokens", 100)
        hold = await reserve(budgets, payer, Amounts(tokens=100))

        await superuser.execute("DELETE FROM quotas WHERE id = $1", tokens)
        await reserve(budgets, payer, Amounts(tokens=1_000))
        await budgets.settle(hold, UsageFigures(output_tokens=70))
        again = await limit(superuser, payer.account_id, "tokens", 2_000)

        assert await balance(superuser, again) == (70, 1_000)

    async def test_a_limit_below_what_is_used_grants_nothing_more(
        self, budgets: PostgresBudgets, superuser: Superuser
    ) -> None:
        payer = make_payer()
        tokens = await limit(superuser, payer.account_id, "tokens", 100)
        hold = await reserve(budgets, payer, Amounts(tokens=90))

        await superuser.execute("UPDATE quotas SET limit_amount = 10 WHERE id = $1", tokens)
        with pytest.raises(QuotaExceededError):
            await reserve(budgets, payer, Amounts(tokens=5), least=Amounts(tokens=1))
        await budgets.settle(hold, UsageFigures(output_tokens=5))

        assert (await reserve(budgets, payer, Amounts(tokens=5))).granted.tokens == 5


class TestMonths:
    async def test_a_hold_of_october_is_settled_into_october(
        self, database: Database, superuser: Superuser
    ) -> None:
        payer = make_payer()
        monthly = await limit(superuser, payer.account_id, "tokens", 100)
        total = await limit(superuser, payer.account_id, "tokens", 1_000, period="total")
        now: datetime = await superuser.fetchval("SELECT now()")
        this_month = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        before, after = this_month - PAST, this_month + PAST

        async def apply(at: datetime, **call: Any) -> str:
            work = [{"tenant": str(payer.tenant_id), "calls": [{"n": 0, "again": False, **call}]}]
            async with database.acquire() as connection:
                row = await connection.fetchrow(APPLY, json.dumps(work), at)
            assert row is not None
            return str(row["outcome"])

        def reserving(number: int, tokens: int) -> dict[str, object]:
            return {
                "op": "reserve", "id": str(UUID(int=number)), "account": str(payer.account_id),
                "kind": "account", "model": "m", "request": "r", "lease": 60, "requests": 1,
                "tokens": tokens, "cost": 0, "storage": 0,
            }  # fmt: skip

        def settling(number: int, tokens: int) -> dict[str, object]:
            return {
                "op": "settle", "id": str(UUID(int=number)), "input": tokens, "cached": 0,
                "output": 0, "reasoning": 0, "cost": 0, "storage": 0, "estimated": False,
            }  # fmt: skip

        outcomes = [
            await apply(before, **reserving(1, 100)),
            await apply(before, **reserving(2, 1)),
            await apply(after, **reserving(3, 100)),
            await apply(after, **settling(1, 40)),
            await apply(after, **settling(3, 70)),
        ]

        rows = await superuser.fetch(
            "SELECT quota_id, settled, held FROM quota_balances WHERE settled > 0"
            " ORDER BY quota_id = $1, period_start",
            total,
        )
        assert outcomes == ["granted", "exceeded", "granted", "done", "done"]
        assert [tuple(row) for row in rows] == [(monthly, 40, 0), (monthly, 70, 0), (total, 110, 0)]
        months = await superuser.fetch("SELECT at FROM usage ORDER BY at")
        assert [row["at"] for row in months] == [before, after]


class TestExpiry:
    async def expire(self, superuser: Superuser, settings: Settings) -> int:
        await superuser.execute("UPDATE quota_holds SET lease_until = now() - interval '1 second'")
        return await expire_holds(settings.database, events=EVENTS)

    async def test_a_hold_nobody_settles_is_booked_in_full(
        self, budgets: PostgresBudgets, superuser: Superuser, settings: Settings
    ) -> None:
        payer = make_payer()
        tokens = await limit(superuser, payer.account_id, "tokens", 100)
        await reserve(budgets, payer, Amounts(tokens=60, cost_nanos=5, currency="USD"))

        expired = await self.expire(superuser, settings)

        assert expired == 1
        assert await balance(superuser, tokens) == (60, 0)
        row = await superuser.fetchrow("SELECT output_tokens, cost_nanos, is_estimated FROM usage")
        assert row is not None
        assert tuple(row) == (60, 5, True)

    async def test_or_to_the_last_progress(
        self, budgets: PostgresBudgets, superuser: Superuser, settings: Settings
    ) -> None:
        payer = make_payer()
        tokens = await limit(superuser, payer.account_id, "tokens", 100)
        hold = await reserve(budgets, payer, Amounts(tokens=60))
        await budgets.progress(hold, Amounts(tokens=10))
        await budgets.progress(hold, Amounts(tokens=25))

        await self.expire(superuser, settings)
        await budgets.settle(hold, UsageFigures(output_tokens=33))
        await budgets.progress(hold, Amounts(tokens=40))

        assert await balance(superuser, tokens) == (25, 0)
        assert await superuser.fetchval("SELECT count(*) FROM usage") == 1

    async def test_progress_begins_the_lease_anew(
        self, budgets: PostgresBudgets, superuser: Superuser, settings: Settings
    ) -> None:
        hold = await reserve(budgets, make_payer(), Amounts(tokens=60))
        await superuser.execute("UPDATE quota_holds SET lease_until = now() - interval '1 second'")

        await budgets.progress(hold, Amounts(tokens=10))

        assert await expire_holds(settings.database, events=EVENTS) == 0
        assert await superuser.fetchval("SELECT lease_until FROM quota_holds") >= hold.lease_until

    async def test_a_lease_renewed_of_a_call_nothing_is_known_of_is_booked_in_full(
        self, budgets: PostgresBudgets, superuser: Superuser, settings: Settings
    ) -> None:
        wanted = Amounts(tokens=60, cost_nanos=600, currency="USD")
        hold = await reserve(budgets, make_payer(), wanted)
        await superuser.execute("UPDATE quota_holds SET lease_until = now() - interval '1 second'")

        await budgets.renew(hold)
        left = await expire_holds(settings.database, events=EVENTS)
        await self.expire(superuser, settings)

        row = await superuser.fetchrow("SELECT output_tokens, cost_nanos FROM usage")
        assert left == 0
        assert row is not None
        assert tuple(row) == (60, 600)

    async def test_whoever_comes_first_books_and_nobody_else(
        self, budgets: PostgresBudgets, superuser: Superuser, settings: Settings
    ) -> None:
        payer = make_payer()
        await limit(superuser, payer.account_id, "tokens", 10_000)
        holds = [await reserve(budgets, payer, Amounts(tokens=10)) for _ in range(60)]
        await superuser.execute("UPDATE quota_holds SET lease_until = now() - interval '1 second'")

        await asyncio.gather(
            expire_holds(settings.database, events=EVENTS),
            expire_holds(settings.database, events=EVENTS),
            *(budgets.settle(hold, UsageFigures(output_tokens=3)) for hold in holds),
        )

        assert await superuser.fetchval("SELECT count(*) FROM usage") == len(holds)
        assert await superuser.fetchval("SELECT count(*) FROM quota_holds") == 0
        assert await miscounted(superuser) == []


class TestTenants:
    async def test_another_tenants_hold_is_out_of_reach(
        self, budgets: PostgresBudgets, superuser: Superuser
    ) -> None:
        theirs = make_payer(await make_tenant(superuser))
        tokens = await limit(superuser, theirs.tenant_id, "tokens", 100, tenant_id=theirs.tenant_id)
        hold = await reserve(budgets, theirs, Amounts(tokens=100))

        await budgets.release(dataclasses.replace(hold, payer=make_payer()))
        await budgets.settle(dataclasses.replace(hold, payer=make_payer()), UsageFigures())

        assert await balance(superuser, tokens) == (0, 100)

    @pytest.mark.parametrize("table", ["quotas", "quota_balances", "quota_holds"])
    async def test_no_row_of_another_tenant_is_shown(
        self, database: Database, budgets: PostgresBudgets, superuser: Superuser, table: str
    ) -> None:
        theirs = make_payer(await make_tenant(superuser))
        await limit(superuser, theirs.account_id, "tokens", 10, tenant_id=theirs.tenant_id)
        hold = await reserve(budgets, theirs, Amounts(tokens=10))
        await budgets.settle(hold, UsageFigures(output_tokens=10))
        await reserve(budgets, theirs, Amounts(tokens=0))

        async with database.tenant(DEFAULT_TENANT_ID) as connection:
            assert await connection.fetch(f"SELECT * FROM {table}") == []
        assert await superuser.fetchval(f"SELECT count(*) FROM {table}") > 0
        with pytest.raises(asyncpg.PostgresError):
            await database.fetchrow(f"SELECT * FROM {table}")
