"""A call under an Idempotency-Key is charged once, whoever repeats it when."""

import asyncio
import dataclasses
from uuid import UUID

import pytest

from maas.inference.application.metering import Meter
from maas.inference.application.ports import AttemptFacts, Charge
from maas.inference.application.replays import (
    AlreadyProcessedError,
    ReplayKey,
    ReplaysUnavailableError,
)
from maas.inference.domain.call import TokenCounts
from maas.inference.infrastructure import replays as infrastructure
from maas.inference.infrastructure.replays import PostgresReplays, prune_replays
from maas.shared.domain.call import Outcome
from maas.shared.domain.idempotency import IdempotencyKeyReusedError
from maas.shared.domain.ids import DEFAULT_TENANT_ID
from maas.shared.infrastructure.clock import SystemClock
from maas.shared.infrastructure.settings import Settings
from maas.user.infrastructure import quota_budgets
from maas.user.public import Payer, QuotaExceededError, QuotaUnavailableError
from tests.factories.calls import make_ask
from tests.integration.inference.test_metering import (
    Away,
    away,
    clock,
    facts_of,
    meter,
    ours,
    payer,
    recorder,
    replays,
    rows_and_events,
    trail,
)
from tests.integration.user.charging import Superuser, limit, make_tenant, until

pytestmark = pytest.mark.integration

__all__ = ["away", "clock", "meter", "payer", "recorder", "replays", "trail"]

KEY = ReplayKey(
    tenant_id=DEFAULT_TENANT_ID, credential_id=UUID(int=1), key="k-1", body_digest=b"a" * 32
)


async def begin(meter: Meter, payer: Payer, request_id: str = "r-1") -> Charge:
    return await meter.begin(
        payer=payer,
        route=ours(),
        ask=make_ask(most_output=20),
        request_id=request_id,
        replay=KEY,
    )


async def end(
    meter: Meter,
    charge: Charge,
    outcome: Outcome,
    *,
    seen: TokenCounts = TokenCounts(),  # noqa: B008  it is frozen
) -> None:
    facts: AttemptFacts = facts_of(charge)
    await meter.settle(charge, facts=facts, counts=None, seen=seen, outcome=outcome)


async def whose(superuser: Superuser) -> str | None:
    """Tell the request that has the only key there is."""
    row: str | None = await superuser.fetchval("SELECT request_id FROM inference_replays")
    return None if row is None else row.partition(" ")[0]


async def is_free(superuser: Superuser) -> bool:
    return await whose(superuser) is None


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(infrastructure, "PATIENCE_SECONDS", 0.2)
    monkeypatch.setattr(infrastructure, "PAUSE_SECONDS", 0.02)
    monkeypatch.setattr(infrastructure, "CLOSE_SECONDS", 0.2)
    monkeypatch.setattr(quota_budgets, "PATIENCE_SECONDS", 0.1)


class TestKeys:
    async def test_of_many_at_once_one_is_let_in_and_the_others_are_told_which(
        self, replays: PostgresReplays
    ) -> None:
        results = await asyncio.gather(
            *(replays.claim(KEY, request_id=f"r-{number}") for number in range(20)),
            return_exceptions=True,
        )

        [first] = [f"r-{number}" for number, each in enumerate(results) if each is None]
        others = [each for each in results if each is not None]
        assert all(isinstance(each, AlreadyProcessedError) for each in others)
        assert {each.first_request_id for each in others if hasattr(each, "first_request_id")} == {
            first
        }

    async def test_another_body_is_another_call(self, replays: PostgresReplays) -> None:
        await replays.claim(KEY, request_id="r-1")

        with pytest.raises(IdempotencyKeyReusedError):
            await replays.claim(dataclasses.replace(KEY, body_digest=b"b" * 32), request_id="r-2")

    async def test_each_credential_and_each_tenant_has_its_own(
        self, replays: PostgresReplays, superuser: Superuser
    ) -> None:
        await replays.claim(KEY, request_id="r-1")

        tenant_id = await make_tenant(superuser)
        await replays.claim(dataclasses.replace(KEY, credential_id=UUID(int=2)), request_id="r-2")
        await replays.claim(dataclasses.replace(KEY, tenant_id=tenant_id), request_id="r-3")

        assert await superuser.fetchval("SELECT count(*) FROM inference_replays") == 3

    async def test_only_who_took_it_gives_it_back(self, replays: PostgresReplays) -> None:
        await replays.claim(KEY, request_id="r-1")

        await replays.free(KEY, request_id="r-2")
        with pytest.raises(AlreadyProcessedError):
            await replays.claim(KEY, request_id="r-2")
        await replays.free(KEY, request_id="r-1")
        await replays.claim(KEY, request_id="r-2")

    async def test_after_a_day_it_is_free_whether_it_was_forgotten_or_not(
        self, replays: PostgresReplays, superuser: Superuser
    ) -> None:
        await replays.claim(KEY, request_id="r-1")
        await superuser.execute(
            "UPDATE inference_replays SET made_at = made_at - interval '24 hours'"
        )

        await replays.claim(dataclasses.replace(KEY, body_digest=b"b" * 32), request_id="r-2")

        assert await whose(superuser) == "r-2"

    async def test_what_is_older_is_forgotten(
        self, replays: PostgresReplays, superuser: Superuser, settings: Settings
    ) -> None:
        await replays.claim(KEY, request_id="r-1")
        await replays.claim(dataclasses.replace(KEY, key="k-2"), request_id="r-2")
        await superuser.execute(
            "UPDATE inference_replays SET made_at = made_at - interval '25 hours'"
            " WHERE request_id LIKE 'r-1 %'"
        )

        forgotten = await prune_replays(settings.database, clock=SystemClock())

        assert forgotten == 1
        assert await whose(superuser) == "r-2"

    async def test_neither_key_nor_body_can_be_read_or_tried_out(
        self, replays: PostgresReplays, away: Away, superuser: Superuser
    ) -> None:
        other = PostgresReplays(away, secret_key="t" * 64)

        await replays.claim(KEY, request_id="r-1")
        await other.claim(KEY, request_id="r-2")

        rows = await superuser.fetch("SELECT key_digest, body_digest FROM inference_replays")
        assert len({row["key_digest"] for row in rows}) == 2
        assert len({row["body_digest"] for row in rows} | {KEY.body_digest}) == 3

    async def test_without_postgresql_nothing_is_let_in(
        self, replays: PostgresReplays, away: Away
    ) -> None:
        away.is_away = True

        with pytest.raises(ReplaysUnavailableError):
            await replays.claim(KEY, request_id="r-1")

    @pytest.mark.usefixtures("impatient")
    async def test_a_claim_that_nobody_heard_of_is_given_back(
        self, replays: PostgresReplays, away: Away, superuser: Superuser
    ) -> None:
        away.is_lost = True
        with pytest.raises(ReplaysUnavailableError):
            await replays.claim(KEY, request_id="r-1")
        taken_by, away.is_lost = await whose(superuser), False

        assert taken_by == "r-1"
        await until(lambda: is_free(superuser))

    @pytest.mark.usefixtures("impatient")
    async def test_but_never_that_of_the_same_request_sent_again(
        self, replays: PostgresReplays, away: Away, superuser: Superuser
    ) -> None:
        away.is_lost = True
        with pytest.raises(ReplaysUnavailableError):
            await replays.claim(KEY, request_id="r-1")
        away.is_lost = False
        await until(lambda: is_free(superuser))

        again = dataclasses.replace(KEY, attempt=UUID(int=7))
        await replays.claim(again, request_id="r-1")
        # Meanwhile the first one is given back again and again.
        await replays.close()

        assert await whose(superuser) == "r-1"

    @pytest.mark.usefixtures("impatient")
    async def test_what_was_taken_for_nothing_is_free_once_postgresql_is_back(
        self, meter: Meter, payer: Payer, away: Away, superuser: Superuser
    ) -> None:
        away.lets_in = 1
        with pytest.raises(QuotaUnavailableError):
            await begin(meter, payer)
        taken_by, away.lets_in = await whose(superuser), None

        assert taken_by == "r-1"
        await until(lambda: is_free(superuser))
        assert (await begin(meter, payer, "r-2")).request_id == "r-2"


class TestCalls:
    async def test_what_was_paid_for_is_not_made_again(
        self, meter: Meter, payer: Payer, superuser: Superuser
    ) -> None:
        charge = await begin(meter, payer)
        with pytest.raises(AlreadyProcessedError):
            await begin(meter, payer, "r-2")
        await end(meter, charge, "success")
        with pytest.raises(AlreadyProcessedError) as refusal:
            await begin(meter, payer, "r-3")

        assert refusal.value.extensions == {"first_request_id": "r-1"}
        assert "r-1" in refusal.value.detail
        assert await rows_and_events(superuser) == (1, 1)
        assert await superuser.fetchval("SELECT count(*) FROM quota_holds") == 0

    async def test_nor_what_broke_off_after_it_cost_something(
        self, meter: Meter, payer: Payer
    ) -> None:
        charge = await begin(meter, payer)
        await end(meter, charge, "failure", seen=TokenCounts(input=5, output=1))

        with pytest.raises(AlreadyProcessedError):
            await begin(meter, payer, "r-2")

    async def test_what_cost_nothing_may_be_repeated(
        self, meter: Meter, payer: Payer, superuser: Superuser
    ) -> None:
        await end(meter, await begin(meter, payer), "failure")
        await meter.release(await begin(meter, payer, "r-2"))
        tokens = await limit(superuser, payer.account_id, "tokens", 1)
        with pytest.raises(QuotaExceededError):
            await begin(meter, payer, "r-3")
        await superuser.execute("DELETE FROM quotas WHERE id = $1", tokens)

        charge = await begin(meter, payer, "r-4")

        assert charge.request_id == "r-4"

    async def test_a_kept_answer_is_an_answer(self, meter: Meter, payer: Payer) -> None:
        async def hit(request_id: str) -> None:
            await meter.book_hit(
                payer=payer,
                route=ours(),
                ask=make_ask(),
                request_id=request_id,
                answer_of="r-0",
                replay=KEY,
            )

        await hit("r-1")
        with pytest.raises(AlreadyProcessedError):
            await hit("r-2")

    async def test_a_caller_who_leaves_before_it_is_sent_may_come_again(
        self, meter: Meter, payer: Payer, superuser: Superuser
    ) -> None:
        await limit(superuser, payer.account_id, "tokens", 10**6)

        async def is_taken() -> bool:
            return bool(await superuser.fetchval("SELECT count(*) FROM inference_replays"))

        async with superuser.transaction():
            # Nobody reserves meanwhile; the key is taken by then.
            await superuser.execute("SELECT FROM quota_balances FOR UPDATE")
            leaving = asyncio.create_task(begin(meter, payer))
            await until(is_taken)
            leaving.cancel()
            await asyncio.wait([leaving])

        assert leaving.cancelled()
        assert (await begin(meter, payer, "r-2")).request_id == "r-2"
