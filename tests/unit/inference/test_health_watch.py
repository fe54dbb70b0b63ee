"""Looks at targets that are down: when, for how long, and with what."""

import asyncio
import math
from collections.abc import AsyncIterator

import pytest

from maas.inference.application.health_watch import LOOKS, HealthWatch
from maas.inference.application.target_states import TargetState
from maas.inference.domain.circuit import Circuit, CircuitRules
from maas.inference.domain.route import Endpoint
from maas.inference.domain.routing import TargetHealth
from tests.factories.routes import make_target, seeded
from tests.fakes.upstreams import Seconds


class FakeLookout:
    """Tells what it is told to, and lets `beside` happen at each look."""

    def __init__(self, seconds: Seconds) -> None:
        self.is_up = False
        self.looked_at: list[Endpoint] = []
        self.step = 0.0
        self._seconds = seconds

    async def is_there(self, endpoint: Endpoint, *, seconds: float) -> bool:  # noqa: ARG002  the port's
        self.looked_at.append(endpoint)
        self._seconds.now += self.step
        return self.is_up


@pytest.fixture
def seconds() -> Seconds:
    return Seconds()


@pytest.fixture
def lookout(seconds: Seconds) -> FakeLookout:
    return FakeLookout(seconds)


@pytest.fixture
async def watch(lookout: FakeLookout, seconds: Seconds) -> AsyncIterator[HealthWatch]:
    watch = HealthWatch(lookout, every_seconds=0.001, look_seconds=2, seconds=seconds)
    yield watch
    await watch.close()


def make_open_state(seconds: Seconds) -> TargetState:
    rules = CircuitRules(failures_in_row=1, wait_seconds=5)
    state = TargetState(TargetHealth(Circuit(rules, seeded())))
    permit = state.health.circuit.enter(seconds())
    assert permit is not None
    permit.failed(seconds())
    return state


async def until_done(watch: HealthWatch) -> None:
    async with asyncio.timeout(9):
        while len(watch):  # noqa: ASYNC110  it tells nobody when it is done
            await asyncio.sleep(0.001)


async def test_what_is_still_down_is_put_off(watch: HealthWatch, seconds: Seconds) -> None:
    state = make_open_state(seconds)
    seconds.now += 3.9

    watch.follow(make_target(1), state)
    await asyncio.sleep(0)

    # The next look, and how long it may take.
    assert state.health.circuit.seconds_until_due(seconds()) >= 2


async def test_what_is_up_again_waits_no_longer_for_it(
    watch: HealthWatch, lookout: FakeLookout, seconds: Seconds
) -> None:
    state = make_open_state(seconds)
    due = state.health.circuit.seconds_until_due(seconds())
    lookout.is_up, lookout.step = True, 1

    watch.follow(make_target(1), state)
    await until_done(watch)

    assert len(lookout.looked_at) == math.ceil(due)
    assert state.health.circuit.state(seconds()) == "half-open"


async def test_no_key_is_shown_and_none_is_kept(
    watch: HealthWatch, lookout: FakeLookout, seconds: Seconds
) -> None:
    lookout.is_up, lookout.step = True, 10

    watch.follow(make_target(1), make_open_state(seconds))
    await until_done(watch)

    assert [dict(endpoint.headers) for endpoint in lookout.looked_at] == [{}]


async def test_one_task_looks_at_a_target_however_often_it_fails(
    watch: HealthWatch, seconds: Seconds
) -> None:
    state = make_open_state(seconds)

    for _ in range(100):
        watch.follow(make_target(1), state)

    assert len(watch) == 1


async def test_nobody_looks_for_ever(
    watch: HealthWatch, lookout: FakeLookout, seconds: Seconds
) -> None:
    watch.follow(make_target(1), make_open_state(seconds))
    await until_done(watch)

    assert len(lookout.looked_at) == LOOKS


async def test_with_no_seconds_between_looks_there_is_none(
    lookout: FakeLookout, seconds: Seconds
) -> None:
    watch = HealthWatch(lookout, every_seconds=0, seconds=seconds)

    watch.follow(make_target(1), make_open_state(seconds))

    assert len(watch) == 0


async def test_closing_ends_all_looks(watch: HealthWatch, seconds: Seconds) -> None:
    for number in range(20):
        watch.follow(make_target(number), make_open_state(seconds))

    await watch.close()
    await asyncio.sleep(0)

    assert len(watch) == 0
