"""A dispatcher over fakes."""

from datetime import UTC, datetime

import pytest

from maas.inference.application.dispatch import Dispatcher
from maas.inference.application.ports import Attempt, NoAnswerError
from maas.inference.application.target_states import (
    TargetNow,
    TargetStates,
)
from maas.inference.application.tries import TryPorts
from maas.inference.domain.circuit import CircuitRules
from maas.inference.domain.route import Route, RouteTarget
from maas.inference.public import TargetId
from maas.shared.domain.errors import MaasError
from tests.factories.routes import DEPLOYMENT, seeded
from tests.fakes.clock import FakeClock
from tests.fakes.upstreams import FakeReports, FakeUpstreams, Seconds

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


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
