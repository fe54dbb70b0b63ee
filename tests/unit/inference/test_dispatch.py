"""A call on its way from target to target."""

import asyncio
from collections import Counter
from datetime import timedelta
from uuid import UUID

import pytest
from structlog.testing import capture_logs

from maas.inference.application.dispatch import MOST_TRIES
from maas.inference.application.ports import NoAnswerError, UpstreamError
from maas.inference.domain.circuit import CircuitRules
from maas.inference.domain.failures import (
    NoTargetError,
    UpstreamFailedError,
    UpstreamRateLimitedError,
    UpstreamRefusedError,
    UpstreamTimeoutError,
    UpstreamUnreachableError,
)
from maas.inference.domain.route import RouteTarget
from maas.inference.domain.routing import RetryBudget
from maas.inference.domain.wire import BrokenStreamError, NotTakenError
from maas.inference.public import DeploymentId, TargetId
from maas.shared.domain.errors import MaasError
from tests.factories.routes import make_route, make_target
from tests.fakes.dispatch import Desk
from tests.fakes.upstreams import DOWN, FAILS, Line

NEVER_OPENS = CircuitRules(failures_in_row=10**9, least_calls=10**9)


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

    async def test_who_runs_it_is_told_once_of_a_target_that_is_given_up(self, desk: Desk) -> None:
        desk.upstreams.script(FIRST.endpoint, then=FAILS)

        with capture_logs() as lines:
            for _ in range(8):
                await desk.refused(make_route(FIRST))

        told = [line for line in lines if line["event"] == "circuit_opened"]
        assert [(line["target_id"], line["status"]) for line in told] == [(str(FIRST.id), 503)]

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
