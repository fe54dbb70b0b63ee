"""Calls over the wire, at targets that fail in each of the ways real ones do."""

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from http import HTTPStatus

import pytest

from maas.inference.application.dispatch import Dispatcher
from maas.inference.application.health_watch import HealthWatch
from maas.inference.application.ports import NoAnswerError, UpstreamError, UpstreamFault
from maas.inference.application.target_states import TargetStates
from maas.inference.application.tries import TryPorts
from maas.inference.domain.circuit import CircuitRules
from maas.inference.domain.failures import (
    UpstreamFailedError,
    UpstreamRateLimitedError,
    UpstreamRefusedError,
    UpstreamTimeoutError,
    UpstreamUnreachableError,
)
from maas.inference.domain.route import Route, RouteTarget
from maas.inference.infrastructure.upstreams import OutgoingUpstreams
from maas.shared.domain.errors import MaasError
from maas.shared.infrastructure.clock import SystemClock
from maas.shared.infrastructure.outgoing import LONG_BODY_BYTES
from maas.shared.infrastructure.outgoing_clients import ClientsByReach
from maas.shared.infrastructure.settings import OutgoingSettings
from tests.factories.routes import DEPLOYMENT, make_route, make_target, seeded
from tests.fakes.upstreams import FakeReports
from tests.upstream.scripts import Script
from tests.upstream.server import Upstream, serving

pytestmark = pytest.mark.integration

BRIEF = timedelta(seconds=0.3)
ASK = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hello"}]}
PLAIN = json.dumps(ASK).encode()
STREAMED = json.dumps({**ASK, "stream": True}).encode()


@dataclass
class Wire:
    """A dispatcher over real connections to a scripted upstream."""

    upstream: Upstream
    port: int
    dead_port: int
    dispatcher: Dispatcher
    states: TargetStates
    reports: FakeReports
    watch: HealthWatch

    def target(self, number: int, script: str | None = None, **values: object) -> RouteTarget:
        """Make one; without a script it is well, and `dead` is a port nobody listens on."""
        port = self.dead_port if script == "dead" else self.port
        under = "" if script in {None, "dead"} else f"/as/{script}"
        return make_target(
            number,
            reach="private",
            url=f"http://127.0.0.1:{port}{under}/v1/chat/completions",
            **{"first_byte": BRIEF, "idle": BRIEF, "priority": number, **values},
        )

    async def call(self, route: Route, body: bytes = PLAIN) -> bytes:
        async with self.dispatcher.open(route, "chat", lambda _: body) as attempt:
            return b"".join([chunk async for chunk in attempt.response.chunks()])

    async def refused(self, route: Route) -> MaasError:
        with pytest.raises(NoAnswerError) as refused:
            await self.call(route)
        return refused.value.refusal

    def in_flight(self) -> int:
        return sum(now.in_flight + now.waiting for now in self.states.look(DEPLOYMENT).values())


@pytest.fixture
async def wire() -> AsyncIterator[Wire]:
    upstream = Upstream()
    with socket.socket() as nobody:
        # Bound and not listening: whoever connects is refused, and nobody else gets the port.
        nobody.bind(("127.0.0.1", 0))
        dead_port = nobody.getsockname()[1]
        async with serving(upstream) as port:
            listed = (f"127.0.0.1:{port}", f"127.0.0.1:{dead_port}")
            clients = ClientsByReach.of(OutgoingSettings(allowed_private_targets=listed))
            upstreams = OutgoingUpstreams(clients)
            watch = HealthWatch(
                upstreams, every_seconds=0.05, look_seconds=0.2, seconds=time.monotonic
            )
            states = TargetStates(
                processes=1, rules=CircuitRules(wait_seconds=0.2), random=seeded()
            )
            reports = FakeReports()
            ports = TryPorts(
                reports=reports,
                clock=SystemClock(),
                seconds=time.monotonic,
                on_failing=watch.follow,
            )
            dispatcher = Dispatcher(upstreams=upstreams, states=states, ports=ports)
            yield Wire(upstream, port, dead_port, dispatcher, states, reports, watch)
            await watch.close()
            await upstreams.close()


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(9):
        while not is_so():  # noqa: ASYNC110  the other end of a connection tells nobody
            await asyncio.sleep(0.001)


FAULTS: list[tuple[str, type[MaasError], UpstreamFault | None]] = [
    ("dead", UpstreamUnreachableError, "connect"),
    ("hangs-up", UpstreamFailedError, "protocol"),
    ("resets", UpstreamFailedError, "protocol"),
    ("speaks-no-http", UpstreamFailedError, "protocol"),
    ("never-answers", UpstreamTimeoutError, "first-byte-timeout"),
    ("says-401", UpstreamRefusedError, None),
    ("says-402", UpstreamRefusedError, None),
    ("says-404", UpstreamRefusedError, None),
    ("redirects", UpstreamRefusedError, None),
    ("redirects-inwards", UpstreamRefusedError, None),
    ("says-429", UpstreamRateLimitedError, None),
    ("says-503", UpstreamFailedError, None),
    ("says-529", UpstreamFailedError, None),
    ("says-html", UpstreamFailedError, "protocol"),
    ("says-nothing", UpstreamFailedError, "protocol"),
]


@pytest.mark.parametrize(("fault", "refusal", "told"), FAULTS, ids=[each[0] for each in FAULTS])
async def test_a_bad_target_alone_is_refused_and_beside_a_good_one_not_noticed(
    wire: Wire, fault: str, refusal: type[MaasError], told: UpstreamFault | None
) -> None:
    bad, good = wire.target(1, fault), wire.target(2)

    async with wire.dispatcher.open(make_route(bad, good), "chat", lambda _: PLAIN) as attempt:
        body = b"".join([chunk async for chunk in attempt.response.chunks()])
    alone = await wire.refused(make_route(bad))

    assert type(alone) is refusal
    assert json.loads(body)["choices"]
    assert [each.target_id for each in attempt.facts.tries] == [bad.id, good.id]
    assert attempt.facts.tries[0].fault == told
    assert wire.in_flight() == 0


async def test_the_supplier_says_when_to_come_again(wire: Wire) -> None:
    refusal = await wire.refused(make_route(wire.target(1, "says-429")))

    assert refusal.retry_after == timedelta(seconds=7)


@pytest.mark.parametrize(
    ("script", "limits", "fault"),
    [
        ("stalls", {}, "idle-timeout"),
        ("drips", {"total": BRIEF}, "total-timeout"),
        ("breaks-off", {}, "protocol"),
        ("breaks-off-by-reset", {}, "protocol"),
    ],
)
async def test_an_answer_that_ends_midway_says_how_and_is_not_asked_for_again(
    wire: Wire, script: str, limits: dict[str, timedelta], fault: UpstreamFault
) -> None:
    route, came = make_route(wire.target(1, script, **limits), wire.target(2)), list[bytes]()

    async def read() -> None:
        async with wire.dispatcher.open(route, "chat", lambda _: STREAMED) as attempt:
            async for chunk in attempt.response.chunks():
                came.append(chunk)

    with pytest.raises(UpstreamError) as broken:
        await read()

    assert came
    assert broken.value.fault == fault
    assert len(wire.upstream.desk.ledger.calls) == 1
    assert wire.in_flight() == 0


async def test_the_time_of_all_together_is_told_apart_from_that_of_the_head(wire: Wire) -> None:
    stuck = wire.target(1, "never-answers", total=BRIEF, first_byte=timedelta(seconds=9))

    with pytest.raises(NoAnswerError) as refused:
        await wire.call(make_route(stuck))

    assert refused.value.facts is not None
    assert refused.value.facts.tries[0].fault == "total-timeout"


async def test_a_host_that_takes_no_connection_is_told_apart_from_one_that_does_not_answer(
    wire: Wire,
) -> None:
    sent = list[int]()
    with socket.socket() as deaf, contextlib.ExitStack() as callers:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        port = deaf.getsockname()[1]
        # What nobody accepts fills the kernel's queue; from then on a connection never comes about.
        for _ in range(4):
            caller = callers.enter_context(socket.socket())
            caller.settimeout(0)
            caller.connect_ex(("127.0.0.1", port))
        listed = OutgoingSettings(allowed_private_targets=(f"127.0.0.1:{port}",))
        upstreams = OutgoingUpstreams(ClientsByReach.of(listed))
        target = wire.target(1, connect=BRIEF)
        endpoint = replace(target.endpoint, urls={"chat": f"http://127.0.0.1:{port}/v1"})

        with pytest.raises(UpstreamError) as stuck:
            async with upstreams.open(
                endpoint, "chat", PLAIN, target.limits, on_sent=lambda: sent.append(port)
            ):
                pass
        await upstreams.close()

    assert stuck.value.fault == "connect-timeout"
    assert not stuck.value.was_sent
    assert sent == []


@pytest.mark.parametrize("body", [PLAIN, b" " * LONG_BODY_BYTES + PLAIN])
async def test_it_is_told_when_a_call_leaves_whatever_its_length(wire: Wire, body: bytes) -> None:
    target, sent = wire.target(1), list[bool]()

    async with wire.dispatcher.upstreams.open(
        target.endpoint, "chat", body, target.limits, on_sent=lambda: sent.append(True)
    ) as response:
        assert response.status == HTTPStatus.OK

    assert sent == [True]
    assert len(wire.upstream.desk.ledger.calls) == 1


async def test_a_caller_that_leaves_ends_the_connection_and_frees_the_place(wire: Wire) -> None:
    target = wire.target(1, "never-answers", first_byte=timedelta(seconds=30), max_concurrent=1)
    call = asyncio.create_task(wire.call(make_route(target)))
    await until(lambda: bool(wire.upstream.desk.ledger.calls))

    call.cancel()
    await asyncio.wait([call])

    assert wire.in_flight() == 0
    assert wire.reports.outcomes == ["left"]
    await until(lambda: not wire.upstream.connections)


async def test_a_target_that_comes_back_is_called_again_and_no_call_was_spent_meanwhile(
    wire: Wire,
) -> None:
    wire.upstream.desk.scripts.put("flaky", Script(status=503))
    flaky, good = wire.target(1, "flaky"), wire.target(2)
    route = make_route(flaky, good)
    for _ in range(CircuitRules().failures_in_row):
        await wire.call(route)
    spent = _posts(wire)

    async with asyncio.timeout(5):
        while _looks(wire) < 5:
            await wire.call(route)
            await asyncio.sleep(0.005)
    during = _posts(wire) - spent
    wire.upstream.desk.scripts.put("flaky", Script())
    async with asyncio.timeout(9):
        while wire.states.look(DEPLOYMENT)[flaky.id].circuit != "closed":
            await wire.call(route)
            await asyncio.sleep(0.005)

    assert during == 0
    assert wire.reports.opened == 1
    looks = [call for call in wire.upstream.desk.ledger.calls if call.method == "GET"]
    assert {call.key_style for call in looks} == {"none"}


def _posts(wire: Wire) -> int:
    calls = wire.upstream.desk.ledger.calls
    return sum(call.method == "POST" and call.under == "flaky" for call in calls)


def _looks(wire: Wire) -> int:
    return sum(call.method == "GET" for call in wire.upstream.desk.ledger.calls)
