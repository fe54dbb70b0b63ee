"""A dispatcher over fakes."""

from dataclasses import dataclass
from datetime import UTC, datetime

import pytest

from maas.inference.application.dispatch import Dispatcher
from maas.inference.application.ports import Attempt, NoAnswerError, Sending, Unanswered
from maas.inference.application.target_states import (
    TargetNow,
    TargetStates,
)
from maas.inference.application.tries import TryPorts
from maas.inference.domain.circuit import CircuitRules
from maas.inference.domain.route import Route, RouteTarget
from maas.inference.public import TargetId
from maas.shared.domain.errors import MaasError
from maas.shared.domain.ids import TenantId
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

    def open(self, route: Route, sending: Sending | None = None) -> "Opening":
        return Opening(self, route, sending)

    async def refused(self, route: Route) -> MaasError:
        with pytest.raises(NoAnswerError) as refused:
            await self.call(route)
        return refused.value.refusal

    def now(self, target: RouteTarget) -> TargetNow:
        return self.states.look(DEPLOYMENT)[target.id]

    def asked(self) -> list[str]:
        return [url.partition("//supplier-")[2][0] for url in self.upstreams.asked]


@dataclass(frozen=True, slots=True)
class FakeSending:
    """A call of a tenant, which is told nothing of it."""

    tenant_id: TenantId

    def note_sending(self, *, is_under_way: bool) -> None: ...

    def note_end(self, unanswered: Unanswered | None) -> None: ...


class Opening:
    def __init__(self, desk: Desk, route: Route, sending: Sending | None) -> None:
        self._opening = desk.dispatcher.open(route, "chat", lambda _: b"{}", sending)

    async def __aenter__(self) -> Attempt:
        return await self._opening.__aenter__()

    async def __aexit__(self, *exc: object) -> bool | None:
        return await self._opening.__aexit__(*exc)  # type: ignore[arg-type]  # passed through
