"""Who is asked next: priorities, weights within statistics, latencies, and how many tries."""

from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maas.inference.domain.circuit import Circuit, CircuitRules
from maas.inference.domain.routing import (
    LONGEST_REST_SECONDS,
    MovingAverage,
    Option,
    RetryBudget,
    TargetHealth,
    choose,
)
from tests.factories.routes import seeded

DRAWS = 8_000


def make_option(
    weight: int = 1,
    priority: int = 0,
    *,
    first_byte: float | None = None,
    has_place: bool = True,
    is_open: bool = False,
    rests: float = 0,
) -> Option:
    health = TargetHealth(Circuit(CircuitRules(failures_in_row=1), seeded()))
    if first_byte is not None:
        health.first_byte.add(first_byte, 0)
    if is_open:
        permit = health.circuit.enter(0)
        assert permit is not None
        permit.failed(0)
    if rests:
        health.rest(rests, 0)
    return Option(priority, weight, health, has_place)


def chosen(options: Sequence[Option], *, now: float = 1) -> int | None:
    choice = choose(options, now=now, random=seeded())
    return None if choice is None else choice.at


def shares(options: Sequence[Option], *, now: float = 1) -> dict[int, float]:
    random = seeded(7)
    count = Counter(
        choice.at
        for _ in range(DRAWS)
        if (choice := choose(options, now=now, random=random)) is not None
    )
    return {at: count[at] / DRAWS for at in range(len(options))}


class TestWeights:
    @pytest.mark.parametrize("weights", [(1, 1), (9, 1), (1, 2, 3, 4), (1000, 1)])
    def test_targets_alike_get_their_share(self, weights: tuple[int, ...]) -> None:
        options = [make_option(weight, first_byte=0.1) for weight in weights]

        found = shares(options)

        for at, weight in enumerate(weights):
            expected = weight / sum(weights)
            # Five standard deviations, and the seed is fixed.
            spread = 5 * (expected * (1 - expected) / DRAWS) ** 0.5
            assert abs(found[at] - expected) <= spread

    def test_small_differences_of_latency_move_nothing(self) -> None:
        found = shares([make_option(first_byte=0.1), make_option(first_byte=0.085)])

        assert abs(found[0] - 0.5) < 0.02

    def test_who_was_never_measured_gets_his_share(self) -> None:
        found = shares([make_option(first_byte=0.1), make_option()])

        assert abs(found[1] - 0.5) < 0.02


class TestLatency:
    def test_a_slow_one_keeps_only_its_share_squared(self) -> None:
        found = shares([make_option(first_byte=3), make_option(first_byte=0.1)])

        assert abs(found[0] - 0.25) < 0.02

    def test_a_weight_of_a_tenth_stays_below_a_fifth_however_fast_it_is(self) -> None:
        found = shares([make_option(9, first_byte=3), make_option(1, first_byte=0.01)])

        assert abs(found[1] - 0.19) < 0.02

    def test_what_was_measured_long_ago_is_forgotten(self) -> None:
        found = shares([make_option(first_byte=3), make_option(first_byte=0.1)], now=61)

        assert abs(found[0] - 0.5) < 0.02

    def test_one_that_is_fast_again_gets_its_share_back(self) -> None:
        slow, fast = make_option(first_byte=3), make_option(first_byte=0.1)

        for at in range(1, 60):
            slow.health.first_byte.add(0.1, at)
            fast.health.first_byte.add(0.1, at)
        found = shares([slow, fast], now=60)

        assert abs(found[0] - 0.5) < 0.02


class TestTiers:
    def test_the_lowest_priority_is_asked_first(self) -> None:
        assert chosen([make_option(1000, 5), make_option(1, 2), make_option(1, 9)]) == 1

    def test_an_open_circuit_is_passed_over_and_tried_again_when_it_is_due(self) -> None:
        options = [make_option(priority=0, is_open=True), make_option(priority=1)]

        assert chosen(options, now=1) == 1
        assert chosen(options, now=7) == 0

    def test_with_all_circuits_open_there_is_nobody(self) -> None:
        assert chosen([make_option(is_open=True), make_option(is_open=True)]) is None

    def test_who_has_a_place_goes_before_who_makes_calls_wait(self) -> None:
        assert chosen([make_option(1000, has_place=False), make_option(1)]) == 1

    def test_calls_wait_at_a_better_priority_rather_than_go_to_a_worse_one(self) -> None:
        assert chosen([make_option(priority=0, has_place=False), make_option(priority=1)]) == 0

    def test_who_asked_to_be_left_alone_comes_last_but_comes(self) -> None:
        options = [make_option(priority=0, rests=30), make_option(priority=9)]

        assert chosen(options) == 1
        assert chosen(options[:1]) == 0
        assert chosen(options, now=31) == 0

    def test_nobody_rests_for_longer_than_we_let_him(self) -> None:
        options = [make_option(priority=0, rests=86_400), make_option(priority=9)]

        assert chosen(options, now=LONGEST_REST_SECONDS + 1) == 0


@given(
    options=st.lists(
        st.builds(
            make_option,
            weight=st.integers(1, 1000),
            priority=st.integers(0, 3),
            first_byte=st.none() | st.floats(0, 100),
            has_place=st.booleans(),
            is_open=st.booleans(),
            rests=st.sampled_from([0, 10]),
        ),
        max_size=8,
    ),
    seed=st.integers(0, 2**32),
)
def test_nobody_better_is_ever_passed_over(options: list[Option], seed: int) -> None:
    choice = choose(options, now=1, random=seeded(seed))

    admitted = [option for option in options if option.health.circuit.admits(1)]
    assert (choice is None) == (not admitted)
    if choice is not None:
        taken = options[choice.at]
        best = min((o.health.rests_until > 1, o.priority, not o.has_place) for o in admitted)
        assert (taken.health.rests_until > 1, taken.priority, not taken.has_place) == best


class TestMovingAverage:
    @given(samples=st.lists(st.tuples(st.floats(0, 5), st.floats(0, 100)), min_size=1))
    def test_it_lies_between_what_was_measured(self, samples: list[tuple[float, float]]) -> None:
        average, now = MovingAverage(), 0.0

        for later, sample in samples:
            now += later
            average.add(sample, now)

        found = average.believed(now)
        measured = [sample for _, sample in samples]
        assert found is not None
        assert min(measured) - 1e-9 <= found <= max(measured) + 1e-9

    def test_a_thousand_samples_at_once_weigh_no_more_than_their_time(self) -> None:
        average = MovingAverage()
        average.add(1, 0)

        for _ in range(1000):
            average.add(9, 0.001)

        found = average.believed(0.001)
        assert found == pytest.approx(1, abs=0.01)


class TestRetryBudget:
    @given(calls=st.integers(0, 3000), healthy=st.integers(0, 3000))
    def test_a_full_outage_makes_a_tenth_more_tries_and_a_few(
        self, calls: int, healthy: int
    ) -> None:
        budget = RetryBudget(0)
        for _ in range(healthy):
            budget.note_call(0)

        granted = 0
        for _ in range(calls):
            budget.note_call(0)
            granted += budget.take(0) + budget.take(0)

        assert granted <= (calls + healthy) * RetryBudget.SHARE + RetryBudget.FEW
        assert granted <= calls * RetryBudget.SHARE + RetryBudget.MOST

    def test_a_quiet_route_may_try_again_after_a_while(self) -> None:
        budget = RetryBudget(0)
        while budget.take(0):
            pass

        assert [budget.take(1), budget.take(2), budget.take(1000)] == [False, True, True]
        assert sum(budget.take(1000) for _ in range(100)) == RetryBudget.FEW - 1
