"""What is told of how a deployment is doing."""

from typing import Any, Final, Literal, Self
from uuid import UUID

from pydantic import ConfigDict, Field

from maas.inference.application.deployment_metrics import DeploymentMetrics, RecentCalls
from maas.inference.application.target_states import TargetNow
from maas.inference.domain.figures import Figures
from maas.inference.domain.route import Unfit
from maas.inference.public import TargetId
from maas.shared.interface.types import Instant, ReadModel
from maas.user.public import exact

_EXAMPLE: Final[dict[str, Any]] = {
    "recent": {
        "since": "2026-11-22T11:00:00Z",
        "calls": 1204,
        "failed_calls": 3,
        "refused_calls": 2,
        "cached_answers": 20,
        "input_tokens": 240_100,
        "cached_tokens": 1_024,
        "output_tokens": 81_020,
        "reasoning_tokens": 0,
        "costs": [{"currency": "USD", "cost_nanos": 84_625_000}],
        "duration": {"p50_ms": 812, "p95_ms": 2_905},
        "first_byte": {"p50_ms": 120, "p95_ms": 340},
    },
    "targets": [
        {
            "target_id": "019aa9a4-6a4c-7c3e-8a3e-0242ac120002",
            "unfit": None,
            "circuit": "closed",
            "retry_in_ms": 0,
            "in_flight": 4,
            "waiting": 0,
            "first_byte_ms": 131,
        }
    ],
}


class PercentilesRead(ReadModel):
    """Each is right to a twentieth; null without a call."""

    p50_ms: int | None
    p95_ms: int | None

    @classmethod
    def of(cls, figures: Figures, subject: str) -> Self:
        median, most = (figures.percentile(subject, share) for share in (0.5, 0.95))
        return cls(p50_ms=_ms(median), p95_ms=_ms(most))


class RecentCostRead(ReadModel):
    currency: str
    cost_nanos: int | str = Field(description="Past 2^53 it is a string.")


class RecentCallsRead(ReadModel):
    """Of all processes together, and a few seconds late."""

    since: Instant = Field(description="An hour ago, or up to five minutes more.")
    calls: int = Field(description="Those that ended and were booked.")
    failed_calls: int = Field(description="Those of them that were not answered whole.")
    refused_calls: int = Field(
        description=(
            "Beside those, calls that were not sent: for a quota, a limit or a full queue, or for "
            "want of a target that is well."
        )
    )
    cached_answers: int = Field(description="Those that were answered by a kept answer.")
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    reasoning_tokens: int
    costs: list[RecentCostRead] = Field(description="One for each currency.")
    duration: PercentilesRead = Field(description="To the last byte; kept answers are not in it.")
    first_byte: PercentilesRead = Field(
        description="From the first try on; of a plain answer that is when it is whole."
    )

    @classmethod
    def of_recent(cls, recent: RecentCalls) -> Self:
        figures = recent.figures
        return cls(
            since=recent.since,
            calls=figures["calls"],
            failed_calls=figures["failure"],
            refused_calls=figures["refused"],
            cached_answers=figures["hits"],
            input_tokens=figures["input"],
            cached_tokens=figures["cached"],
            output_tokens=figures["output"],
            reasoning_tokens=figures["reasoning"],
            costs=[
                RecentCostRead(currency=currency, cost_nanos=exact(nanos))
                for currency, nanos in figures.cost().items()
            ],
            duration=PercentilesRead.of(figures, "call"),
            first_byte=PercentilesRead.of(figures, "first"),
        )


class TargetNowRead(ReadModel):
    target_id: UUID
    unfit: Unfit | None = Field(
        description=(
            "Why no call goes there. `not-found` is deleted, or no longer granted to the tenant; "
            "`no-price-in-currency` has none in the currency that the others have theirs in."
        )
    )
    circuit: Literal["closed", "open", "half-open"] = Field(
        description="Open: it failed and is left alone; half-open: one call may try it."
    )
    retry_in_ms: int = Field(
        description="Until a call may try it, or until it wants to be asked again."
    )
    in_flight: int = Field(description="Calls it has now.")
    waiting: int = Field(description="Calls that wait for a place there.")
    first_byte_ms: int | None = Field(
        description="A moving average, by which the faster of two is chosen; null if it is old."
    )

    @classmethod
    def of(cls, target_id: TargetId, now: TargetNow, unfit: Unfit | None) -> Self:
        wait = max(now.seconds_until_due, now.rests_seconds)
        return cls(
            target_id=target_id,
            unfit=unfit,
            circuit=now.circuit,
            retry_in_ms=round(wait * 1000),
            in_flight=now.in_flight,
            waiting=now.waiting,
            first_byte_ms=_ms(now.first_byte_seconds),
        )


class DeploymentMetricsRead(ReadModel):
    model_config = ConfigDict(frozen=True, json_schema_extra={"examples": [_EXAMPLE]})

    recent: RecentCallsRead | None = Field(description="Null while Redis, which counts, is away.")
    targets: list[TargetNowRead] = Field(
        description=(
            "All of them, as the process sees them that answers this: each of several has its own "
            "view of those it has called in the last minutes."
        )
    )

    @classmethod
    def of(cls, metrics: DeploymentMetrics) -> Self:
        recent = metrics.recent
        return cls(
            recent=None if recent is None else RecentCallsRead.of_recent(recent),
            targets=[
                TargetNowRead.of(target_id, now, metrics.unfit.get(target_id))
                for target_id, now in metrics.targets.items()
            ],
        )


def _ms(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1000)
