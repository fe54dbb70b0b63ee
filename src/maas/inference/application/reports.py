"""What is told of calls as they go, for whoever watches the platform."""

from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from maas.inference.public import DeploymentId
from maas.model.public import ProviderKind
from maas.shared.domain.call import Outcome
from maas.user.public import UsageFigures

AnswererKind: TypeAlias = ProviderKind | Literal["local"]
"""Whose API answered, or that it was our own runtime."""

TryOutcome: TypeAlias = Literal[
    "answered",
    "request-refused",
    "rate-limited",
    "refused",
    "failed",
    "unreachable",
    "connect-timeout",
    "first-byte-timeout",
    "idle-timeout",
    "total-timeout",
    "broke-off",
    "left",
]
"""What came of asking a target; `left` is the caller."""

WaitOutcome: TypeAlias = Literal["placed", "full", "late", "left"]


class RoutingReports(Protocol):
    """Called on the way of each call, so an implementation must be fast and never fail.

    None of it names a tenant, a deployment or a target: there may be any number of those.
    """

    def tried(self, kind: AnswererKind, outcome: TryOutcome) -> None:
        """Note the end of a try."""
        ...

    def answer_began(self, kind: AnswererKind, seconds: float) -> None:
        """Note the time from a try's start to the first byte of its answer."""
        ...

    def retried(self, *, is_granted: bool) -> None:
        """Note that another target was to be asked, and whether the retry budget had it."""
        ...

    def circuit_opened(self, kind: AnswererKind) -> None: ...

    def waited(self, outcome: WaitOutcome, seconds: float) -> None:
        """Note the end of a wait for a place."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class CallEnd:
    """A call that was booked; `seconds` are from its hold on."""

    deployment_id: DeploymentId
    outcome: Outcome
    seconds: float
    first_byte_seconds: float | None
    figures: UsageFigures
    is_hit: bool = False


class CallReports(Protocol):
    """Called once for each call, so it must be fast and never fail, as above."""

    def call_ended(self, end: CallEnd) -> None: ...

    def call_refused(self, deployment_id: DeploymentId | None, code: str) -> None:
        """Note a call that was not sent, by the code of its error; where it led, if anywhere."""
        ...
