"""Leases of calls under way, and what is booked of one that nobody ends."""

import pytest

from maas.inference.application.metering import Meter
from maas.inference.domain.call import TokenCounts
from maas.shared.infrastructure.settings import Settings
from maas.user.public import Payer
from tests.integration.inference.test_metering import (
    Away,
    Minutes,
    away,
    begin,
    clock,
    expire,
    impatient,
    meter,
    payer,
    recorder,
    replays,
    trail,
)
from tests.integration.user.charging import Superuser

pytestmark = pytest.mark.integration

__all__ = ["away", "clock", "impatient", "meter", "payer", "recorder", "replays", "trail"]


class TestLeases:
    async def lease(self, superuser: Superuser) -> float:
        seconds = await superuser.fetchval(
            "SELECT extract(epoch FROM lease_until - created_at)::float8 FROM quota_holds"
        )
        return float(seconds)

    async def test_those_due_are_renewed_and_no_other(
        self, meter: Meter, payer: Payer, superuser: Superuser, clock: Minutes
    ) -> None:
        await begin(meter, payer)
        clock.seconds += 15
        early = await meter.renew()
        clock.seconds += 5
        due = await meter.renew()
        again = await meter.renew()

        assert (early, due, again) == (0, 1, 0)
        assert await self.lease(superuser) > 60.0

    async def test_the_first_that_comes_is_told_at_the_next_look(
        self,
        meter: Meter,
        payer: Payer,
        superuser: Superuser,
        settings: Settings,
        clock: Minutes,
    ) -> None:
        charge = await begin(meter, payer)
        await meter.progress(charge, TokenCounts(input=80, output=20))
        clock.seconds += 5
        first = await meter.renew()
        await meter.progress(charge, TokenCounts(input=80, output=30))
        clock.seconds += 5
        second = await meter.renew()
        await expire(superuser, settings)

        assert (first, second) == (1, 0)
        assert await superuser.fetchval("SELECT output_tokens FROM usage") == 100

    @pytest.mark.usefixtures("impatient")
    async def test_one_that_failed_is_tried_again_at_the_next_look(
        self, meter: Meter, payer: Payer, superuser: Superuser, away: Away, clock: Minutes
    ) -> None:
        await begin(meter, payer)
        clock.seconds += 20
        away.is_away = True
        failed = await meter.renew()
        away.is_away = False
        clock.seconds += 5

        assert (failed, await meter.renew()) == (0, 1)
        assert await self.lease(superuser) > 60.0

    async def test_an_expired_call_is_booked_to_what_was_seen_of_its_answer(
        self,
        meter: Meter,
        payer: Payer,
        superuser: Superuser,
        settings: Settings,
        clock: Minutes,
    ) -> None:
        charge = await begin(meter, payer)
        await meter.progress(charge, TokenCounts(input=80, output=20))
        clock.seconds += 20
        await meter.renew()
        await expire(superuser, settings)

        row = await superuser.fetchrow("SELECT output_tokens, cost_nanos FROM usage")
        assert row is not None
        assert tuple(row) == (100, 80 * 2_500 + 20 * 10_000)

    async def test_and_in_full_as_long_as_none_of_it_came(
        self,
        meter: Meter,
        payer: Payer,
        superuser: Superuser,
        settings: Settings,
        clock: Minutes,
    ) -> None:
        charge = await begin(meter, payer)
        await meter.progress(charge, TokenCounts(input=80))
        clock.seconds += 20
        await meter.renew()
        await expire(superuser, settings)

        assert await superuser.fetchval("SELECT output_tokens FROM usage") == 300

    async def test_a_call_that_nobody_ends_is_left_to_its_lease(
        self, meter: Meter, payer: Payer, clock: Minutes
    ) -> None:
        await begin(meter, payer)
        # Past all time-outs of its one target: ten minutes, its queue, and a minute more.
        clock.seconds += 671

        assert await meter.renew() == 0
        clock.seconds += 60
        assert await meter.renew() == 0
