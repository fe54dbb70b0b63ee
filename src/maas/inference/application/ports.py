"""What a call needs from the outside, and from the parts that route, meter and keep it."""

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, Protocol, TypeAlias

from maas.inference.application.replays import ReplayKey
from maas.inference.domain.call import Ask, TokenCounts
from maas.inference.domain.route import Endpoint, Route, RouteTarget, TargetLimits
from maas.inference.public import CallKind, DeploymentId, TargetId
from maas.shared.domain.call import Outcome
from maas.shared.domain.errors import MaasError
from maas.shared.domain.ids import TenantId
from maas.user.public import Hold, Payer

UpstreamFault: TypeAlias = Literal[
    "refused-target",
    "busy",
    "dns",
    "connect",
    "connect-timeout",
    "tls",
    "first-byte-timeout",
    "idle-timeout",
    "total-timeout",
    "protocol",
    "too-large",
]
"""What kept an upstream from answering: `busy` is this process itself, before anything was sent."""


class UpstreamError(Exception):
    """There is no answer, or no more of it. `was_sent` unless nothing can have reached it."""

    def __init__(self, fault: UpstreamFault, *, was_sent: bool) -> None:
        super().__init__(fault)
        self.fault = fault
        self.was_sent = was_sent


class UpstreamResponse(Protocol):
    """An answer whose head is there."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Mapping[str, str]:
        """By any case of the name."""
        ...

    def chunks(self) -> AsyncGenerator[bytes, None]:
        """Read on, piece by piece as it comes; once.

        Raises:
            UpstreamError: it is too slow, too large, or breaks off.
        """
        ...


class Upstreams(Protocol):
    def open(
        self,
        endpoint: Endpoint,
        kind: CallKind,
        body: bytes,
        limits: TargetLimits,
        *,
        on_sent: Callable[[], None],
    ) -> AbstractAsyncContextManager[UpstreamResponse]:
        """Send a call, and give the answer as soon as its head is there, whatever its status.

        `on_sent` is called when the first of it leaves.

        The connection is closed on leaving, unless the answer was read to its end.

        Raises:
            UpstreamError: there is none.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedModel:
    """A deployment as its callers know it; `owner` is its tenant's id."""

    name: str
    created_at: datetime
    owner: str


class Routes(Protocol):
    async def get(self, tenant_id: TenantId, name: str) -> Route:
        """Tell where a name leads for this tenant: its own, a granted or a public deployment.

        Raises:
            UnknownModelError: to none, or to one that is disabled.
        """
        ...

    async def get_own(self, tenant_id: TenantId, deployment_id: DeploymentId) -> Route:
        """Tell where a tenant's own deployment leads, also while it is disabled.

        Raises:
            UnknownModelError: there is none.
        """
        ...

    async def list_names(self, tenant_id: TenantId) -> Sequence[NamedModel]:
        """List what `get` would find, by name."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Try:
    """One target that was asked, and what came of it: a status, or a fault."""

    target_id: TargetId
    status: int | None
    fault: UpstreamFault | None
    took: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptFacts:
    """How a call was routed: the last of `tries` was sent to `target`.

    `decision` says in a few words why that one. `first_byte` is from the first try on.
    """

    target: RouteTarget
    tries: Sequence[Try]
    decision: str
    status: int | None
    first_byte: timedelta | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """An answer on its way; its status is of success, or one that refuses the request itself.

    Its first piece is there already; `response.chunks()` yields it like the others.
    """

    facts: AttemptFacts
    response: UpstreamResponse


class NoAnswerError(Exception):
    """No target answered. `refusal` is for the caller; without `facts` nothing was ever sent."""

    def __init__(self, refusal: MaasError, facts: AttemptFacts | None = None) -> None:
        super().__init__(refusal.code)
        self.refusal = refusal
        self.facts = facts


@dataclass(frozen=True, slots=True, kw_only=True)
class Unanswered:
    """How far a call came that was ended before its answer was there.

    Whoever was asked last may be at it, and have it paid, unless it `has_failed` by itself.
    """

    facts: AttemptFacts
    has_failed: bool


class NoteSending(Protocol):
    def __call__(self, *, is_under_way: bool) -> None: ...


class Sending(Protocol):
    """Is told how a call gets on until its answer is there."""

    @property
    def tenant_id(self) -> TenantId:
        """Whose call it is: tenants wait in lines of their own."""
        ...

    def note_sending(self, *, is_under_way: bool) -> None:
        """Note that it leaves for a target, or that this one has failed and nobody is at it."""
        ...

    def note_end(self, unanswered: Unanswered | None) -> None:
        """Note how far it had come when it ended; `None` if nothing was ever sent."""
        ...


class Dispatch(Protocol):
    def open(
        self,
        route: Route,
        kind: CallKind,
        spell: Callable[[RouteTarget], bytes],
        sending: Sending | None = None,
    ) -> AbstractAsyncContextManager[Attempt]:
        """Ask the targets of a route in turn until one answers, waiting for a place if need be.

        A status of 2xx, 400, 413 or 422 is an answer; every other one is tried elsewhere. `spell`
        may raise `NotTakenError`, which rules that target out.

        Raises:
            NoAnswerError: none did.
            NotTakenError: it rules all of them out.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """What a call has set aside. `most_output` is the tokens that each of its answers may have."""

    hold: Hold
    payer: Payer
    route: Route
    ask: Ask
    request_id: str
    most_output: int | None


class Metering(Protocol):
    async def begin(
        self,
        *,
        payer: Payer,
        route: Route,
        ask: Ask,
        request_id: str,
        replay: ReplayKey | None = None,
    ) -> Charge:
        """Set aside what the call may cost.

        The call's event is written where it is settled, whatever scope is open. A key that it is
        made under is free again if it ends without costing anything.

        Raises:
            AlreadyProcessedError, IdempotencyKeyReusedError: its key was taken before.
            ReplaysUnavailableError: nobody could tell whether it was.
            CallTooLargeError: no ledger could book it.
            QuotaExceededError: a quota does not cover even the shortest answer.
            BudgetExceededError: a budget does not.
            BudgetCurrencyError: the call has no price in the currency of a budget.
            QuotaUnavailableError: nobody could tell.
        """
        ...

    async def progress(self, charge: Charge, seen: TokenCounts) -> None:
        """Note what came so far; the lease is renewed by itself until the call is ended."""
        ...

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
        """Book a call that was sent, with its event: the upstream's own counts, else what was seen.

        It returns after two seconds at the latest, and goes on in the background if it has to.
        """
        ...

    async def release(self, charge: Charge) -> None:
        """Give everything back: nothing was sent."""
        ...

    async def book_hit(
        self,
        *,
        payer: Payer,
        route: Route,
        ask: Ask,
        request_id: str,
        answer_of: str,
        replay: ReplayKey | None = None,
    ) -> None:
        """Book a call whose answer was kept: a request, no tokens; `answer_of` is who paid for it.

        Raises:
            MaasError: as `begin`.
        """
        ...
