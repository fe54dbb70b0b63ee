"""Which calls are looked up among those that were answered before."""

from datetime import timedelta

import pytest

from maas.inference.application.calls import MAX_KEPT_BODY_BYTES, Caller
from maas.inference.domain.asking import read_ask
from tests.factories.routes import make_route, make_target
from tests.fakes.calling import Calling
from tests.fakes.edge import make_principal
from tests.fakes.upstreams import Line


@pytest.mark.parametrize(
    ("size", "is_hit"), [(MAX_KEPT_BODY_BYTES, False), (MAX_KEPT_BODY_BYTES + 1, None)]
)
async def test_long_requests_are_not(size: int, is_hit: bool | None) -> None:  # noqa: FBT001  a parameter of the test
    target = make_target()
    calling = Calling(make_route(target, cache_for=timedelta(minutes=1)))
    calling.desk.upstreams.script(target.endpoint, Line(chunks=(b'{"choices": []}',)))
    caller = Caller(principal=make_principal("inference:call"), request_id="r", body=b" " * size)

    answer = await calling.service.answer(read_ask("chat", {"model": "bot"}), caller)
    await calling.bills.close()

    assert answer.is_hit is is_hit
