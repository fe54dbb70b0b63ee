"""How many requests are let in at once."""

import pytest

from maas.shared.interface.traffic import FEW, MAX_WAIT_SECONDS, Traffic

MAX = 4 * FEW


@pytest.fixture
def traffic() -> Traffic:
    """A process that has served nothing for long."""
    traffic = Traffic(max_in_flight=MAX)
    assert traffic.has_room(100.0)
    return traffic


def serve(traffic: Traffic, count: int, *, since: float) -> float:
    """Have so many end within two seconds, and tell when that was."""
    for number in range(count):
        traffic.note_served(since + 2 * number / count)
    traffic.note_served(since + 2)
    return since + 2


def test_a_burst_may_fill_the_process(traffic: Traffic) -> None:
    for number in range(MAX):
        assert traffic.has_room(100.5)
        traffic.in_flight = number + 1

    assert not traffic.has_room(100.5)


def test_a_crowd_that_stands_gets_no_larger_than_what_is_served_in_a_second(
    traffic: Traffic,
) -> None:
    traffic.in_flight = 2 * FEW

    now = serve(traffic, 4 * FEW, since=100.0)

    traffic.in_flight = 2 * FEW - 2
    assert traffic.has_room(now)
    traffic.in_flight = 2 * FEW + 2
    assert not traffic.has_room(now)


def test_a_few_are_let_in_where_nothing_ends(traffic: Traffic) -> None:
    traffic.in_flight = FEW
    assert not traffic.has_room(200.0)

    traffic.in_flight = FEW - 1

    assert traffic.has_room(200.0)


def test_who_falls_back_to_a_few_may_have_a_burst_again(traffic: Traffic) -> None:
    traffic.in_flight = MAX - 1
    assert not traffic.has_room(200.0)

    traffic.in_flight = 0
    assert traffic.has_room(200.0)
    traffic.in_flight = MAX - 1

    assert traffic.has_room(200.0 + MAX_WAIT_SECONDS)


def test_a_small_process_stays_small() -> None:
    assert not Traffic(max_in_flight=1, in_flight=1).has_room(0.0)
