"""A call's hold, row and event against PostgreSQL: one of each, whoever dies when."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from typing_extensions import override

from maas.audit.public import audited
from maas.inference.application.metering import Meter
from maas.inference.application.ports import AttemptFacts, Charge, Try
from maas.inference.domain.call import Ask, TokenCounts
from maas.inference.domain.route import Origin, Route, TargetPrice
from maas.inference.infrastructure.replays import PostgresReplays
from maas.model.public import PriceId, ProviderId
from maas.shared.domain.call import Call, serving
from maas.shared.domain.errors import TooManyRequestsError
from maas.shared.domain.ids import DEFAULT_TENANT_ID, SessionId
from maas.shared.domain.pricing import Price, Prices
from maas.shared.domain.principal import Principal
from maas.shared.infrastructure.database import Database, PooledConnection
from maas.shared.infrastructure.settings import Settings
from maas.user.infrastructure import quota_budgets
from maas.user.infrastructure.quota_budgets import PostgresBudgets
from maas.user.infrastructure.quota_expiry import expire_holds
from maas.user.public import (
    BudgetCurrencyError,
    BudgetExceededError,
    Payer,
    QuotaExceededError,
)
from tests.factories.calls import make_ask
from tests.factories.routes import make_route, make_target
from tests.fakes.recorder import FakeRecorder
from tests.fakes.trail import FakeTrail
from tests.integration.user.charging import (
    EVENTS,
    Superuser,
    balance,
    limit,
    make_payer,
    miscounted,
    until,
)

pytestmark = pytest.mark.integration

PRICE = TargetPrice(
    id=PriceId(UUID(int=77)),
    prices=Prices(
        currency="USD",
        input=Price(Decimal("2.5")),
        output=Price(Decimal(10)),
        cached=Price(Decimal("0.000000000001")),
    ),
)
COUNTS = TokenCounts(input=80, cached=20, output=30, reasoning=5)


class Away(Database):
    """Lets nobody in while it is away, or no more than so many; what it does may be lost on us."""

    is_away = False
    is_lost = False
    lets_in: int | None = None

    @override
    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[PooledConnection]:
        if self.is_away or self.lets_in == 0:
            raise ConnectionRefusedError
        if self.lets_in is not None:
            self.lets_in -= 1
        async with super().acquire() as connection:
            yield connection
        if self.is_lost:
            raise ConnectionResetError


class Minutes:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.seconds = 1_000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def trail() -> FakeTrail:
    return FakeTrail()


@pytest.fixture
def clock() -> Minutes:
    return Minutes()


@pytest.fixture
async def away(settings: Settings, clean: None) -> AsyncIterator[Away]:
    database = Away(settings.database)
    await database.open()
    yield database
    await database.close()


@pytest.fixture
async def replays(away: Away) -> AsyncIterator[PostgresReplays]:
    replays = PostgresReplays(away, secret_key="s" * 64)
    yield replays
    await replays.close()


@pytest.fixture
async def meter(
    away: Away, trail: FakeTrail, clock: Minutes, replays: PostgresReplays
) -> AsyncIterator[Meter]:
    budgets = PostgresBudgets(away, offer=trail.offer)
    meter = Meter(budgets=budgets, trail=trail, replays=replays, now=clock)
    yield meter
    await meter.close()
    await budgets.close()


@pytest.fixture
def recorder() -> FakeRecorder:
    return FakeRecorder()


@pytest.fixture
def payer(recorder: FakeRecorder) -> Iterator[Payer]:
    """Somebody whose call is being served."""
    payer = make_payer()
    principal = Principal(
        kind="account",
        account_id=payer.account_id,
        tenant_id=payer.tenant_id,
        username="ada",
        permissions=frozenset(),
        version=1,
        session_id=SessionId(UUID(int=5)),
        api_key_id=payer.api_key_id,
    )
    call = Call(request_id="r-1", recorder=recorder, address="192.0.2.7", user_agent="openai")
    call.act_as(principal)
    with serving(call):
        yield payer


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make callers wait for PostgreSQL for no longer than a test can."""
    monkeypatch.setattr(quota_budgets, "PATIENCE_SECONDS", 0.1)


def ours(**values: Any) -> Route:
    origin = Origin(provider_id=ProviderId(UUID(int=9)), provider_name="acme", digest="ab" * 32)
    target = make_target(price=values.pop("price", PRICE), origin=origin)
    return make_route(target, **{"tenant_id": DEFAULT_TENANT_ID, **values})


def facts_of(charge: Charge, status: int | None = 200) -> AttemptFacts:
    target = charge.route.targets[0]
    took = timedelta(milliseconds=12)
    tries = [
        Try(target_id=target.id, status=None, fault="connect", took=took),
        Try(target_id=target.id, status=status, fault=None, took=took),
    ]
    return AttemptFacts(
        target=target, tries=tries, decision="the only one", status=status, first_byte=took
    )


async def begin(
    meter: Meter, payer: Payer, route: Route | None = None, ask: Ask | None = None
) -> Charge:
    return await meter.begin(
        payer=payer,
        route=route or ours(),
        ask=ask or make_ask(most_output=200),
        request_id="r-1",
    )


async def settle(meter: Meter, charge: Charge, counts: TokenCounts | None = COUNTS) -> None:
    await meter.settle(
        charge, facts=facts_of(charge), counts=counts, seen=COUNTS, outcome="success"
    )


async def events(superuser: Superuser) -> list[dict[str, Any]]:
    rows = await superuser.fetch("SELECT payload FROM audit_outbox ORDER BY created_at, event_id")
    return [json.loads(row["payload"]) for row in rows]


async def expire(superuser: Superuser, settings: Settings) -> int:
    await superuser.execute("UPDATE quota_holds SET lease_until = now() - interval '1 second'")
    return await expire_holds(settings.database, events=EVENTS)


async def rows_and_events(superuser: Superuser) -> tuple[int, int]:
    rows = await superuser.fetchval("SELECT count(*) FROM usage")
    return rows, len(await events(superuser))


class TestReceipt:
    async def test_the_event_tells_all_of_the_call_and_nothing_of_the_prompt(
        self, meter: Meter, payer: Payer, superuser: Superuser, trail: FakeTrail
    ) -> None:
        charge = await begin(meter, payer)
        await settle(meter, charge)

        [event] = await events(superuser)
        after = event["changes"]["after"]
        took = after.pop("duration_ms")
        target = str(charge.route.targets[0].id)
        assert 0 <= took < 5_000
        assert (event["action"], event["outcome"]) == ("inference.completed", "success")
        assert event["resource"] == {"kind": "deployment", "id": str(charge.route.deployment_id)}
        assert event["actor"] == {"kind": "account", "id": str(payer.account_id)}
        assert (event["api_key_id"], event["request_id"]) == (str(payer.api_key_id), "r-1")
        assert set(event["commitments"]) == {"actor_name", "address", "user_agent"}
        assert after == {
            "name": "gemma",
            "revision": 1,
            "kind": "chat",
            "is_stream": False,
            "choices": 1,
            "is_foreign": False,
            "is_cache_hit": False,
            "target_id": target,
            "provider_id": str(UUID(int=9)),
            "provider_name": "acme",
            "provider_model_id": None,
            "upstream_model": "gpt-4o-mini",
            "model_id": None,
            "version_id": None,
            "version": None,
            "digest": "ab" * 32,
            "price_id": str(UUID(int=77)),
            "input_price": "2.5",
            "cached_price": "0.000000000001",
            "output_price": "10",
            "currency": "USD",
            "cost_nanos": 500_000,
            "input_tokens": 80,
            "cached_tokens": 20,
            "output_tokens": 30,
            "reasoning_tokens": 5,
            "is_estimated": False,
            "status": 200,
            "tries": f"{target} connect 12ms, {target} 200 12ms",
            "decision": "the only one",
            "first_byte_ms": 12,
            "hold_id": str(charge.hold.id),
            "held_at": charge.hold.created_at.isoformat(),
            "held_tokens": 300,
            "held_cost_nanos": 2_250_000,
        }
        assert [str(offered.id) for offered in trail.offered] == [event["id"]]

    async def test_the_ledgers_row_is_the_same(
        self, meter: Meter, payer: Payer, superuser: Superuser
    ) -> None:
        charge = await begin(meter, payer)
        await settle(meter, charge)

        row = await superuser.fetchrow("SELECT * FROM usage")
        assert row is not None
        assert (row["id"], row["at"]) == (charge.hold.id, charge.hold.created_at)
        assert (row["model"], row["provider"], row["request_id"]) == ("gemma", "acme", "r-1")
        assert (row["requests"], row["cost_nanos"], row["currency"]) == (1, 500_000, "USD")
        assert (row["input_tokens"], row["cached_tokens"]) == (80, 20)
        assert (row["output_tokens"], row["reasoning_tokens"]) == (30, 5)
        assert not row["is_estimated"]
        assert not row["is_overrun"]

    async def test_another_tenants_supplier_is_not_named(
        self, meter: Meter, payer: Payer, superuser: Superuser
    ) -> None:
        charge = await begin(meter, payer, ours(tenant_id=UUID(int=4)))
        await settle(meter, charge)

        [event] = await events(superuser)
        after = event["changes"]["after"]
        assert after["is_foreign"]
        assert not {"provider_id", "provider_name", "upstream_model"} & after.keys()
        assert await superuser.fetchval("SELECT provider FROM usage") is None

    async def test_what_nobody_counted_is_booked_as_seen_and_marked(
        self, meter: Meter, payer: Payer, superuser: Superuser
    ) -> None:
        await settle(meter, await begin(meter, payer), None)

        [event] = await events(superuser)
        assert event["changes"]["after"]["is_estimated"]
        assert await superuser.fetchval("SELECT is_estimated FROM usage")

    async def test_what_was_sent_and_failed_is_a_request_and_no_money(
        self, meter: Meter, payer: Payer, superuser: Superuser
    ) -> None:
        charge = await begin(meter, payer)
        await meter.settle(
            charge,
            facts=facts_of(charge, 502),
            counts=None,
            seen=TokenCounts(),
            outcome="failure",
            reason="upstream-failed",
        )

        row = await superuser.fetchrow("SELECT requests, output_tokens, cost_nanos FROM usage")
        [event] = await events(superuser)
        assert row is not None
        assert tuple(row) == (1, 0, 0)
        assert (event["outcome"], event["reason"]) == ("failure", "upstream-failed")

    async def test_a_kept_answer_is_a_request_and_no_tokens(
        self, meter: Meter, payer: Payer, superuser: Superuser
    ) -> None:
        tokens = await limit(superuser, payer.account_id, "tokens", 1)
        requests = await limit(superuser, payer.account_id, "requests", 1)

        async def hit() -> None:
            await meter.book_hit(
                payer=payer, route=ours(), ask=make_ask(), request_id="r-2", answer_of="r-1"
            )

        await hit()
        with pytest.raises(QuotaExceededError):
            await hit()

        [event] = await events(superuser)
        after = event["changes"]["after"]
        assert (after["is_cache_hit"], after["answer_of"]) == (True, "r-1")
        assert (after["cost_nanos"], after["output_tokens"]) == (0, 0)
        assert await balance(superuser, tokens) == (0, 0)
        assert await balance(superuser, requests) == (1, 0)

    async def test_with_the_trail_off_calls_are_booked_all_the_same(
        self, meter: Meter, payer: Payer, superuser: Superuser, settings: Settings, trail: FakeTrail
    ) -> None:
        trail.is_on = False
        await settle(meter, await begin(meter, payer))
        await begin(meter, payer)

        assert await expire(superuser, settings) == 1
        assert await rows_and_events(superuser) == (2, 0)


class TestScopes:
    async def test_a_refusal_is_the_routes_to_tell(
        self, meter: Meter, payer: Payer, superuser: Superuser, recorder: FakeRecorder
    ) -> None:
        await limit(superuser, payer.account_id, "tokens", 10)

        call = audited("inference.completed")(begin)
        with pytest.raises(QuotaExceededError):
            await call(meter, payer)

        assert recorder.events == [("inference.completed", "failure", "quota-exceeded")]
        assert await rows_and_events(superuser) == (0, 0)

    async def test_so_is_what_was_not_sent_after_all(
        self, meter: Meter, payer: Payer, superuser: Superuser, recorder: FakeRecorder
    ) -> None:
        tokens = await limit(superuser, payer.account_id, "tokens", 10_000)

        @audited("inference.completed")
        async def call() -> None:
            await meter.release(await begin(meter, payer))
            raise TooManyRequestsError

        with pytest.raises(TooManyRequestsError):
            await call()

        assert recorder.events == [("inference.completed", "failure", "too-many-requests")]
        assert await rows_and_events(superuser) == (0, 0)
        assert await balance(superuser, tokens) == (0, 0)

    async def test_what_was_sent_is_told_by_its_settlement_alone(
        self, meter: Meter, payer: Payer, superuser: Superuser, recorder: FakeRecorder
    ) -> None:
        @audited("inference.completed")
        async def call() -> None:
            await settle(meter, await begin(meter, payer))
            # As an upstream's refusal is passed on, though the call was booked.
            raise TooManyRequestsError

        with pytest.raises(TooManyRequestsError):
            await call()

        assert recorder.events == []
        assert await rows_and_events(superuser) == (1, 1)


class TestBudgets:
    async def test_a_small_budget_shortens_the_answer_and_holds(
        self, meter: Meter, payer: Payer, superuser: Superuser
    ) -> None:
        # The prompt's 100 tokens, and 37 more.
        cost = await limit(superuser, payer.account_id, "cost", 100 * 2_500 + 37 * 10_000)

        charge = await begin(meter, payer, ask=make_ask(most_output=None))
        assert charge.most_output is not None
        used = TokenCounts(input=100, output=charge.most_output)
        await settle(meter, charge, used)

        settled, held = await balance(superuser, cost)
        assert 36 <= charge.most_output <= 37
        assert held == 0
        assert settled == 100 * 2_500 + charge.most_output * 10_000
        assert not await superuser.fetchval("SELECT is_overrun FROM usage")
        with pytest.raises(BudgetExceededError):
            await begin(meter, payer)

    async def test_a_budget_in_another_currency_covers_nothing(
        self, meter: Meter, payer: Payer, superuser: Superuser
    ) -> None:
        await limit(superuser, payer.account_id, "cost", 10**12, currency="CNY")

        for route in (ours(), ours(price=None)):
            with pytest.raises(BudgetCurrencyError):
                await begin(meter, payer, route)

    async def test_more_than_was_held_is_booked_and_closes(
        self, meter: Meter, payer: Payer, superuser: Superuser
    ) -> None:
        tokens = await limit(superuser, payer.account_id, "tokens", 10_000)

        await settle(meter, await begin(meter, payer), TokenCounts(input=100, output=10**30))

        assert await superuser.fetchval("SELECT output_tokens FROM usage") == 10**12
        assert await superuser.fetchval("SELECT is_overrun FROM usage")
        assert (await balance(superuser, tokens))[1] == 0
        with pytest.raises(QuotaExceededError):
            await begin(meter, payer)


class TestEnds:
    async def test_settled_twice_or_released_after_it_is_one(
        self, meter: Meter, payer: Payer, superuser: Superuser
    ) -> None:
        charge = await begin(meter, payer)

        await asyncio.gather(settle(meter, charge), settle(meter, charge))
        await meter.release(charge)
        await settle(meter, charge)

        assert await rows_and_events(superuser) == (1, 1)
        assert await miscounted(superuser) == []

    async def test_killed_before_it_is_settled_its_lease_ends_it(
        self, meter: Meter, payer: Payer, superuser: Superuser, settings: Settings
    ) -> None:
        charge = await begin(meter, payer)

        await expire(superuser, settings)
        await expire(superuser, settings)
        await settle(meter, charge)

        [event] = await events(superuser)
        after = event["changes"]["after"]
        assert (event["outcome"], event["reason"]) == ("failure", "lease-expired")
        assert (after["name"], after["kind"], after["revision"]) == ("gemma", "chat", 1)
        assert after["hold_id"] == str(charge.hold.id)
        assert (after["output_tokens"], after["cost_nanos"]) == (300, 2_250_000)
        assert await rows_and_events(superuser) == (1, 1)

    async def test_a_caller_who_leaves_while_it_is_settled_changes_nothing(
        self, meter: Meter, payer: Payer, superuser: Superuser
    ) -> None:
        charge = await begin(meter, payer)

        leaving = asyncio.create_task(settle(meter, charge))
        await asyncio.sleep(0)
        leaving.cancel()

        async def is_booked() -> bool:
            return await rows_and_events(superuser) == (1, 1)

        await until(is_booked)

    @pytest.mark.usefixtures("impatient")
    async def test_without_postgresql_it_is_booked_once_that_is_back(
        self, meter: Meter, payer: Payer, superuser: Superuser, away: Away, trail: FakeTrail
    ) -> None:
        charge = await begin(meter, payer)

        away.is_away = True
        await settle(meter, charge)
        before = await rows_and_events(superuser)
        away.is_away = False

        async def is_booked() -> bool:
            return await rows_and_events(superuser) == (1, 1) and len(trail.offered) == 1

        await until(is_booked)
        assert before == (0, 0)

    @pytest.mark.usefixtures("impatient")
    async def test_shutting_down_awaits_what_is_not_booked_yet(
        self, away: Away, trail: FakeTrail, payer: Payer, superuser: Superuser
    ) -> None:
        budgets, replays = PostgresBudgets(away), PostgresReplays(away, secret_key="s" * 64)
        meter = Meter(budgets=budgets, trail=trail, replays=replays)
        charge = await begin(meter, payer)
        away.is_away = True
        await settle(meter, charge)

        away.is_away = False
        await meter.close()
        await budgets.close()

        assert await rows_and_events(superuser) == (1, 1)
