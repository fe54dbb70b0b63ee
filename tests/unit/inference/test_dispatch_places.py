"""Calls that wait for their turn, and targets and routes that change meanwhile."""

import asyncio
from datetime import timedelta
from uuid import UUID

import pytest

from maas.inference.application.ports import NoAnswerError, UpstreamError
from maas.inference.application.target_states import (
    FORGOTTEN_AFTER_SECONDS,
)
from maas.inference.domain.failures import (
    QueueDeadlineError,
    QueueFullError,
)
from maas.inference.public import DeploymentId
from maas.shared.domain.ids import TenantId
from tests.factories.routes import DEPLOYMENT, make_route, make_target, seeded
from tests.fakes.dispatch import Desk, FakeSending
from tests.fakes.upstreams import DOWN, FAILS, GOOD, Line


@pytest.fixture
def desk() -> Desk:
    return Desk()


FIRST, SECOND, THIRD = make_target(1), make_target(2, priority=1), make_target(3, priority=2)
BOTH = make_route(FIRST, SECOND)


class TestPlaces:
    async def test_processes_share_what_may_be_under_way(self) -> None:
        desk, gate = Desk(processes=4), asyncio.Event()
        target = make_target(1, max_concurrent=10, max_queued=0)
        desk.upstreams.script(target.endpoint, then=Line(until=gate))
        route = make_route(target)

        callers = [asyncio.create_task(desk.call(route)) for _ in range(2)]
        await asyncio.sleep(0)
        refusal = await desk.refused(route)
        gate.set()
        await asyncio.gather(*callers)

        assert isinstance(refusal, QueueFullError)
        assert refusal.retry_after is not None
        assert refusal.retry_after >= timedelta(seconds=1)
        assert desk.reports.waits == ["full"]

    async def test_who_waits_too_long_is_told_so_and_nothing_was_sent(self, desk: Desk) -> None:
        gate = asyncio.Event()
        target = make_target(1, max_concurrent=1, queue_for=timedelta(seconds=0.01))
        desk.upstreams.script(target.endpoint, Line(until=gate))
        first = asyncio.create_task(desk.call(make_route(target)))
        await asyncio.sleep(0)

        refusal = await desk.refused(make_route(target))
        gate.set()
        await first

        assert isinstance(refusal, QueueDeadlineError)
        assert desk.asked() == ["1"]
        assert desk.reports.waits == ["late"]

    async def test_who_waited_at_one_target_does_not_wait_at_the_next_and_is_told_so(
        self, desk: Desk
    ) -> None:
        gate, brief = asyncio.Event(), timedelta(seconds=0.01)
        targets = [
            make_target(number, priority=number, max_concurrent=1, queue_for=brief)
            for number in (1, 2)
        ]
        for target in targets:
            desk.upstreams.script(target.endpoint, then=Line(until=gate))
        route = make_route(*targets)
        busy = [asyncio.create_task(desk.call(make_route(each))) for each in targets]
        await asyncio.sleep(0)

        late = asyncio.create_task(desk.refused(route))
        await asyncio.sleep(0)
        desk.seconds.now += 1
        refusal = await late
        gate.set()
        await asyncio.gather(*busy)

        assert isinstance(refusal, QueueDeadlineError)
        assert desk.reports.waits == ["late", "full"]
        assert [now.in_flight for now in desk.states.look(DEPLOYMENT).values()] == [0, 0]

    async def test_a_tenant_that_fills_the_queue_keeps_no_other_out(self, desk: Desk) -> None:
        ada, bob = (FakeSending(TenantId(UUID(int=number))) for number in (1, 2))
        gate = asyncio.Event()
        target = make_target(1, max_concurrent=1, max_queued=2)
        desk.upstreams.script(target.endpoint, Line(until=gate))

        async def call(whose: FakeSending) -> None:
            async with desk.open(make_route(target), whose):
                pass

        callers = [asyncio.create_task(call(whose)) for whose in (ada, ada, ada, bob)]
        await asyncio.sleep(0)
        gate.set()
        ended = await asyncio.gather(*callers, return_exceptions=True)

        assert [type(each) for each in ended] == [*[type(None)] * 2, NoAnswerError, type(None)]
        assert desk.reports.waits == ["full", "placed", "placed"]

    async def test_a_full_queue_sends_the_call_elsewhere(self, desk: Desk) -> None:
        gate = asyncio.Event()
        target = make_target(1, max_concurrent=1, max_queued=0)
        desk.upstreams.script(target.endpoint, Line(until=gate))
        route = make_route(target, SECOND)
        first = asyncio.create_task(desk.call(route))
        await asyncio.sleep(0)

        await desk.call(route)
        gate.set()
        await first

        assert desk.asked() == ["1", "2"]
        assert desk.reports.retries == []

    async def test_a_queue_behind_a_target_that_fails_does_not_wait_for_it(
        self, desk: Desk
    ) -> None:
        target = make_target(1, max_concurrent=1)
        gates = [asyncio.Event() for _ in range(5)]
        desk.upstreams.script(
            target.endpoint,
            *(Line(chunks=(), fault="protocol", until=gate) for gate in gates),
        )
        route = make_route(target, SECOND)
        callers = [asyncio.create_task(desk.call(route)) for _ in range(20)]

        for gate in gates:
            gate.set()
        await asyncio.gather(*callers)

        assert desk.asked().count("1") == 5
        assert desk.asked().count("2") == 20
        assert desk.now(target).waiting == 0

    @pytest.mark.parametrize("seed", range(3))
    async def test_everything_is_given_back_whoever_leaves_when(self, seed: int) -> None:
        desk, random = Desk(), seeded(seed)
        targets = [make_target(1, max_concurrent=2, max_queued=50), make_target(2)]
        route = make_route(targets[0], make_target(2, priority=1, max_concurrent=3))
        lines = [GOOD, DOWN, FAILS, Line(chunks=(b"a",), fault="protocol"), Line(status=429)]
        for target in targets:
            desk.upstreams.script(target.endpoint, *random.choices(lines, k=2000))

        async def call() -> None:
            async with desk.open(route) as attempt:
                async for _ in attempt.response.chunks():
                    await asyncio.sleep(0)

        callers: list[asyncio.Task[None]] = []
        for _ in range(500):
            callers.append(asyncio.create_task(call()))
            desk.seconds.now += random.random()
            if random.random() < 0.8:
                await asyncio.sleep(0)
            if random.random() < 0.5:
                random.choice(callers).cancel()
        ended = await asyncio.gather(*callers, return_exceptions=True)

        kinds = {type(each) for each in ended}
        assert kinds <= {type(None), asyncio.CancelledError, NoAnswerError, UpstreamError}
        assert len(kinds) == 4
        assert desk.upstreams.open_now == 0
        assert [(now.in_flight, now.waiting) for now in desk.states.look(DEPLOYMENT).values()] == [
            (0, 0),
            (0, 0),
        ]
        desk.seconds.now += 1000
        for target in targets:
            desk.upstreams.script(target.endpoint)
        await desk.call(route)
        assert desk.now(targets[0]).circuit == "closed"


class TestChanges:
    async def test_a_target_that_is_gone_is_forgotten(self, desk: Desk) -> None:
        await desk.call(BOTH)
        await desk.call(make_route(SECOND, revision=2))

        assert list(desk.states.look(DEPLOYMENT)) == [SECOND.id]

    async def test_a_change_in_mid_call_harms_nobody(self, desk: Desk) -> None:
        async with desk.open(BOTH) as attempt:
            await desk.call(make_route(SECOND, revision=2))
            still = desk.now(FIRST)
            body = b"".join([chunk async for chunk in attempt.response.chunks()])
        await desk.call(BOTH)

        assert body == b"onetwo"
        assert still.in_flight == 1
        assert desk.now(FIRST).in_flight == 0

    async def test_a_change_between_tries_leaves_the_call_its_targets(self, desk: Desk) -> None:
        gate = asyncio.Event()
        desk.upstreams.script(FIRST.endpoint, Line(chunks=(), fault="protocol", until=gate))
        call = asyncio.create_task(desk.call(BOTH))
        await asyncio.sleep(0)

        await desk.call(make_route(THIRD, revision=2))
        gate.set()

        assert await call == b"onetwo"
        assert desk.asked() == ["1", "3", "2"]

    async def test_another_limit_holds_at_once(self, desk: Desk) -> None:
        gate = asyncio.Event()
        desk.upstreams.script(FIRST.endpoint, then=Line(until=gate))
        callers = [
            asyncio.create_task(desk.call(make_route(make_target(1, max_concurrent=limit))))
            for limit in (1, 1, 2)
        ]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        during = desk.now(FIRST)
        gate.set()
        await asyncio.gather(*callers)

        assert (during.in_flight, during.waiting) == (2, 1)

    async def test_what_nobody_calls_any_more_is_not_kept(self, desk: Desk) -> None:
        for number in range(100):
            await desk.call(make_route(FIRST, deployment_id=DeploymentId(UUID(int=number + 10))))
        held = desk.open(make_route(SECOND, deployment_id=DeploymentId(UUID(int=999))))
        await held.__aenter__()
        before = len(desk.states)

        desk.seconds.now += FORGOTTEN_AFTER_SECONDS + 1
        await desk.call(make_route(FIRST))

        assert (before, len(desk.states)) == (101, 2)
        await held.__aexit__(None, None, None)
