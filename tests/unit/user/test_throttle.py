from datetime import datetime, timedelta

import pytest

from maas.user.domain.throttle import BURST, LEASE, AttemptCounter, WaitPolicy
from tests.factories.accounts import NOON

POLICY = WaitPolicy(first=timedelta(seconds=4), longest=timedelta(seconds=900))
WINDOW = timedelta(minutes=15)


def make_counter() -> AttemptCounter:
    return AttemptCounter(failures=0, pending=0, pending_until=NOON, blocked_until=NOON)


class TestWaitPolicy:
    def test_doubles_from_the_third_failure_to_the_longest(self) -> None:
        waits = [POLICY.wait_after(failures).total_seconds() for failures in range(1, 14)]

        assert waits == [0, 0, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900, 900]

    def test_a_million_failures_wait_no_longer(self) -> None:
        assert POLICY.wait_after(1_000_000) == timedelta(seconds=900)


class TestAttemptCounter:
    @pytest.mark.parametrize("at_once", [1, 2, 5, BURST, 1000])
    def test_any_quarter_of_an_hour_has_ten_guesses_at_most(self, at_once: int) -> None:
        """The greediest guesser: as many at once as there is room for, as soon as there is."""
        counter, now = make_counter(), NOON
        guesses: list[datetime] = []
        while now < NOON + timedelta(hours=3):
            counter.lapse(now)
            under_way = 0
            while under_way < at_once and not counter.wait(now) and counter.has_room(BURST):
                counter.begin(now)
                under_way += 1
            guesses += [now] * under_way
            for _ in range(under_way):
                counter.fail(now, POLICY)
            now += counter.wait(now)

        most = max(sum(start <= each < start + WINDOW for each in guesses) for start in guesses)
        assert most <= 10

    def test_a_guess_nobody_settled_stops_counting(self) -> None:
        counter = make_counter()
        for _ in range(BURST):
            counter.begin(NOON)
        assert not counter.has_room(BURST)

        counter.lapse(NOON + LEASE)

        assert counter.has_room(BURST)

    def test_one_that_was_right_begins_anew(self) -> None:
        counter = make_counter()
        for _ in range(5):
            counter.begin(NOON)
            counter.fail(NOON, POLICY)
        assert counter.wait(NOON) == timedelta(seconds=16)

        counter.forgive(NOON)

        assert (counter.failures, counter.wait(NOON)) == (0, timedelta())
