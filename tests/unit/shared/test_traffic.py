"""How many requests are let in at once."""

import heapq
import random

import pytest
from starlette.types import Message

from maas.shared.domain.errors import UnavailableError
from maas.shared.interface.traffic import BURST_SECONDS, FEW, IncomingBody, Traffic

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


def test_a_crowd_that_stands_gets_no_larger_than_what_is_served_in_half_a_second(
    traffic: Traffic,
) -> None:
    traffic.in_flight = 2 * FEW

    now = serve(traffic, 8 * FEW, since=100.0)

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

    assert traffic.has_room(200.0 + BURST_SECONDS)


def test_one_step_below_the_limit_is_no_lull(traffic: Traffic) -> None:
    traffic.in_flight = FEW
    assert not traffic.has_room(200.0)
    traffic.in_flight = FEW - 1
    assert traffic.has_room(200.0)

    traffic.in_flight = FEW

    assert not traffic.has_room(200.0 + BURST_SECONDS / 2)


@pytest.mark.parametrize("load", [0.9, 1.5, 3])
@pytest.mark.parametrize("a_second", [20, 39, 150, 300])
def test_who_is_let_in_is_served_in_time_and_the_process_stays_busy(
    a_second: int, load: float
) -> None:
    """Thirty seconds of arrivals as they come to five servers, who take them in turn."""
    dice = random.Random(7)  # noqa: S311  the same load each time
    traffic = Traffic(max_in_flight=256)
    waits: list[float] = []
    ends: list[float] = []
    free, now, asked = [0.0] * 5, 0.0, 0
    while now < 30:
        now += dice.expovariate(a_second * load)
        asked += 1
        while ends and ends[0] <= now:
            traffic.in_flight -= 1
            traffic.note_served(heapq.heappop(ends))
        if traffic.has_room(now):
            traffic.in_flight += 1
            begun = max(now, heapq.heappop(free))
            end = begun + dice.uniform(0.5, 1.5) * 5 / a_second
            heapq.heappush(free, end)
            heapq.heappush(ends, end)
            waits.append(begun - now)

    waits.sort()
    assert waits[len(waits) * 99 // 100] < 1.5
    assert len(waits) >= min(asked, 30 * a_second) * 0.95


async def test_a_whole_body_is_shed_where_a_crowd_stands() -> None:
    traffic, shed = Traffic(max_in_flight=MAX, in_flight=FEW + 1), []
    body = IncomingBody(_nothing_more, traffic, lambda: shed.append(1))

    with pytest.raises(UnavailableError):
        body.take_place()
    assert shed == [1]

    traffic.in_flight = FEW
    body.take_place()


async def test_bodies_that_come_together_are_a_burst() -> None:
    traffic = Traffic(max_in_flight=MAX)
    bodies = [IncomingBody(_nothing_more, traffic, lambda: None) for _ in range(MAX)]
    for body in bodies:
        traffic.in_flight += 1
        body.take_place()

    assert traffic.in_flight == MAX


async def _nothing_more() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


def test_a_small_process_stays_small() -> None:
    assert not Traffic(max_in_flight=1, in_flight=1).has_room(0.0)
