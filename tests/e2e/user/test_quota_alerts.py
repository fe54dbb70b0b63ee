"""What is used of quotas: shown while calls are under way, and told at 80 and at 100 percent."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, TypeAlias, cast

import asyncpg
import httpx
import pytest

from maas.audit.wiring import build_event_writer, watch_trail
from maas.bootstrap import Platform
from maas.shared.domain.ids import DEFAULT_TENANT_ID, AccountId
from maas.shared.infrastructure.clock import SystemClock
from maas.shared.infrastructure.settings import Settings
from maas.user.infrastructure.quota_alerts import tell_reached
from maas.user.public import Amounts, Budgets, Hold, Payer, QuotaExceededError, UsageFigures
from tests.e2e.conftest import Flush, MakePerson, Person, sign_in
from tests.e2e.user.people import EVERYTHING, make_user
from tests.e2e.user.quotas import OWN, cost, of_tenant, of_user, put, tokens
from tests.integration.user.charging import miscounted

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(60)]

Told: TypeAlias = Callable[[], Awaitable[list[dict[str, Any]]]]


@pytest.fixture
async def ada(make_person: MakePerson) -> Person:
    return await make_person("ada", roles=EVERYTHING)


class Caller:
    """Bo, whose calls are charged as the gateway will charge them."""

    def __init__(self, platform: Platform, account_id: str) -> None:
        self._budgets = cast("Budgets", platform.state["budgets"])
        self._payer = Payer(
            tenant_id=DEFAULT_TENANT_ID,
            account_id=AccountId(account_id),  # type: ignore[arg-type]  # its text is as good
            actor_kind="account",
        )

    async def reserve(self, amount: int, *, nanos: int | None = None) -> Hold:
        cost_nanos = amount if nanos is None else nanos
        wanted = Amounts(tokens=amount, cost_nanos=cost_nanos, currency="EUR")
        return await self._budgets.reserve(
            self._payer, wanted, lease=timedelta(minutes=5), model="m", request_id="r"
        )

    async def settle(self, hold: Hold, used: int, *, nanos: int | None = None) -> None:
        cost_nanos = used if nanos is None else nanos
        figures = UsageFigures(output_tokens=used, cost_nanos=cost_nanos, currency="EUR")
        await self._budgets.settle(hold, figures)

    async def use(self, amount: int) -> None:
        await self.settle(await self.reserve(amount), amount)


async def shown(client: httpx.AsyncClient, who: Person, path: str = OWN) -> list[list[object]]:
    answer = await client.get(path, headers=who.headers)
    names = ("used", "held", "remaining", "is_closed")
    return [[each[name] for name in names] for each in answer.json()["quotas"]]


@pytest.fixture
def told(settings: Settings, superuser: "asyncpg.Connection[asyncpg.Record]") -> Told:
    """Tell as two workers that tick at once, and list what the outbox holds of it."""

    async def tell() -> list[dict[str, Any]]:
        events = build_event_writer(SystemClock())
        await asyncio.gather(*(tell_reached(settings.database, events=events) for _ in range(2)))
        rows = await superuser.fetch("SELECT payload FROM audit_outbox ORDER BY created_at")
        payloads = [json.loads(row["payload"]) for row in rows]
        return [each for each in payloads if each["action"] == "quota.reached"]

    return tell


class TestUse:
    async def test_what_is_used_and_held_is_shown_and_bounds_the_rest(
        self, client: httpx.AsyncClient, ada: Person, platform: Platform
    ) -> None:
        bo_id = (await make_user(client, ada, "bo", "user"))["id"]
        caller, bo = Caller(platform, bo_id), await sign_in(client, "bo")
        await caller.use(30)

        await put(client, ada, of_user(bo_id), tokens(100), cost(1000))
        hold = await caller.reserve(50)
        under_way = await shown(client, bo)
        with pytest.raises(QuotaExceededError):
            await caller.reserve(21)
        await caller.settle(hold, 40)

        assert under_way == [[30, 50, 920, False], [30, 50, 20, False]]
        assert await shown(client, bo) == [[70, 0, 930, False], [70, 0, 30, False]]
        below = await put(client, ada, of_user(bo_id), tokens(60))
        assert [each["remaining"] for each in below.json()["quotas"]] == [0]

    async def test_amounts_that_json_would_round_are_told_as_text(
        self, client: httpx.AsyncClient, ada: Person, platform: Platform, told: Told
    ) -> None:
        amount = 2**53 + 1
        bo_id = (await make_user(client, ada, "bo", "user"))["id"]
        await put(client, ada, of_user(bo_id), cost(str(amount)))
        caller = Caller(platform, bo_id)

        hold = await caller.reserve(0, nanos=amount)
        await caller.settle(hold, 0, nanos=amount)

        events = [each["changes"]["after"] for each in await told()]
        assert {(each["limit"], each["used"]) for each in events} == {(str(amount), str(amount))}

    async def test_more_billed_than_held_closes_until_the_limit_is_changed(
        self,
        client: httpx.AsyncClient,
        ada: Person,
        platform: Platform,
        told: Told,
    ) -> None:
        bo_id = (await make_user(client, ada, "bo", "user"))["id"]
        caller, bo = Caller(platform, bo_id), await sign_in(client, "bo")
        await put(client, ada, of_user(bo_id), tokens(100))

        await caller.settle(await caller.reserve(10), 11)

        assert await shown(client, bo) == [[11, 0, 0, True]]
        with pytest.raises(QuotaExceededError):
            await caller.reserve(1)
        events = await told()
        assert [each["changes"]["after"]["is_overrun"] for each in events] == [True]
        await put(client, ada, of_user(bo_id), tokens(101))
        assert await shown(client, bo) == [[11, 0, 90, False]]

    async def test_setting_and_using_at_once_stands_in_nobodys_way_and_miscounts_nothing(
        self,
        client: httpx.AsyncClient,
        ada: Person,
        platform: Platform,
        superuser: "asyncpg.Connection[asyncpg.Record]",
    ) -> None:
        bo_id = (await make_user(client, ada, "bo", "user"))["id"]
        caller, tenant = Caller(platform, bo_id), of_tenant(str(DEFAULT_TENANT_ID))

        async def call() -> None:
            for _ in range(5):
                await caller.settle(await caller.reserve(3), 2)

        async def reset(path: str) -> list[int]:
            answers = [
                await put(client, ada, path, *quotas)
                for _ in range(3)
                for quotas in ((tokens(10_000), cost(10_000)), (cost(20_000),), ())
            ]
            return [answer.status_code for answer in answers]

        done = await asyncio.gather(
            reset(of_user(bo_id)), reset(tenant), *(call() for _ in range(10))
        )
        await put(client, ada, of_user(bo_id), tokens(10_000))

        assert done[:2] == [[200] * 9, [200] * 9]
        assert await shown(client, await sign_in(client, "bo")) == [[100, 0, 9_900, False]]
        assert await miscounted(superuser) == []


class TestAlerts:
    async def test_each_share_is_told_once_and_again_after_a_higher_limit(  # noqa: PLR0917  fixtures
        self,
        client: httpx.AsyncClient,
        ada: Person,
        platform: Platform,
        told: Told,
        settings: Settings,
        flush: Flush,
    ) -> None:
        bo_id = (await make_user(client, ada, "bo", "user"))["id"]
        caller = Caller(platform, bo_id)
        await put(client, ada, of_user(bo_id), tokens(100))
        tenant = of_tenant(str(DEFAULT_TENANT_ID))
        await put(client, ada, tenant, cost(200))

        for amount in (79, 1, 10, 9, 1):
            await caller.use(amount)
        first = await told()
        await put(client, ada, of_user(bo_id), tokens(200))
        await caller.use(59)
        before = await told()
        await caller.use(1)
        again = await told()

        shares = [(each["resource"]["kind"], each["changes"]["after"]["share"]) for each in first]
        assert shares == [("account", 80), ("account", 100)]
        assert len(before) == 2
        assert sorted(each["resource"]["kind"] for each in again[2:]) == ["account", "tenant"]
        assert {each["resource"]["id"] for each in first} == {bo_id}
        assert {each["tenant_id"] for each in again} == {str(DEFAULT_TENANT_ID)}
        assert {each["actor"]["kind"] for each in again} == {"system"}
        facts = dict(first[0]["changes"]["after"])
        assert facts.pop("period_start").endswith("-01")
        assert facts == {
            "scope": "user",
            "meter": "tokens",
            "period": "month",
            "currency": None,
            "limit": 100,
            "used": 80,
            "share": 80,
            "is_overrun": False,
        }
        await flush()
        await watch_trail(settings, clock=SystemClock())
        alerts = await client.get("/api/v1/audit/alerts?rule=budget-reached", headers=ada.headers)
        subjects = [each["subject"]["kind"] for each in alerts.json()["items"]]
        assert sorted(subjects) == ["account", "account", "account", "tenant"]

    async def test_a_limit_below_what_is_used_is_reached_at_once(
        self,
        client: httpx.AsyncClient,
        ada: Person,
        platform: Platform,
        told: Told,
    ) -> None:
        bo_id = (await make_user(client, ada, "bo", "user"))["id"]
        await Caller(platform, bo_id).use(85)

        await put(client, ada, of_user(bo_id), tokens(100), cost(10))
        await put(client, ada, of_user(bo_id), tokens(85), cost(5))

        shares = [
            (each["changes"]["after"]["meter"], each["changes"]["after"]["share"])
            for each in await told()
        ]
        assert sorted(shares) == [("cost", 80), ("cost", 100), ("tokens", 80), ("tokens", 100)]
