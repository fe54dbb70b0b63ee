"""A call on its way from target to target."""

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from maas.inference.application.dispatch import MOST_TRIES, Dispatcher
from maas.inference.application.ports import Attempt, NoAnswerError, UpstreamError
from maas.inference.application.target_states import (
    FORGOTTEN_AFTER_SECONDS,
    TargetNow,
    TargetStates,
)
from maas.inference.application.tries import TryPorts
from maas.inference.domain.circuit import CircuitRules
from maas.inference.domain.failures import (
    NoTargetError,
    QueueDeadlineError,
    QueueFullError,
    UpstreamFailedError,
    UpstreamRateLimitedError,
    UpstreamRefusedError,
    UpstreamTimeoutError,
    UpstreamUnreachableError,
)
from maas.inference.domain.route import Route, RouteTarget
from maas.inference.domain.routing import RetryBudget
from maas.inference.domain.wire import BrokenStreamError, NotTakenError
from maas.inference.public import DeploymentId, TargetId
from maas.shared.domain.errors import MaasError
from tests.factories.routes import DEPLOYMENT, make_route, make_target, seeded
from tests.fakes.clock import FakeClock
from tests.fakes.upstreams import DOWN, FAILS, GOOD, FakeReports, FakeUpstreams, Line, Seconds

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
NEVER_OPENS = CircuitRules(failures_in_row=10**9, least_calls=10**9)


class Desk:
    """A dispatcher over fakes, and the short words of these tests."""

    def __init__(self, *, rules: CircuitRules | None = None, processes: int = 1) -> None:
        self.seconds = Seconds()
        self.upstreams = FakeUpstreams(self.seconds)
        self.reports = FakeReports()
        self.failing: list[TargetId] = []
        self.states = TargetStates(
            processes=processes, rules=rules, random=seeded(), seconds=self.seconds
        )
        self.dispatcher = Dispatcher(
            upstreams=self.upstreams,
            states=self.states,
            ports=TryPorts(
                reports=self.reports,
                clock=FakeClock(NOON),
                seconds=self.seconds,
                on_failing=lambda target, _: self.failing.append(target.id),
            ),
        )

    async def call(self, route: Route) -> bytes:
        async with self.open(route) as attempt:
            return b"".join([chunk async for chunk in attempt.response.chunks()])

    def open(self, route: Route) -> "Opening":
        return Opening(self, route)

    async def refused(self, route: Route) -> MaasError:
        with pytest.raises(NoAnswerError) as refused:
            await self.call(route)
        return refused.value.refusal

    def now(self, target: RouteTarget) -> TargetNow:
        return self.states.look(DEPLOYMENT)[target.id]

    def asked(self) -> list[str]:
        return [url.partition("//supplier-")[2][0] for url in self.upstreams.asked]


class Opening:
    def __init__(self, desk: Desk, route: Route) -> None:
        self._opening = desk.dispatcher.open(route, "chat", lambda _: b"{}")

    async def __aenter__(self) -> Attempt:
        return await self._opening.__aenter__()

    async def __aexit__(self, *exc: object) -> bool | None:
        return await self._opening.__aexit__(*exc)  # type: ignore[arg-type]  # passed through


@pytest.fixture
def desk() -> Desk:
    return Desk()


FIRST, SECOND, THIRD = make_target(1), make_target(2, priority=1), make_target(3, priority=2)
BOTH = make_route(FIRST, SECOND)


class TestAnswers:
    async def test_an_answer_comes_whole_and_is_told_of(self, desk: Desk) -> None:
        desk.upstreams.script(FIRST.endpoint, Line(takes=0.25))

        async with desk.open(make_route(FIRST)) as attempt:
            chunks = [chunk async for chunk in attempt.response.chunks()]

        facts = attempt.facts
        assert chunks == [b"one", b"two"]
        assert facts.target is FIRST
        assert facts.decision == "only one, priority 0"
        assert facts.first_byte == timedelta(seconds=0.25)
        assert [(each.status, each.fault) for each in facts.tries] == [(200, None)]
        assert (desk.reports.outcomes, desk.reports.first_bytes) == (["answered"], [0.25])
        assert desk.now(FIRST).first_byte_seconds == 0.25

    @pytest.mark.parametrize("status", [400, 413, 422])
    async def test_a_refusal_of_the_request_itself_is_an_answer(
        self, desk: Desk, status: int
    ) -> None:
        desk.upstreams.script(FIRST.endpoint, Line(status=status, chunks=(b"no",)))

        async with desk.open(BOTH) as attempt:
            body = b"".join([chunk async for chunk in attempt.response.chunks()])

        assert (attempt.response.status, body) == (status, b"no")
        assert desk.asked() == ["1"]
        assert desk.reports.outcomes == ["request-refused"]

    async def test_a_reader_that_refuses_in_turn_does_not_make_it_another_outcome(
        self, desk: Desk
    ) -> None:
        desk.upstreams.script(FIRST.endpoint, Line(status=400))

        with pytest.raises(NotTakenError):
            async with desk.open(BOTH):
                raise NotTakenError("n")

        assert desk.reports.outcomes == ["request-refused"]

    async def test_a_call_that_cannot_be_spelled_leaves_nothing_behind(self, desk: Desk) -> None:
        def spell(_: RouteTarget) -> bytes:
            raise KeyError

        with pytest.raises(KeyError):
            async with desk.dispatcher.open(BOTH, "chat", spell):
                pass

        assert desk.now(FIRST).in_flight == 0
        assert desk.asked() == []

    async def test_a_call_is_spelled_when_it_has_its_place(self, desk: Desk) -> None:
        gate, spelled = asyncio.Event(), list[TargetId]()
        target = make_target(1, max_concurrent=1)
        desk.upstreams.script(target.endpoint, Line(until=gate))
        first = asyncio.create_task(desk.call(make_route(target)))
        await asyncio.sleep(0)

        async def call() -> None:
            def spell(target: RouteTarget) -> bytes:
                spelled.append(target.id)
                return b"{}"

            async with desk.dispatcher.open(make_route(target), "chat", spell):
                pass

        second = asyncio.create_task(call())
        await asyncio.sleep(0)
        waiting, before = desk.now(target).waiting, list(spelled)
        gate.set()
        await asyncio.gather(first, second)

        assert (waiting, before, spelled) == (1, [], [target.id])

    async def test_each_target_is_spelled_for(self, desk: Desk) -> None:
        spelled: list[TargetId] = []
        desk.upstreams.script(FIRST.endpoint, FAILS)

        def spell(target: RouteTarget) -> bytes:
            spelled.append(target.id)
            return b"{}"

        async with desk.dispatcher.open(BOTH, "chat", spell):
            pass

        assert spelled == [FIRST.id, SECOND.id]

    async def test_a_target_whose_wire_cannot_say_it_is_passed_over(self, desk: Desk) -> None:
        def spell(target: RouteTarget) -> bytes:
            if target is FIRST:
                raise NotTakenError("n")
            return b"{}"

        async with desk.dispatcher.open(BOTH, "chat", spell) as attempt:
            assert attempt.facts.target is SECOND

        with pytest.raises(NotTakenError):
            async with desk.dispatcher.open(make_route(FIRST), "chat", spell):
                pass

    async def test_a_kind_that_no_target_takes_is_refused(self, desk: Desk) -> None:
        with pytest.raises(NoAnswerError) as refused:
            async with desk.dispatcher.open(BOTH, "embeddings", lambda _: b"{}"):
                pass

        assert isinstance(refused.value.refusal, NoTargetError)
        assert refused.value.facts is None


TROUBLES = [
    Line(status=401),
    Line(status=402),
    Line(status=403),
    Line(status=404),
    Line(status=307),
    Line(status=408),
    Line(status=409),
    Line(status=429),
    Line(status=500),
    Line(status=503),
    Line(status=529),
    Line(headers={"Content-Type": "text/html; charset=utf-8"}),
    Line(chunks=()),
    DOWN,
    Line(chunks=(), fault="dns", was_sent=False),
    Line(chunks=(), fault="tls"),
    Line(chunks=(), fault="protocol"),
    Line(chunks=(), fault="connect-timeout", was_sent=False),
    Line(chunks=(), fault="first-byte-timeout"),
    Line(chunks=(), fault="refused-target", was_sent=False),
]


class TestRetries:
    @pytest.mark.parametrize("trouble", TROUBLES, ids=str)
    async def test_what_is_no_answer_is_tried_elsewhere(self, desk: Desk, trouble: Line) -> None:
        desk.upstreams.script(FIRST.endpoint, trouble)

        async with desk.open(BOTH) as attempt:
            pass

        assert desk.asked() == ["1", "2"]
        assert attempt.facts.decision == "only one, priority 1, after 1 others"
        first, second = attempt.facts.tries
        assert first.status != 200 or first.fault == "protocol"
        assert (second.target_id, second.status) == (SECOND.id, 200)

    async def test_nothing_is_tried_again_once_the_answer_began(self, desk: Desk) -> None:
        desk.upstreams.script(FIRST.endpoint, Line(chunks=(b"one",), fault="protocol"))

        with pytest.raises(UpstreamError):
            await desk.call(BOTH)

        assert desk.asked() == ["1"]
        assert desk.reports.outcomes == ["broke-off"]
        assert desk.now(FIRST).in_flight == 0

    async def test_a_head_without_a_first_piece_in_time_is_tried_elsewhere(
        self, desk: Desk
    ) -> None:
        empty = Line(chunks=(b"",), fault="idle-timeout")
        desk.upstreams.script(FIRST.endpoint, empty)

        # An empty piece is no piece: what comes then is the fault.
        await desk.call(BOTH)

        assert desk.asked() == ["1", "2"]

    async def test_a_target_is_never_asked_twice_by_one_call(self, desk: Desk) -> None:
        for target in (FIRST, SECOND, THIRD):
            desk.upstreams.script(target.endpoint, then=FAILS)

        await desk.refused(make_route(FIRST, SECOND, THIRD))

        assert desk.asked() == ["1", "2", "3"]

    async def test_a_call_is_not_tried_for_ever(self, desk: Desk) -> None:
        targets = [make_target(number) for number in range(1, 9)]
        for target in targets:
            desk.upstreams.script(target.endpoint, then=FAILS)

        await desk.refused(make_route(*targets))

        assert len(desk.upstreams.asked) == MOST_TRIES

    async def test_the_only_target_is_asked_again_once_if_nothing_was_sent(
        self, desk: Desk
    ) -> None:
        desk.upstreams.script(FIRST.endpoint, DOWN)
        assert await desk.call(make_route(FIRST)) == b"onetwo"

        desk.upstreams.script(FIRST.endpoint, DOWN, DOWN)
        assert isinstance(await desk.refused(make_route(FIRST)), UpstreamUnreachableError)

        assert desk.asked() == ["1"] * 4

    @pytest.mark.parametrize("trouble", [FAILS, Line(chunks=(), fault="protocol")], ids=str)
    async def test_the_only_target_is_not_asked_again_if_it_may_have_begun(
        self, desk: Desk, trouble: Line
    ) -> None:
        desk.upstreams.script(FIRST.endpoint, trouble)

        assert isinstance(await desk.refused(make_route(FIRST)), UpstreamFailedError)

        assert desk.asked() == ["1"]

    async def test_a_full_outage_makes_few_more_tries_than_calls(self) -> None:
        desk = Desk(rules=NEVER_OPENS)
        for target in (FIRST, SECOND, THIRD):
            desk.upstreams.script(target.endpoint, then=FAILS)

        for _ in range(1000):
            await desk.refused(make_route(FIRST, SECOND, THIRD))

        extra = len(desk.upstreams.asked) - 1000
        assert 0 < extra <= 1000 * RetryBudget.SHARE + RetryBudget.FEW
        assert desk.reports.retries.count(True) == extra

    async def test_under_a_full_outage_hardly_a_call_goes_out_at_all(self, desk: Desk) -> None:
        for target in (FIRST, SECOND):
            desk.upstreams.script(target.endpoint, then=DOWN)

        refusals = Counter([type(await desk.refused(BOTH)).code for _ in range(1000)])

        assert len(desk.upstreams.asked) <= 2 * CircuitRules().failures_in_row
        assert refusals == {"upstream-unreachable": 1000}

    async def test_all_tries_together_have_the_time_of_the_first_target(self, desk: Desk) -> None:
        slow = make_target(1, total=timedelta(seconds=10))
        route = make_route(slow, make_target(2, priority=1, total=timedelta(seconds=60)), THIRD)
        desk.upstreams.script(slow.endpoint, Line(status=500, takes=7))
        desk.upstreams.script(SECOND.endpoint, Line(status=500, takes=7))

        await desk.refused(route)

        assert [limits.total.total_seconds() for limits in desk.upstreams.limits] == [10, 3]


class TestRefusals:
    @pytest.mark.parametrize(
        ("first", "second", "refusal"),
        [
            (401, 403, UpstreamRefusedError),
            (401, 503, UpstreamFailedError),
            (503, 401, UpstreamFailedError),
            (503, 504, UpstreamTimeoutError),
            (429, 503, UpstreamRateLimitedError),
            (503, 429, UpstreamRateLimitedError),
        ],
    )
    async def test_the_most_hopeful_is_told(
        self, desk: Desk, first: int, second: int, refusal: type[MaasError]
    ) -> None:
        desk.upstreams.script(FIRST.endpoint, Line(status=first))
        desk.upstreams.script(SECOND.endpoint, Line(status=second))

        assert type(await desk.refused(BOTH)) is refusal

    @pytest.mark.parametrize(
        ("headers", "seconds"),
        [
            ({"retry-after": "7"}, 7),
            ({"retry-after": "1.2"}, 2),
            ({"retry-after-ms": "2500", "retry-after": "9"}, 3),
            ({"retry-after": "Sun, 22 Nov 2026 12:00:30 GMT"}, 30),
            ({"retry-after": "99999999"}, 3600),
            ({"retry-after": "-5"}, 1),
            ({"retry-after": "soon"}, 1),
            ({"retry-after": "nan"}, 1),
            ({}, 1),
        ],
    )
    async def test_the_supplier_says_when_to_come_again(
        self, desk: Desk, headers: dict[str, str], seconds: int
    ) -> None:
        desk.upstreams.script(FIRST.endpoint, Line(status=429, headers=headers))

        refusal = await desk.refused(make_route(FIRST))

        assert refusal.retry_after == timedelta(seconds=seconds)

    async def test_who_asked_to_be_left_alone_is_asked_last(self, desk: Desk) -> None:
        desk.upstreams.script(FIRST.endpoint, Line(status=429, headers={"retry-after": "30"}))
        await desk.call(BOTH)

        await desk.call(BOTH)
        desk.seconds.now += 31
        await desk.call(BOTH)

        assert desk.asked() == ["1", "2", "2", "1"]
        assert desk.now(FIRST).circuit == "closed"

    async def test_facts_are_given_if_anything_was_sent(self, desk: Desk) -> None:
        desk.upstreams.script(FIRST.endpoint, then=FAILS)
        desk.upstreams.script(SECOND.endpoint, then=DOWN)

        with pytest.raises(NoAnswerError) as sent:
            await desk.call(BOTH)
        with pytest.raises(NoAnswerError) as unsent:
            await desk.call(make_route(SECOND, deployment_id=DeploymentId(UUID(int=9))))

        assert sent.value.facts is not None
        assert [each.status for each in sent.value.facts.tries] == [503, None]
        assert sent.value.facts.first_byte is None
        assert unsent.value.facts is None


class TestCircuits:
    async def test_a_target_that_fails_is_left_alone_and_comes_back(self, desk: Desk) -> None:
        down = [DOWN] * CircuitRules().failures_in_row
        desk.upstreams.script(FIRST.endpoint, *down)

        for _ in range(20):
            await desk.call(BOTH)
        opened = desk.now(FIRST)
        desk.seconds.now += 7
        await desk.call(BOTH)

        assert opened.circuit == "open"
        assert desk.asked() == ["1", "2"] * 5 + ["2"] * 15 + ["1"]
        assert desk.now(FIRST).circuit == "closed"
        assert desk.reports.opened == 1
        assert desk.failing == [FIRST.id]

    async def test_one_call_tries_while_the_others_go_elsewhere(self, desk: Desk) -> None:
        desk.upstreams.script(FIRST.endpoint, *[DOWN] * 5)
        for _ in range(5):
            await desk.call(BOTH)
        gate = asyncio.Event()
        desk.upstreams.script(FIRST.endpoint, Line(until=gate))
        desk.seconds.now += 7
        desk.upstreams.asked.clear()

        prober = asyncio.create_task(desk.call(BOTH))
        await asyncio.sleep(0)
        others = await asyncio.gather(*(desk.call(BOTH) for _ in range(9)))
        gate.set()
        await prober

        assert len(others) == 9
        assert desk.asked() == ["1"] + ["2"] * 9
        assert desk.now(FIRST).circuit == "closed"

    async def test_a_prober_whose_client_leaves_makes_room_for_the_next(self, desk: Desk) -> None:
        desk.upstreams.script(FIRST.endpoint, *[DOWN] * 5)
        for _ in range(5):
            await desk.call(BOTH)
        desk.upstreams.script(FIRST.endpoint, Line(until=asyncio.Event()))
        desk.seconds.now += 7

        prober = asyncio.create_task(desk.call(BOTH))
        await asyncio.sleep(0)
        during = desk.now(FIRST)
        prober.cancel()
        await asyncio.wait([prober])
        after = desk.now(FIRST)
        desk.upstreams.asked.clear()
        await desk.call(BOTH)

        assert (during.circuit, during.in_flight) == ("half-open", 1)
        assert (after.circuit, after.in_flight) == ("half-open", 0)
        assert desk.asked() == ["1"]
        assert desk.now(FIRST).circuit == "closed"

    async def test_with_all_open_the_refusal_says_when_one_may_be_tried(self, desk: Desk) -> None:
        desk.upstreams.script(FIRST.endpoint, then=FAILS)
        for _ in range(5):
            await desk.refused(make_route(FIRST))

        refusal = await desk.refused(make_route(FIRST))

        assert isinstance(refusal, UpstreamUnreachableError)
        assert refusal.retry_after is not None
        assert 4 <= refusal.retry_after.total_seconds() <= 6

    async def test_answers_that_break_off_open_it_too(self, desk: Desk) -> None:
        desk.upstreams.script(FIRST.endpoint, then=Line(chunks=(b"one",), fault="idle-timeout"))

        for _ in range(5):
            with pytest.raises(UpstreamError):
                await desk.call(make_route(FIRST))

        assert desk.now(FIRST).circuit == "open"
        assert desk.reports.outcomes == ["idle-timeout"] * 5

    async def test_nonsense_that_the_reader_finds_counts_against_the_target(
        self, desk: Desk
    ) -> None:
        for _ in range(5):
            with pytest.raises(BrokenStreamError):
                async with desk.open(make_route(FIRST)):
                    raise BrokenStreamError

        assert desk.now(FIRST).circuit == "open"

    async def test_callers_who_leave_say_nothing_of_the_target(self, desk: Desk) -> None:
        for _ in range(50):
            with pytest.raises(ConnectionError):
                async with desk.open(make_route(FIRST)):
                    raise ConnectionError

        assert desk.now(FIRST).circuit == "closed"
        assert desk.reports.outcomes == ["left"] * 50

    async def test_a_process_too_busy_itself_says_nothing_of_the_target(self, desk: Desk) -> None:
        desk.upstreams.script(FIRST.endpoint, then=Line(chunks=(), fault="busy", was_sent=False))

        for _ in range(50):
            await desk.refused(make_route(FIRST))

        assert desk.now(FIRST).circuit == "closed"


class TestLatency:
    async def test_a_slow_target_loses_calls_and_gets_them_back(self, desk: Desk) -> None:
        slow, fast = make_target(1), make_target(2)
        route = make_route(slow, fast)

        async def share(takes: float) -> float:
            desk.upstreams.script(slow.endpoint, then=Line(takes=takes))
            desk.upstreams.script(fast.endpoint, then=Line(takes=0.1))
            desk.upstreams.asked.clear()
            for _ in range(800):
                await desk.call(route)
            return desk.asked()[400:].count("1") / 400

        alike, loaded, well = await share(0.1), await share(2), await share(0.1)

        assert 0.4 <= alike <= 0.6
        assert loaded <= 0.35
        assert 0.4 <= well <= 0.6

    async def test_a_time_out_counts_as_slow(self, desk: Desk) -> None:
        hung = Line(chunks=(), fault="first-byte-timeout", takes=60)
        desk.upstreams.script(FIRST.endpoint, hung)

        await desk.call(BOTH)

        assert desk.now(FIRST).first_byte_seconds == 60


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
