"""A call alone in its batch and the same call among others come to the same, to the last row."""

import asyncio
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, TypeAlias
from uuid import UUID

import pytest

from maas.shared.domain.ids import new_id
from maas.shared.infrastructure.clock import SystemClock
from maas.shared.infrastructure.database import Database
from maas.user.public import Payer
from tests.integration.user.charging import Superuser, limit, make_payer, make_tenant, until

pytestmark = pytest.mark.integration

APPLY = "SELECT * FROM quota_apply($1::jsonb, $2)"
SETTING = "SELECT set_config('maas.tenant_id', $1, true)"
ONE = {
    "reserve": "SELECT quota_hold_one($1, $2, $3)",
    "settle": "SELECT quota_settle_one($1, $2, $3)",
}
RESERVE: Final = {
    "op": "reserve", "kind": "account", "model": "m", "request": "r", "lease": 60,
    "requests": 1, "tokens": 100, "cost": 0, "currency": None, "storage": 0,
}  # fmt: skip
SETTLE: Final = {
    "op": "settle", "input": 20, "cached": 0, "output": 0, "reasoning": 0, "cost": 0,
    "storage": 0, "currency": None, "estimated": False,
}  # fmt: skip
STEPS: Final = 60
"""Of one history; of so many, each quota is reached, closed and opened a few times."""

SET_LIMIT = "UPDATE quotas SET limit_amount = $2 WHERE id = $1"
Call: TypeAlias = dict[str, Any]
Answers: TypeAlias = list[tuple[Any, ...]]
ROWS: Final = {
    "balances": """
        SELECT q.scope, q.meter, q.period, b.period_start, b.settled, b.held, b.is_closed, b.alerted
        FROM quota_balances b JOIN quotas q ON q.id = b.quota_id WHERE b.tenant_id = $1
        ORDER BY 1, 2, 3, 4
    """,
    "holds": """
        SELECT api_key_id IS NULL, actor_kind, model, request_id, requests, tokens, cost_nanos,
            currency, storage_bytes, progress_tokens, progress_cost_nanos, progress_storage_bytes,
            created_at, lease, lease_until, audited_as
        FROM quota_holds WHERE tenant_id = $1 ORDER BY request_id
    """,
    "ledger": """
        SELECT at, api_key_id IS NULL, actor_kind, model, provider, request_id, requests,
            input_tokens, cached_tokens, output_tokens, reasoning_tokens, storage_bytes,
            cost_nanos, currency, is_estimated, is_overrun
        FROM usage WHERE tenant_id = $1 ORDER BY request_id
    """,
    "months": """
        SELECT month, model, currency, requests, input_tokens, output_tokens, cost_nanos, estimated
        FROM usage_months WHERE tenant_id = $1 ORDER BY 1, 2, 3, 4, 5
    """,
    "alerts": """
        SELECT scope, meter, period, period_start, currency, threshold, limit_amount, settled,
            is_overrun
        FROM quota_alerts WHERE tenant_id = $1 ORDER BY 1, 2, 3, 4, 6, 7, 8, 9
    """,
    "events": """
        SELECT payload, personal, duration_ms FROM audit_outbox WHERE tenant_id = $1 ORDER BY 1
    """,
}


@dataclass(slots=True)
class Twin:
    """A tenant whose calls come alone, or among others; both are asked for the same."""

    payer: Payer
    is_alone: bool
    quotas: list[UUID] = field(default_factory=list)
    holds: dict[int, UUID] = field(default_factory=dict)
    made: dict[int, datetime] = field(default_factory=dict)

    def work(self, number: int, call: Call) -> str:
        own = {
            "n": 0, "again": False, "id": str(self.holds.setdefault(number, new_id())),
            "account": str(self.payer.account_id), **call,
        }  # fmt: skip
        if number % 3:
            own["key"] = str(self.payer.api_key_id)
        if own["op"] != "reserve" and number in self.made:
            own["made"] = self.made[number].isoformat()
        if "event" in own:
            own["event"] = {**own["event"], "id": str(new_id())}
        calls = [own]
        if not self.is_alone:
            calls.append({"n": 1, "op": "progress", "id": str(new_id()), "again": False})
        return json.dumps([{"tenant": str(self.payer.tenant_id), "calls": calls}])


def amid_this_month() -> datetime:
    return SystemClock().now().replace(day=15, hour=12, minute=0, second=0, microsecond=0)


def reserving(chance: random.Random, number: int) -> Call:
    wanted = {
        "requests": chance.choice([1, 1, 1, 0]),
        "tokens": chance.choice([0, 40, 100, 400, 3_000]),
        "cost": chance.choice([0, 70, 900, 5_000]),
        "storage": chance.choice([0, 0, 60]),
    }
    call: Call = {
        "op": "reserve", "kind": "account", "model": chance.choice("ab"),
        "request": f"r{number:03}", "lease": 60.5, **wanted,
        "currency": chance.choice(["EUR", "EUR", "EUR", "USD", None]),
    }  # fmt: skip
    if chance.random() < 0.5:
        call |= {f"least_{name}": min(each, 10) for name, each in wanted.items()}
    if chance.random() < 0.5:
        call["audited"] = {"action": "inference.completed", "facts": {"number": number}}
    return call


def settling(chance: random.Random, number: int) -> Call:
    call: Call = {
        "op": "settle", "input": chance.choice([0, 5, 60]), "cached": chance.choice([0, 2]),
        "output": chance.choice([0, 20, 300]), "reasoning": chance.choice([0, 10]),
        "cost": chance.choice([0, 0, 60, 800]), "storage": chance.choice([0, 0, 50]),
        "currency": chance.choice(["EUR", "EUR", "EUR", "USD"]), "provider": "openai",
        "estimated": chance.random() < 0.2,
    }  # fmt: skip
    if chance.random() < 0.7:
        call["event"] = {
            "payload": f"ä{number}", "personal": '{"a": 1}', "duration_ms": number
        }  # fmt: skip
    return call


async def make_twins(superuser: Superuser, chance: random.Random) -> Sequence[Twin]:
    twins = [Twin(make_payer(await make_tenant(superuser)), is_alone) for is_alone in (True, False)]
    for scope in ("tenant", "user", "key"):
        for meter in ("requests", "tokens", "cost", "storage"):
            if chance.random() < 0.3:
                continue
            period = "total" if meter == "storage" else chance.choice(["month", "total"])
            amount = {"requests": 25, "tokens": 5_000, "cost": 9_000, "storage": 500}[meter]
            amount = chance.choice([amount // 2, amount, 2**63 - 1])
            for twin in twins:
                payer = twin.payer
                subject = {
                    "tenant": payer.tenant_id, "user": payer.account_id, "key": payer.api_key_id
                }[scope]  # fmt: skip
                assert subject is not None
                quota = await limit(
                    superuser, subject, meter, amount, scope=scope, period=period,
                    tenant_id=payer.tenant_id, currency="EUR" if meter == "cost" else None,
                )  # fmt: skip
                twin.quotas.append(quota)
    return twins


async def rows_of(superuser: Superuser, twin: Twin) -> dict[str, list[tuple[Any, ...]]]:
    tenant_id = twin.payer.tenant_id
    return {
        name: [tuple(row) for row in await superuser.fetch(query, tenant_id)]
        for name, query in ROWS.items()
    }


@dataclass(slots=True)
class History:
    """What happens next, by dice: amid a month, then through its last minute into the next."""

    chance: random.Random
    now: datetime
    turn: datetime
    asked: list[int] = field(default_factory=list)

    def go_on(self, number: int) -> tuple[int, Call]:
        """Name the call and the hold that it is about."""
        self.now += timedelta(seconds=self.chance.choice([1, 7, 40]))
        if number == STEPS // 3:
            self.now = self.turn - timedelta(seconds=self.chance.choice([5, 70, 130]))
        draw = self.chance.random()
        if draw < 0.5 or not self.asked:
            self.asked.append(number)
            return number, reserving(self.chance, number)
        call = settling(self.chance, number)
        if draw > 0.9:
            call = {"op": self.chance.choice(["release", "progress"]), "tokens": 5}
        return self.chance.choice(self.asked), call


async def apply(database: Database, twin: Twin, subject: int, call: Call, at: datetime) -> Answers:
    async with database.acquire() as connection:
        rows = await connection.fetch(APPLY, twin.work(subject, call), at)
    if call["op"] == "reserve" and rows[0]["outcome"] == "granted":
        twin.made[subject] = at
    return [tuple(row) for row in rows]


@pytest.mark.parametrize("seed", range(12))
async def test_a_history_is_the_same_however_its_calls_come(
    database: Database, superuser: Superuser, seed: int
) -> None:
    chance = random.Random(seed)  # noqa: S311  a dice, not a secret
    twins = await make_twins(superuser, chance)
    turn = (amid_this_month() + timedelta(days=20)).replace(day=1, hour=0)
    history = History(chance, turn - timedelta(days=9), turn)
    outcomes: set[str] = set()
    for number in range(STEPS):
        if chance.random() < 0.1:
            which, amount = chance.random(), chance.choice([300, 20_000])
            for twin in twins:
                quota = twin.quotas[int(which * len(twin.quotas))]
                await superuser.execute(SET_LIMIT, quota, amount)
        subject, call = history.go_on(number)
        alone, among = [await apply(database, twin, subject, call, history.now) for twin in twins]
        assert alone == among, call
        assert await rows_of(superuser, twins[0]) == await rows_of(superuser, twins[1]), call
        outcomes.update(row[1] for row in alone)
    assert {"granted", "done"} < outcomes


@pytest.fixture
async def tokens(superuser: Superuser, payer: Payer) -> UUID:
    return await limit(superuser, payer.account_id, "tokens", 1_000)


@pytest.fixture
def payer() -> Payer:
    return make_payer()


@pytest.fixture
def twin(payer: Payer) -> Twin:
    return Twin(payer, is_alone=True)


async def state(superuser: Superuser, tokens: UUID) -> tuple[int, int, int]:
    row = await superuser.fetchrow(
        "SELECT settled, held, alerted FROM quota_balances WHERE quota_id = $1", tokens
    )
    assert row is not None
    return row["settled"], row["held"], row["alerted"]


async def attempt(database: Database, twin: Twin, call: Call, at: datetime) -> bool:
    """Go the short way alone, and tell whether it was gone."""
    tenant_id = twin.payer.tenant_id
    own = json.loads(twin.work(1, call))[0]["calls"][0]
    async with database.acquire() as connection, connection.transaction():
        await connection.execute(SETTING, str(tenant_id))
        done: bool = await connection.fetchval(ONE[call["op"]], tenant_id, json.dumps(own), at)
    return done


class TestTheShortWay:
    async def test_is_for_what_has_one_answer(
        self, database: Database, superuser: Superuser, twin: Twin, tokens: UUID
    ) -> None:
        at = amid_this_month()

        assert await attempt(database, twin, {**RESERVE, "tokens": 1_000}, at)
        assert await state(superuser, tokens) == (0, 1_000, 0)
        assert await attempt(database, twin, {**SETTLE, "input": 799}, at)
        assert await state(superuser, tokens) == (799, 0, 0)

    @pytest.mark.parametrize("off", [-30, 30])
    async def test_is_for_no_call_about_the_turn_of_a_month(
        self, database: Database, superuser: Superuser, twin: Twin, tokens: UUID, off: int
    ) -> None:
        amid = amid_this_month()
        turn = amid.replace(day=1, hour=0) + timedelta(seconds=off)

        assert not await attempt(database, twin, RESERVE, turn)
        assert await attempt(database, twin, RESERVE, amid)
        assert not await attempt(database, twin, SETTLE, turn)
        assert await state(superuser, tokens) == (0, 100, 0)

    @pytest.mark.parametrize(
        "call",
        [{"input": 101}, {"input": 100}, {"cost": 1, "currency": "EUR"}, {"storage": 1}],
        ids=["overrun", "threshold", "price", "bytes"],
    )
    async def test_is_for_no_settlement_that_is_told_of(
        self, database: Database, superuser: Superuser, twin: Twin, tokens: UUID, call: Call
    ) -> None:
        await superuser.execute("UPDATE quota_balances SET settled = 700")
        assert await attempt(database, twin, RESERVE, amid_this_month())

        assert not await attempt(database, twin, {**SETTLE, **call}, amid_this_month())
        assert await state(superuser, tokens) == (700, 100, 0)

    async def test_locks_nothing_where_a_balance_is_to_be_made(
        self, database: Database, superuser: Superuser, twin: Twin
    ) -> None:
        await limit(superuser, twin.payer.account_id, "tokens", 1_000)
        other = await limit(superuser, twin.payer.account_id, "requests", 10)
        await superuser.execute("DELETE FROM quota_balances WHERE quota_id = $1", other)

        async with superuser.transaction():
            await superuser.execute("SELECT FROM quota_balances FOR UPDATE")
            assert not await attempt(database, twin, RESERVE, amid_this_month())

        async with database.acquire() as connection:
            rows = await connection.fetch(APPLY, twin.work(1, RESERVE), amid_this_month())
        assert [row["outcome"] for row in rows] == ["granted"]
        assert await state(superuser, other) == (0, 1, 0)


class TestWhoeverWaits:
    async def apply(
        self, database: Database, superuser: Superuser, work: str, meanwhile: str
    ) -> str:
        """Have it wait for whoever changes the balance, and tell how it ended."""

        async def run() -> str:
            async with database.acquire() as connection:
                rows = await connection.fetch(APPLY, work, amid_this_month())
            return str(rows[0]["outcome"])

        async def is_blocked() -> bool:
            waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype <> 'relation'"
            return bool(await superuser.fetchval(waiting))

        async with superuser.transaction():
            await superuser.execute(meanwhile)
            task = asyncio.create_task(run())
            await until(is_blocked)
        return await task

    async def test_is_not_granted_what_is_gone_by_then(
        self, database: Database, superuser: Superuser, twin: Twin, tokens: UUID
    ) -> None:
        taken = "UPDATE quota_balances SET held = 901"
        outcome = await self.apply(database, superuser, twin.work(1, RESERVE), taken)

        assert outcome == "exceeded"
        assert await state(superuser, tokens) == (0, 901, 0)

    async def test_is_granted_what_is_free_by_then(
        self, database: Database, superuser: Superuser, twin: Twin, tokens: UUID
    ) -> None:
        await superuser.execute("UPDATE quota_balances SET held = 1000")
        given = "UPDATE quota_balances SET held = 900"
        outcome = await self.apply(database, superuser, twin.work(1, RESERVE), given)

        assert outcome == "granted"
        assert await state(superuser, tokens) == (0, 1_000, 0)

    async def test_tells_of_the_threshold_it_reaches_by_then(
        self, database: Database, superuser: Superuser, twin: Twin, tokens: UUID
    ) -> None:
        assert await attempt(database, twin, RESERVE, amid_this_month())
        used = "UPDATE quota_balances SET settled = 780"
        outcome = await self.apply(database, superuser, twin.work(1, SETTLE), used)

        assert outcome == "done"
        assert await state(superuser, tokens) == (800, 0, 80)
        assert await superuser.fetchval("SELECT threshold FROM quota_alerts") == 80

    async def test_finds_a_hold_that_is_settled_by_then_repeated(
        self, database: Database, superuser: Superuser, twin: Twin, tokens: UUID
    ) -> None:
        assert await attempt(database, twin, RESERVE, amid_this_month())
        twin.made[1] = amid_this_month()
        settling = json.loads(twin.work(1, SETTLE))[0]["calls"][0]

        async def run() -> list[str]:
            async with database.acquire() as connection:
                rows = await connection.fetch(APPLY, twin.work(1, SETTLE), amid_this_month())
            return [row["outcome"] for row in rows]

        async with database.acquire() as connection, connection.transaction():
            await connection.execute(SETTING, str(twin.payer.tenant_id))
            await connection.fetchval(
                ONE["settle"], twin.payer.tenant_id, json.dumps(settling), amid_this_month()
            )
            task = asyncio.create_task(run())
            await asyncio.sleep(0.1)
        assert await task == ["repeated"]
        assert await state(superuser, tokens) == (20, 0, 0)
