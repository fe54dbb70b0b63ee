"""Usage on the wire."""

from datetime import date
from typing import Annotated, Any, Self
from uuid import UUID

from pydantic import ConfigDict, Field, PlainSerializer, WithJsonSchema
from pydantic.config import JsonDict

from maas.shared.interface.types import Instant, ReadModel
from maas.user.application.usage import UsageDetails, UsageReport, UsageSums
from maas.user.domain.usage import Group
from maas.user.public import exact

# A sum of amounts may be past what one amount can be.
NanoSum = Annotated[
    int,
    PlainSerializer(exact, when_used="json"),
    WithJsonSchema(
        {
            "anyOf": [{"type": "integer"}, {"type": "string", "pattern": r"^-?\d{1,38}$"}],
            "description": "Nano-units (10^-9) of the currency; a string past 2^53.",
        }
    ),
]

_SUMS: JsonDict = {
    "requests": 4180,
    "estimated_requests": 2,
    "input_tokens": 9_120_400,
    "cached_tokens": 1_204_000,
    "output_tokens": 2_310_077,
    "reasoning_tokens": 0,
    "tokens": 11_430_477,
    "storage_bytes": 0,
    "costs": [{"currency": "USD", "cost_nanos": 41_300_120_500}],
}
_EXAMPLE: JsonDict = {
    "since": "2026-11-01T00:00:00Z",
    "until": "2026-12-01T00:00:00Z",
    "group_by": ["key"],
    "sums": _SUMS,
    "items": [
        {
            "day": None,
            "model": None,
            "api_key_id": "01935d2e-0000-7000-8000-00000000000a",
            "api_key_name": "nightly build",
            "account_id": None,
            "account_kind": None,
            "account_name": None,
            "currency": None,
            **_SUMS,
        }
    ],
    "next_cursor": None,
}


Sum = Annotated[
    int,
    PlainSerializer(exact, when_used="json"),
    WithJsonSchema(
        {"anyOf": [{"type": "integer"}, {"type": "string", "pattern": r"^-?\d{1,38}$"}]}
    ),
]
"""Of counts; a string past 2^53."""


class CostRead(ReadModel):
    currency: str
    cost_nanos: NanoSum


class UsageSumsRead(ReadModel):
    """What calls add up to; a sum past 2^53 is a string."""

    requests: Sum
    estimated_requests: Sum = Field(description="Settlements without the supplier's own count.")
    input_tokens: Sum
    cached_tokens: Sum = Field(description="Those of the input that were cached.")
    output_tokens: Sum
    reasoning_tokens: Sum
    tokens: Sum = Field(description="Input, output and reasoning: what a budget of tokens counts.")
    storage_bytes: Sum
    costs: list[CostRead] = Field(description="One for each currency.")

    @classmethod
    def of(cls, sums: UsageSums) -> Self:
        return cls(**_figures(sums))


class UsageItemRead(UsageSumsRead):
    """What the calls of one group have in common is not null here, and what they add up to.

    Of a group by key, calls of somebody signed in have no `api_key_id`; by currency, free ones have
    no `currency`. The names are null once the key is gone, or the account has
    left the tenant.
    """

    day: date | None
    model: str | None
    api_key_id: UUID | None
    api_key_name: str | None
    account_id: UUID | None
    account_kind: str | None
    account_name: str | None
    currency: str | None

    @classmethod
    def of_group(cls, item: UsageDetails) -> Self:
        key = item.key
        return cls(
            day=key.day,
            model=key.model,
            api_key_id=key.api_key_id,
            api_key_name=item.api_key_name,
            account_id=key.account_id,
            account_kind=key.actor_kind,
            account_name=item.account_name,
            currency=key.currency,
            **_figures(item.sums),
        )


class UsageRead(ReadModel):
    """One page of sums; `total` is there only when it was asked for."""

    model_config = ConfigDict(
        frozen=True,
        json_schema_serialization_defaults_required=True,
        json_schema_extra={"examples": [_EXAMPLE]},
    )

    since: Instant = Field(description="When the span begins that was counted.")
    until: Instant = Field(description="When it ends.")
    group_by: list[Group]
    sums: UsageSumsRead = Field(description="Of all rows, on whatever page.")
    items: list[UsageItemRead]
    next_cursor: str | None = Field(description="Pass it as `cursor`; null on the last page.")
    total: int | None = Field(
        exclude_if=lambda total: total is None,
        description="All items there are; only with `include_total=true`.",
    )

    @classmethod
    def of(cls, report: UsageReport, *, next_cursor: str | None) -> Self:
        return cls(
            since=report.since,
            until=report.until,
            group_by=list(report.group_by),
            sums=UsageSumsRead.of(report.sums),
            items=[UsageItemRead.of_group(item) for item in report.items],
            next_cursor=next_cursor,
            total=report.total,
        )


def _figures(sums: UsageSums) -> dict[str, Any]:
    return {
        "requests": sums.requests,
        "estimated_requests": sums.estimated,
        "input_tokens": sums.input_tokens,
        "cached_tokens": sums.cached_tokens,
        "output_tokens": sums.output_tokens,
        "reasoning_tokens": sums.reasoning_tokens,
        "tokens": sums.tokens,
        "storage_bytes": sums.storage_bytes,
        "costs": [
            CostRead(currency=cost.currency, cost_nanos=cost.cost_nanos) for cost in sums.costs
        ],
    }
