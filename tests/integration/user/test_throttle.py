"""Failed sign-ins are counted in PostgreSQL, alike for all processes."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

import asyncpg
import pytest

from maas.shared.domain.ids import AccountId, new_id
from maas.shared.infrastructure.database import Database
from maas.user.application.throttle import (
    AttemptOutcome,
    LoginAttempt,
    LoginThrottle,
    TooManyLoginsError,
)
from maas.user.domain.throttle import BURST, FREE_FAILURES, LEASE, MEMORY, WaitPolicy
from maas.user.infrastructure.throttle import GuardedLoginThrottle, site_of

pytestmark = pytest.mark.integration

Superuser: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
POLICY = WaitPolicy(first=timedelta(seconds=4), longest=timedelta(seconds=900))
HOME, ELSEWHERE = "192.0.2.7", "198.51.100.9"


@pytest.fixture
def throttle(database: Database) -> LoginThrottle:
    return GuardedLoginThrottle(database, policy=POLICY)


async def guess(
    throttle: LoginThrottle,
    outcome: AttemptOutcome = "failed",
    *,
    login: str = "ada",
    address: str = ELSEWHERE,
    account_id: AccountId | None = None,
    is_known: bool = False,
) -> LoginAttempt:
    attempt = await throttle.admit(
        login=login, address=address, account_id=account_id, is_known=is_known
    )
    await throttle.settle(attempt, outcome)
    return attempt


async def wait_of(throttle: LoginThrottle, **who: object) -> float:
    with pytest.raises(TooManyLoginsError) as refusal:
        await guess(throttle, **who)  # type: ignore[arg-type]  # passed on as given
    assert refusal.value.retry_after is not None
    return refusal.value.retry_after.total_seconds()


async def test_waits_from_the_third_failure_on(throttle: LoginThrottle) -> None:
    for _ in range(3):
        await guess(throttle)

    assert 3 < await wait_of(throttle) <= 4


async def test_an_address_is_held_whatever_names_it_tries(throttle: LoginThrottle) -> None:
    for number in range(3):
        await guess(throttle, login=f"user{number}")

    assert await wait_of(throttle, login="another") > 3
    await guess(throttle, login="another", address=HOME)


async def test_a_name_is_held_whatever_the_address_and_the_case(throttle: LoginThrottle) -> None:
    for number in range(3):
        await guess(throttle, address=f"192.0.2.{number}")

    assert await wait_of(throttle, login="ADA", address=HOME) > 3


async def test_a_known_pair_is_held_by_its_own_counter_only(throttle: LoginThrottle) -> None:
    ada = AccountId(new_id())
    for _ in range(3):
        await guess(throttle, account_id=ada)
    assert await wait_of(throttle, account_id=ada) > 3

    for _ in range(3):
        await guess(throttle, account_id=ada, address=ELSEWHERE, is_known=True)

    assert await wait_of(throttle, account_id=ada, address=ELSEWHERE, is_known=True) > 3
    await guess(throttle, "right", account_id=ada, address=HOME, is_known=True)


async def test_the_right_password_forgives_a_known_pair(throttle: LoginThrottle) -> None:
    ada = AccountId(new_id())
    for _ in range(4):
        await guess(throttle, account_id=ada, is_known=True)
        await guess(throttle, account_id=ada, is_known=True)
        await guess(throttle, "right", account_id=ada, is_known=True)


async def test_what_was_not_compared_is_not_counted(throttle: LoginThrottle) -> None:
    for _ in range(20):
        await guess(throttle, "unknown")


async def test_a_thousand_at_once_are_held_as_in_a_row(throttle: LoginThrottle) -> None:
    compared = 0

    async def attack() -> None:
        nonlocal compared
        attempt = await throttle.admit(login="ada", address=HOME, account_id=None, is_known=False)
        compared += 1
        await asyncio.sleep(0.3)
        await throttle.settle(attempt, "failed")

    results = await asyncio.gather(*(attack() for _ in range(60)), return_exceptions=True)

    assert compared <= BURST
    refusals = [result for result in results if result is not None]
    assert all(isinstance(refusal, TooManyLoginsError) for refusal in refusals)
    assert len(refusals) >= 60 - BURST


async def test_many_right_ones_at_once_all_pass(throttle: LoginThrottle) -> None:
    ada = AccountId(new_id())

    await asyncio.gather(
        *(guess(throttle, "right", account_id=ada, is_known=True) for _ in range(30))
    )


async def test_the_second_name_of_an_account_brings_decoys_and_no_429(
    throttle: LoginThrottle,
) -> None:
    ada = AccountId(new_id())
    for number in range(3):
        await guess(throttle, login="ada", account_id=ada, address=f"192.0.2.{number}")

    attempt = await guess(throttle, login="ada@example.com", account_id=ada, address="192.0.2.99")

    assert attempt.is_decoy
    assert not (await guess(throttle, login="eve@example.com", address="192.0.2.98")).is_decoy


async def test_an_account_that_is_there_is_held_as_one_that_is_not(
    throttle: LoginThrottle,
) -> None:
    ada = AccountId(new_id())
    waits = []
    for login, account_id in (("ada", ada), ("eve", None)):
        for number in range(5):
            try:
                await guess(
                    throttle, login=login, account_id=account_id, address=f"192.0.2.{number}"
                )
                waits.append((login, "admitted"))
            except TooManyLoginsError as refusal:
                waits.append((login, refusal.detail))

    assert [each[1] for each in waits[:5]] == [each[1] for each in waits[5:]]


async def test_keys_hold_neither_names_nor_addresses(
    throttle: LoginThrottle, superuser: Superuser
) -> None:
    await guess(throttle, login="ada@example.com")

    keys = [row["key"] for row in await superuser.fetch("SELECT key FROM login_throttles")]

    assert len(keys) == 2
    assert not any("ada@" in key or ELSEWHERE in key for key in keys)


async def test_a_day_without_a_failure_begins_anew(
    throttle: LoginThrottle, superuser: Superuser
) -> None:
    for _ in range(3):
        await guess(throttle)
    await superuser.execute(
        "UPDATE login_throttles SET touched_at = touched_at - interval '25 hours',"
        " blocked_until = blocked_until - interval '25 hours'"
    )

    await guess(throttle)
    await guess(throttle)


async def test_two_processes_count_as_one(database: Database) -> None:
    one, other = (GuardedLoginThrottle(database, policy=POLICY) for _ in range(2))
    for throttle in (one, other, one):
        await guess(throttle)

    assert await wait_of(other) > 3


async def test_what_is_refused_writes_nothing(
    throttle: LoginThrottle, superuser: Superuser
) -> None:
    for _ in range(3):
        await guess(throttle)
    before = await superuser.fetch("SELECT xmin::text, * FROM login_throttles ORDER BY key")

    for _ in range(5):
        await wait_of(throttle)

    assert await superuser.fetch("SELECT xmin::text, * FROM login_throttles ORDER BY key") == before


@pytest.mark.parametrize(
    ("address", "site"),
    [
        ("192.0.2.7", "192.0.2.7/32"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        (None, None),
    ],
)
def test_an_ipv6_site_counts_as_one_address(address: str | None, site: str | None) -> None:
    assert site_of(address) == site


NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
QUARTER = timedelta(minutes=15)


class TestCountingOverTime:
    """The functions themselves, told what time it is."""

    @staticmethod
    async def begin(connection: Superuser, at: datetime) -> tuple[str, timedelta]:
        row = await connection.fetchrow(
            "SELECT * FROM begin_login_guess(ARRAY['x'], $1, NULL, $2, $3, $4, $5)",
            [BURST],
            FREE_FAILURES,
            MEMORY,
            LEASE,
            at,
        )
        assert row is not None
        return row["verdict"], row["wait"]

    @staticmethod
    async def fail(connection: Superuser, at: datetime) -> None:
        await connection.execute(
            "SELECT settle_login_guess(ARRAY['x'], 'failed', $1, $2, $3, $4)",
            FREE_FAILURES,
            POLICY.first,
            POLICY.longest,
            at,
        )

    @pytest.mark.parametrize("at_once", [1, 2, 5, BURST, 1000])
    async def test_any_quarter_of_an_hour_has_ten_guesses_at_most(
        self, superuser: Superuser, at_once: int
    ) -> None:
        """The greediest guesser: as many at once as there is room for, as soon as there is."""
        now = NOON
        guesses: list[datetime] = []
        while now < NOON + timedelta(hours=3):
            under_way = 0
            while under_way < at_once and (await self.begin(superuser, now))[0] == "admitted":
                under_way += 1
            guesses += [now] * under_way
            for _ in range(under_way):
                await self.fail(superuser, now)
            now = max(now, await superuser.fetchval("SELECT blocked_until FROM login_throttles"))

        assert len(guesses) > 10
        assert (
            max(sum(start <= each < start + QUARTER for each in guesses) for start in guesses) <= 10
        )

    async def test_waits_double_from_the_third_failure_to_the_longest(
        self, superuser: Superuser
    ) -> None:
        now, waits = NOON, []
        for _ in range(13):
            assert (await self.begin(superuser, now))[0] == "admitted"
            await self.fail(superuser, now)
            until = await superuser.fetchval("SELECT blocked_until FROM login_throttles")
            waits.append(max((until - now).total_seconds(), 0))
            now = max(now, until)

        assert waits == [0, 0, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900, 900]

    async def test_a_million_failures_wait_no_longer(self, superuser: Superuser) -> None:
        await self.begin(superuser, NOON)
        await superuser.execute("UPDATE login_throttles SET failures = 1000000")
        await self.fail(superuser, NOON)

        wait = await superuser.fetchval("SELECT blocked_until - $1 FROM login_throttles", NOON)
        assert wait == timedelta(seconds=900)

    async def test_a_guess_nobody_settled_stops_counting(self, superuser: Superuser) -> None:
        for _ in range(BURST):
            await self.begin(superuser, NOON)
        assert (await self.begin(superuser, NOON))[0] == "busy"

        assert (await self.begin(superuser, NOON + LEASE))[0] == "admitted"
