"""Calls that an upstream refuses: what is passed on of its words, and when."""

import asyncio

import pytest

from maas.inference.application import reading
from maas.inference.application.reading import RefusedRequestError
from tests.factories.routes import make_route, make_target
from tests.fakes.calling import Calling
from tests.fakes.upstreams import Line


@pytest.mark.parametrize(
    ("told", "message"),
    [
        (b'{"error": {"message": "No.', "It does not say what is wrong with it."),
        (b'{"error": {"message": "No."}}', "No."),
    ],
)
async def test_words_that_never_end_are_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, told: bytes, message: str
) -> None:
    monkeypatch.setattr(reading, "REFUSAL_SECONDS", 0.01)
    target = make_target()
    calling = Calling(make_route(target))
    calling.desk.upstreams.script(
        target.endpoint, Line(status=400, chunks=(told,), stays_open=asyncio.Event())
    )

    with pytest.raises(RefusedRequestError) as refusal:
        async with asyncio.timeout(5):
            await calling.call()
    await calling.bills.close()

    assert refusal.value.refusal.message == message
    assert calling.desk.reports.outcomes == ["request-refused"]
