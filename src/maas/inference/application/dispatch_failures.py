"""What a caller is told when no target answered; a supplier's own words are never among it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from maas.inference.application.reports import TryOutcome
from maas.inference.domain.failures import (
    QueueDeadlineError,
    QueueFullError,
    UpstreamFailedError,
    UpstreamRateLimitedError,
    UpstreamRefusedError,
    UpstreamTimeoutError,
    UpstreamUnreachableError,
)
from maas.shared.domain.errors import MaasError

SOON: Final = timedelta(seconds=1)

_TIMEOUTS: Final = frozenset[TryOutcome](
    {"connect-timeout", "first-byte-timeout", "idle-timeout", "total-timeout"}
)
_PHASES: Final[dict[TryOutcome, str]] = {
    "connect-timeout": "could not be connected to",
    "first-byte-timeout": "did not begin its answer",
    "idle-timeout": "stopped in its answer",
    "total-timeout": "did not end its answer",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A try that came to nothing, and when its target wants to be asked again."""

    outcome: TryOutcome
    retry_after: timedelta | None = None


def refusal_after(failures: Sequence[Failure]) -> MaasError:
    """Say the most hopeful of what targets said: to wait, else the last trouble, else a refusal."""
    limited = [each for each in failures if each.outcome == "rate-limited"]
    if limited:
        # A target that names no time may take a call at any.
        waits = [each.retry_after or SOON for each in limited]
        return UpstreamRateLimitedError(
            "The supplier of this model takes no more calls of this platform for the moment: try "
            "again after `Retry-After`.",
            retry_after=whole_seconds(min(waits)),
        )
    troubles = [each for each in failures if each.outcome != "refused"]
    if not troubles:
        return UpstreamRefusedError(
            "The supplier of this model refuses the platform's own access to it; whoever runs the "
            "deployment can mend that."
        )
    last = troubles[-1]
    if last.outcome in _TIMEOUTS:
        return UpstreamTimeoutError(
            f"What answers for this model {_PHASES[last.outcome]} in the time it has for that."
        )
    if last.outcome == "unreachable":
        return UpstreamUnreachableError(
            "What answers for this model cannot be reached at the moment.", retry_after=SOON
        )
    return UpstreamFailedError("What answers for this model failed, or answered no model's answer.")


def left_alone(seconds: float) -> MaasError:
    return UpstreamUnreachableError(
        "What answers for this model has failed again and again, and is left alone for a moment: "
        "try again after `Retry-After`.",
        retry_after=whole_seconds(timedelta(seconds=seconds)),
    )


def queue_full(turn_in: timedelta) -> MaasError:
    return QueueFullError(
        "As many calls of this model wait as may: try again after `Retry-After`.",
        retry_after=whole_seconds(turn_in),
    )


def queue_late(turn_in: timedelta) -> MaasError:
    return QueueDeadlineError(
        "The call was not begun: its turn did not come in the time that calls of this model wait.",
        retry_after=whole_seconds(turn_in),
    )


def whole_seconds(wait: timedelta) -> timedelta:
    """Round up, and to one second at least, as the header is written."""
    return timedelta(seconds=max(1, math.ceil(wait.total_seconds())))
