"""A call is booked with its event, or not at all: in one transaction, once, whoever ends it."""

import asyncio
import dataclasses
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from maas.audit.public import AuditedResource, AuditScope, ComposedEvent
from maas.shared.domain.call import Call
from maas.shared.domain.ids import DEFAULT_TENANT_ID, TenantId, new_id
from maas.shared.infrastructure.database import Database
from maas.shared.infrastructure.settings import Settings
from maas.user.infrastructure.quota_budgets import PostgresBudgets
from maas.user.infrastructure.quota_expiry import expire_holds
from maas.user.public import Amounts, AuditedAs, Hold, QuotaUnavailableError, UsageFigures
from tests.fakes.recorder import FakeRecorder
from tests.integration.user.charging import (
    EVENTS,
    Superuser,
    make_payer,
    make_tenant,
    reserve,
)

pytestmark = pytest.mark.integration

APPLY = "SELECT * FROM quota_apply($1::jsonb, clock_timestamp())"
DEPLOYMENT = AuditedResource("deployment", frozenset({"name", "hold_id"}))
CALLED = AuditedAs(
    action="inference.completed",
    resource=DEPLOYMENT,
    resource_id="d1",
    facts={"name": "gemma", "prompt": "is nobody's business"},
)
ANSWERED = UsageFigures(input_tokens=10, output_tokens=5)


class Offered:
    """Takes what is offered to the stream."""

    def __init__(self) -> None:
        self.ids: list[object] = []

    def __call__(self, event: ComposedEvent) -> None:
        self.ids.append(event.id)


@pytest.fixture
def offered() -> Offered:
    return Offered()


@pytest.fixture
async def budgets(database: Database, offered: Offered) -> AsyncIterator[PostgresBudgets]:
    budgets = PostgresBudgets(database, offer=offered)
    yield budgets
    await budgets.close()


def event_of(hold: Hold) -> ComposedEvent:
    scope = AuditScope(CALLED.action, tenant_id=hold.payer.tenant_id)
    scope.change(DEPLOYMENT, "d1", after={"name": "gémma\x00\ud800", "hold_id": str(hold.id)})
    return EVENTS.compose(scope, Call(request_id="r1", recorder=FakeRecorder()))


async def events(superuser: Superuser) -> list[dict[str, Any]]:
    rows = await superuser.fetch("SELECT * FROM audit_outbox ORDER BY created_at, event_id")
    return [{**json.loads(row["payload"]), "row": row} for row in rows]


async def booked(superuser: Superuser) -> int:
    count: int = await superuser.fetchval("SELECT count(*) FROM usage")
    return count


async def expire(superuser: Superuser, settings: Settings) -> int:
    await superuser.execute("UPDATE quota_holds SET lease_until = now() - interval '1 second'")
    return await expire_holds(settings.database, events=EVENTS)


class TestSettling:
    async def test_the_event_is_written_as_it_was_composed_and_offered(
        self, budgets: PostgresBudgets, superuser: Superuser, offered: Offered
    ) -> None:
        hold = await reserve(budgets, make_payer(), Amounts(tokens=50), audited_as=CALLED)
        event = event_of(hold)

        await budgets.settle(hold, ANSWERED, event=event)

        [row] = await superuser.fetch("SELECT * FROM audit_outbox")
        assert (row["event_id"], row["tenant_id"]) == (event.id, DEFAULT_TENANT_ID)
        assert row["payload"] == event.payload
        assert json.loads(row["personal"]) == json.loads(event.personal_json)
        assert row["duration_ms"] == event.duration_ms
        assert await booked(superuser) == 1
        assert offered.ids == [event.id]

    async def test_twice_there_is_one(
        self, budgets: PostgresBudgets, superuser: Superuser, offered: Offered
    ) -> None:
        hold = await reserve(budgets, make_payer(), Amounts(tokens=50), audited_as=CALLED)
        first = event_of(hold)

        await asyncio.gather(
            budgets.settle(hold, ANSWERED, event=first),
            budgets.settle(hold, ANSWERED, event=event_of(hold)),
        )
        await budgets.settle(hold, ANSWERED, event=event_of(hold))

        assert [each["id"] for each in await events(superuser)] == [str(first.id)]
        assert offered.ids == [first.id]
        assert await booked(superuser) == 1

    async def test_given_back_there_is_none(
        self, budgets: PostgresBudgets, superuser: Superuser, offered: Offered
    ) -> None:
        hold = await reserve(budgets, make_payer(), Amounts(tokens=50), audited_as=CALLED)

        await budgets.release(hold)
        await budgets.settle(hold, ANSWERED, event=event_of(hold))

        assert await events(superuser) == []
        assert offered.ids == []

    async def test_without_its_event_it_is_not_booked(
        self, budgets: PostgresBudgets, superuser: Superuser, settings: Settings
    ) -> None:
        first = await reserve(budgets, make_payer(), Amounts(tokens=50), audited_as=CALLED)
        second = await reserve(budgets, make_payer(), Amounts(tokens=50), audited_as=CALLED)
        event = event_of(first)
        await budgets.settle(first, ANSWERED, event=event)

        with pytest.raises(QuotaUnavailableError):
            # Which the outbox refuses, since it has one of this id.
            await budgets.settle(second, ANSWERED, event=event)

        assert await booked(superuser) == 1
        assert await superuser.fetchval("SELECT id FROM quota_holds") == second.id
        assert await expire(superuser, settings) == 1
        assert len(await events(superuser)) == await booked(superuser) == 2

    async def test_another_tenants_call_leaves_none(
        self, budgets: PostgresBudgets, superuser: Superuser
    ) -> None:
        theirs = make_payer(await make_tenant(superuser))
        hold = await reserve(budgets, theirs, Amounts(tokens=50), audited_as=CALLED)

        stolen = dataclasses.replace(hold, payer=make_payer())
        await budgets.settle(stolen, ANSWERED, event=event_of(stolen))

        assert await events(superuser) == []

    async def test_of_many_at_once_each_has_one_in_its_tenant(
        self, budgets: PostgresBudgets, superuser: Superuser, offered: Offered
    ) -> None:
        tenants = [DEFAULT_TENANT_ID, await make_tenant(superuser)]

        async def call(number: int) -> Hold:
            payer = make_payer(tenants[number % 2])
            hold = await reserve(budgets, payer, Amounts(tokens=50), audited_as=CALLED)
            await budgets.settle(hold, ANSWERED, event=event_of(hold))
            return hold

        holds = await asyncio.gather(*(call(number) for number in range(60)))

        assert {
            (each["changes"]["after"]["hold_id"], TenantId(each["row"]["tenant_id"]))
            for each in await events(superuser)
        } == {(str(hold.id), hold.payer.tenant_id) for hold in holds}
        assert await booked(superuser) == len(offered.ids) == len(holds)


class TestExpiry:
    async def test_what_its_process_left_is_told_of_as_it_is_booked(
        self, budgets: PostgresBudgets, superuser: Superuser, settings: Settings
    ) -> None:
        payer = make_payer()
        wanted = Amounts(tokens=60, cost_nanos=9 * 10**15 + 10**16, currency="USD")
        hold = await reserve(budgets, payer, wanted, audited_as=CALLED)

        expired = await expire(superuser, settings)

        assert expired == await booked(superuser) == 1
        [event] = await events(superuser)
        assert (event["action"], event["outcome"], event["reason"]) == (
            *("inference.completed", "failure", "lease-expired"),
        )
        assert event["resource"] == {"kind": "deployment", "id": "d1"}
        assert event["actor"] == {"kind": "account", "id": str(payer.account_id)}
        assert event["api_key_id"] == str(payer.api_key_id)
        assert event["request_id"] == "r1"
        assert event["row"]["tenant_id"] == DEFAULT_TENANT_ID
        assert event["changes"]["after"] == {
            "name": "gemma",
            "hold_id": str(hold.id),
            "held_at": hold.created_at.isoformat(),
            "output_tokens": 60,
            "cost_nanos": str(wanted.cost_nanos),
            "currency": "USD",
            "is_estimated": True,
        }

    async def test_progress_is_what_both_tell(
        self, budgets: PostgresBudgets, superuser: Superuser, settings: Settings
    ) -> None:
        wanted = Amounts(tokens=60, cost_nanos=600, currency="USD")
        hold = await reserve(budgets, make_payer(), wanted, audited_as=CALLED)
        await budgets.progress(hold, Amounts(tokens=25, cost_nanos=250, currency="USD"))

        await expire(superuser, settings)

        row = await superuser.fetchrow("SELECT output_tokens, cost_nanos FROM usage")
        [event] = await events(superuser)
        after = event["changes"]["after"]
        assert row is not None
        assert (after["output_tokens"], after["cost_nanos"]) == tuple(row) == (25, 250)

    async def test_a_settlement_that_comes_later_leaves_no_second(
        self, budgets: PostgresBudgets, superuser: Superuser, settings: Settings, offered: Offered
    ) -> None:
        hold = await reserve(budgets, make_payer(), Amounts(tokens=60), audited_as=CALLED)
        await expire(superuser, settings)

        is_booked = await budgets.settle(hold, ANSWERED, event=event_of(hold))

        assert not is_booked
        assert [each["reason"] for each in await events(superuser)] == ["lease-expired"]
        assert offered.ids == []

    async def test_whoever_comes_first_tells_and_nobody_else(
        self, budgets: PostgresBudgets, superuser: Superuser, settings: Settings
    ) -> None:
        holds = [
            await reserve(budgets, make_payer(), Amounts(tokens=60), audited_as=CALLED)
            for _ in range(40)
        ]
        await superuser.execute("UPDATE quota_holds SET lease_until = now() - interval '1 second'")

        await asyncio.gather(
            expire_holds(settings.database, events=EVENTS),
            expire_holds(settings.database, events=EVENTS),
            *(budgets.settle(hold, ANSWERED, event=event_of(hold)) for hold in holds),
        )

        told = {each["changes"]["after"]["hold_id"] for each in await events(superuser)}
        assert len(await events(superuser)) == len(told) == await booked(superuser) == len(holds)

    async def test_a_hold_of_nothing_audited_leaves_none(
        self, budgets: PostgresBudgets, superuser: Superuser, settings: Settings
    ) -> None:
        await reserve(budgets, make_payer(), Amounts(tokens=60))

        assert await expire(superuser, settings) == 1
        assert await events(superuser) == []

    async def test_one_whose_lease_began_anew_meanwhile_goes_on(
        self, budgets: PostgresBudgets, superuser: Superuser, settings: Settings
    ) -> None:
        hold = await reserve(budgets, make_payer(), Amounts(tokens=60), audited_as=CALLED)
        asked = {"n": 0, "op": "expire", "id": str(hold.id), "event": {}}
        await superuser.execute("UPDATE quota_holds SET lease_until = now() - interval '1 second'")

        asked["until"] = hold.lease_until.isoformat()
        await _apply(superuser, asked)

        assert await superuser.fetchval("SELECT count(*) FROM quota_holds") == 1
        assert await expire_holds(settings.database, events=EVENTS) == 1


class TestProcessesOfTheReleaseBefore:
    async def test_their_calls_end_as_they_did(
        self, budgets: PostgresBudgets, superuser: Superuser
    ) -> None:
        payer = make_payer()
        hold_id = str(new_id())
        asked = {
            "n": 0, "op": "reserve", "id": hold_id, "account": str(payer.account_id),
            "kind": "account", "model": "m", "request": "r", "lease": 60, "again": False,
            "requests": 1, "tokens": 5, "cost": 0, "storage": 0,
        }  # fmt: skip
        ended = {
            "n": 1, "op": "settle", "id": hold_id, "input": 1, "cached": 0, "output": 2,
            "reasoning": 0, "cost": 0, "storage": 0, "estimated": False,
        }  # fmt: skip

        await _apply(superuser, asked)
        new = await reserve(budgets, make_payer(), Amounts(tokens=60), audited_as=CALLED)
        await budgets.settle(new, ANSWERED, event=event_of(new))
        await _apply(superuser, ended)

        assert await booked(superuser) == 2
        assert len(await events(superuser)) == 1

    async def test_what_they_would_expire_without_an_event_waits_for_who_brings_it(
        self, budgets: PostgresBudgets, superuser: Superuser, settings: Settings
    ) -> None:
        hold = await reserve(budgets, make_payer(), Amounts(tokens=60), audited_as=CALLED)
        await superuser.execute("UPDATE quota_holds SET lease_until = now() - interval '1 second'")
        found = await superuser.fetch("SELECT * FROM quota_expired(9, NULL, NULL, '{}')")

        await _apply(superuser, {"n": 0, "op": "expire", "id": str(hold.id)})
        left = await booked(superuser)
        await expire_holds(settings.database, events=EVENTS)

        assert [row["id"] for row in found] == [hold.id]
        assert left == 0
        assert await booked(superuser) == len(await events(superuser)) == 1


async def _apply(superuser: Superuser, call: dict[str, object]) -> None:
    await superuser.execute(
        APPLY.replace(
            "$1", f"'{json.dumps([{'tenant': str(DEFAULT_TENANT_ID), 'calls': [call]}])}'"
        )
    )
