"""Calls over upstreams by script, and a meter that keeps what it is told."""

# ruff: noqa: ARG002  the fakes take what their ports do

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from uuid import UUID

from typing_extensions import override

from maas.inference.application.answer_cache import KeptAnswer
from maas.inference.application.bills import Bills
from maas.inference.application.calls import Caller, CallService
from maas.inference.application.captures import Capture
from maas.inference.application.ports import AttemptFacts, Charge, Metering, NamedModel
from maas.inference.application.refusals import Refusals
from maas.inference.application.replays import ReplayKey
from maas.inference.domain.answer_key import AnswerKey
from maas.inference.domain.asking import read_ask
from maas.inference.domain.call import Ask, TokenCounts
from maas.inference.domain.charging import figures_of
from maas.inference.domain.openai_wire import OpenAIWire
from maas.inference.domain.route import Route
from maas.inference.domain.wire import Wire
from maas.inference.public import DeploymentId
from maas.model.public import Protocol
from maas.shared.domain.call import Outcome
from maas.shared.domain.ids import TenantId
from maas.user.public import Amounts, Hold, HoldId, Payer, UsageFigures
from tests.fakes.clock import FakeClock
from tests.fakes.dispatch import NOON, Desk
from tests.fakes.edge import make_principal


@dataclass(frozen=True, slots=True, kw_only=True)
class Booked:
    facts: AttemptFacts
    figures: UsageFigures
    is_estimated: bool
    outcome: Outcome
    reason: str | None


class FakeMeter(Metering):
    """What was booked, and how many calls were given back."""

    def __init__(self) -> None:
        self.booked: list[Booked] = []
        self.released = 0

    @override
    async def begin(
        self,
        *,
        payer: Payer,
        route: Route,
        ask: Ask,
        request_id: str,
        replay: ReplayKey | None = None,
    ) -> Charge:
        until = NOON + timedelta(minutes=1)
        hold = Hold(
            id=HoldId(UUID(int=1)),
            payer=payer,
            granted=Amounts(),
            created_at=NOON,
            lease_until=until,
        )
        return Charge(
            hold=hold, payer=payer, route=route, ask=ask, request_id=request_id, most_output=4_096
        )

    @override
    async def progress(self, charge: Charge, seen: TokenCounts) -> None: ...

    @override
    async def settle(
        self,
        charge: Charge,
        *,
        facts: AttemptFacts,
        counts: TokenCounts | None,
        seen: TokenCounts,
        outcome: Outcome,
        reason: str | None = None,
    ) -> None:
        used = seen if counts is None else counts
        is_billed = outcome == "success" or used.total > 0
        figures = figures_of(used, facts.target.price, is_billed=is_billed)
        self.booked.append(
            Booked(
                facts=facts,
                figures=figures,
                is_estimated=counts is None,
                outcome=outcome,
                reason=reason,
            )
        )

    @override
    async def release(self, charge: Charge) -> None:
        self.released += 1

    @override
    async def book_hit(
        self,
        *,
        payer: Payer,
        route: Route,
        ask: Ask,
        request_id: str,
        answer_of: str,
        replay: ReplayKey | None = None,
    ) -> None: ...


@dataclass
class OneRoute:
    """Every name leads to it."""

    route: Route

    async def get(self, tenant_id: TenantId, name: str) -> Route:
        return self.route

    async def get_own(self, tenant_id: TenantId, deployment_id: DeploymentId) -> Route:
        return self.route

    async def list_names(self, tenant_id: TenantId) -> Sequence[NamedModel]:
        return []


class NothingKept:
    async def find(self, key: AnswerKey) -> KeptAnswer | None:
        return None

    def keep(self, key: AnswerKey, answer: KeptAnswer, *, keep_for: timedelta) -> None: ...

    def offer(self, capture: Capture) -> None: ...


@dataclass
class Calling:
    """The use case over fakes; `desk` scripts its upstreams."""

    route: Route
    desk: Desk = field(default_factory=Desk)
    meter: FakeMeter = field(default_factory=FakeMeter)
    is_caller_there: bool = False

    def __post_init__(self) -> None:
        wires: Mapping[Protocol, Wire] = {"openai": OpenAIWire()}
        kept = NothingKept()
        self.bills = Bills(self.meter, wires, most=10)
        self.service = CallService(
            routes=OneRoute(self.route),
            meter=self.meter,
            dispatch=self.desk.dispatcher,
            wires=wires,
            bills=self.bills,
            refusals=Refusals(reports=()),
            kept=kept,
            captures=kept,
            clock=FakeClock(NOON),
        )

    async def call(self, **fields: object) -> bytes:
        """Have something answered, streamed or plain, to its end."""
        said = [{"role": "user", "content": "four words of prose"}]
        ask = read_ask("chat", {"model": "bot", "messages": said, **fields})
        caller = Caller(
            principal=make_principal("inference:call"),
            request_id="r",
            body=b"{}",
            is_there=lambda: self.is_caller_there,
        )
        if not ask.is_stream:
            return (await self.service.answer(ask, caller)).body
        streamed = await self.service.stream(ask, caller)
        try:
            return streamed.first + b"".join([piece async for piece in streamed.rest])
        finally:
            await streamed.rest.aclose()
