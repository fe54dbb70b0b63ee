"""What is owed for a call, wherever it ends."""

import asyncio
import json
from collections.abc import AsyncIterator
from decimal import Decimal

import pytest

from maas.inference.application.bills import CLIENT_LEFT
from maas.inference.domain.failures import BrokenAnswerError
from maas.inference.domain.route import TargetPrice
from maas.shared.domain.pricing import Price, Prices
from tests.factories.routes import make_route, make_target
from tests.fakes.calling import Booked, Calling
from tests.fakes.upstreams import FAILS, Line

PRICE = TargetPrice(
    id=None,
    prices=Prices(
        currency="EUR",
        input=Price(Decimal(100)),
        output=Price(Decimal(100)),
        request=Decimal("0.01"),
    ),
)
FIRST = make_target(1, price=PRICE)
SECOND = make_target(2, priority=1, price=PRICE, max_concurrent=1)


@pytest.fixture
async def calling() -> AsyncIterator[Calling]:
    calling = Calling(make_route(FIRST, SECOND))
    yield calling
    await calling.bills.close()


async def left(calling: Calling, *, is_stream: bool = True) -> Booked | None:
    """Leave a call when it has come as far as it can; give what was booked of it."""
    call = asyncio.create_task(calling.call(stream=is_stream))
    for _ in range(50):
        await asyncio.sleep(0)
    call.cancel()
    await asyncio.wait([call])
    for _ in range(10):
        await asyncio.sleep(0)
    assert len(calling.meter.booked) + calling.meter.released == 1
    return calling.meter.booked[0] if calling.meter.booked else None


class TestLeaving:
    async def test_before_a_connection_there_is_costs_nothing(self, calling: Calling) -> None:
        never = Line(until=asyncio.Event(), was_sent=False)
        calling.desk.upstreams.script(FIRST.endpoint, never)

        assert await left(calling) is None

    async def test_while_somebody_is_at_it_costs_the_prompt(self, calling: Calling) -> None:
        calling.desk.upstreams.script(FIRST.endpoint, Line(until=asyncio.Event()))

        booked = await left(calling)

        assert booked is not None
        assert (booked.figures.input_tokens, booked.figures.output_tokens) == (9, 0)
        assert (booked.reason, booked.facts.decision) == (CLIENT_LEFT, "only one, priority 0")
        assert [(each.target_id, each.status) for each in booked.facts.tries] == [(FIRST.id, None)]

    @pytest.mark.parametrize("is_stream", [True, False])
    async def test_who_is_there_did_not_leave_but_was_cut_off(
        self, calling: Calling, *, is_stream: bool
    ) -> None:
        calling.is_caller_there = True
        calling.desk.upstreams.script(FIRST.endpoint, Line(until=asyncio.Event()))

        booked = await left(calling, is_stream=is_stream)

        assert booked is not None
        assert (booked.outcome, booked.reason) == ("failure", "server-stopped")

    @pytest.mark.parametrize("is_stream", [True, False])
    async def test_in_the_next_ones_queue_after_a_failure_costs_nothing(
        self, calling: Calling, *, is_stream: bool
    ) -> None:
        gate = asyncio.Event()
        calling.desk.upstreams.script(FIRST.endpoint, FAILS)
        calling.desk.upstreams.script(SECOND.endpoint, Line(until=gate))
        busy = asyncio.create_task(calling.desk.call(make_route(SECOND)))
        await asyncio.sleep(0)

        booked = await left(calling, is_stream=is_stream)
        gate.set()
        await busy

        assert booked is not None
        assert (booked.figures.tokens, booked.figures.cost_nanos) == (0, 0)
        assert [each.status for each in booked.facts.tries] == [503]
        assert booked.facts.target is FIRST
        assert booked.facts.status == 503

    async def test_the_next_one_at_work_is_told_of_with_those_before(
        self, calling: Calling
    ) -> None:
        calling.desk.upstreams.script(FIRST.endpoint, FAILS)
        calling.desk.upstreams.script(SECOND.endpoint, Line(until=asyncio.Event()))

        booked = await left(calling)

        assert booked is not None
        assert booked.facts.target is SECOND
        assert [each.status for each in booked.facts.tries] == [503, None]
        assert booked.figures.input_tokens == 9


def piece(text: str, **fields: object) -> bytes:
    """Write an event of a stream."""
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None, **fields}
    return b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n"


class TestBrokenAnswers:
    @pytest.mark.parametrize(
        ("is_stream", "line"),
        [
            (False, Line(chunks=(b"{half",))),
            (False, Line(chunks=(b'{"choices":',), fault="protocol")),
            (True, Line(chunks=(b"<!doctype html>",))),
            (True, Line(chunks=(piece(""),))),
        ],
    )
    async def test_of_which_nothing_came_cost_nothing(
        self, calling: Calling, line: Line, *, is_stream: bool
    ) -> None:
        calling.desk.upstreams.script(FIRST.endpoint, line)

        with pytest.raises(BrokenAnswerError):
            await calling.call(stream=is_stream)

        (booked,) = calling.meter.booked
        assert (booked.figures.tokens, booked.figures.cost_nanos) == (0, 0)
        assert (booked.outcome, booked.reason) == ("failure", BrokenAnswerError.code)

    async def test_of_which_something_came_are_paid_that_far(self, calling: Calling) -> None:
        calling.desk.upstreams.script(FIRST.endpoint, Line(chunks=(piece("a"), piece("b"))))

        with pytest.raises(BrokenAnswerError):
            await calling.call(stream=True)

        (booked,) = calling.meter.booked
        assert (booked.figures.input_tokens, booked.figures.output_tokens) == (9, 2)


async def test_a_stream_is_over_at_its_terminator(calling: Calling) -> None:
    whole = piece("a") + piece("", finish_reason="stop") + b"data: [DONE]\n\n"
    calling.desk.upstreams.script(FIRST.endpoint, Line(chunks=(whole,), stays_open=asyncio.Event()))

    async with asyncio.timeout(5):
        assert await calling.call(stream=True) == whole

    (booked,) = calling.meter.booked
    assert booked.outcome == "success"
    assert calling.desk.reports.outcomes == ["answered"]
    assert calling.desk.upstreams.open_now == 0
