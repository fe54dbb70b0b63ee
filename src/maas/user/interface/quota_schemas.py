"""Quotas on the wire."""

from typing import Annotated

from pydantic import ConfigDict, Field, StringConstraints, WithJsonSchema
from pydantic.config import JsonDict

from maas.shared.interface.types import EXACT_IN_JSON, Instant, Nano, ReadModel, StrictModel
from maas.user.application.quota_settings import QuotaWish
from maas.user.public import Meter, Period, Scope

MAX_QUOTAS = 8
"""More than there are of meters and periods; what is named twice is refused by name."""

Amount = Annotated[
    Nano,
    Field(ge=0),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 0, "maximum": EXACT_IN_JSON},
                {"type": "string", "pattern": r"^\d{1,19}$"},
            ]
        }
    ),
]
"""Requests, tokens, bytes, or nano-units (10^-9) of a currency; a string past 2^53."""

Currency = Annotated[str, StringConstraints(strict=True, pattern=r"^[A-Z]{3}$")]

_UNITS = "Requests, tokens, bytes, or nano-units (10^-9) of the currency; a string past 2^53."
_CURRENCY = "Of a cost, three capital letters (ISO 4217); null for other meters."
_PERIOD = "`month` begins anew with each UTC month, `total` never does; storage has a total alone."
_QUOTA: JsonDict = {
    "scope": "user",
    "meter": "cost",
    "period": "month",
    "currency": "EUR",
    "limit": 50_000_000_000,
    "used": 12_500_000_000,
    "held": 40_000_000,
    "remaining": 37_460_000_000,
    "resets_at": "2026-12-01T00:00:00Z",
    "is_closed": False,
}


class QuotaWrite(StrictModel):
    meter: Meter
    period: Period = Field(description=_PERIOD)
    currency: Currency | None = Field(default=None, description=_CURRENCY)
    limit: Amount = Field(description=f"{_UNITS} 0 allows nothing.")


class QuotasUpdate(StrictModel):
    """All quotas there shall be: those that are not named go, with what they counted."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "quotas": [
                        {"meter": "requests", "period": "month", "limit": 10_000},
                        {
                            "meter": "cost",
                            "period": "month",
                            "currency": "EUR",
                            "limit": 50_000_000_000,
                        },
                    ]
                }
            ]
        }
    )

    quotas: list[QuotaWrite] = Field(max_length=MAX_QUOTAS)


class QuotaRead(ReadModel):
    model_config = ConfigDict(
        from_attributes=True, frozen=True, json_schema_extra={"examples": [_QUOTA]}
    )

    scope: Scope
    meter: Meter
    period: Period
    currency: str | None = Field(description=_CURRENCY)
    limit: Amount = Field(description=_UNITS)
    used: Amount = Field(description="What was used, and is paid for.")
    held: Amount = Field(description="What is set aside for calls under way.")
    remaining: Amount = Field(description="What a call may still take.")
    resets_at: Instant | None = Field(description="When a month's quota begins anew.")
    is_closed: bool = Field(
        description="Whether nothing is granted any more, since more was billed than was held."
    )


class QuotaSheetRead(ReadModel):
    """Tenant, account and key in this order; somebody without any quota is bound by none."""

    model_config = ConfigDict(
        from_attributes=True, frozen=True, json_schema_extra={"examples": [{"quotas": [_QUOTA]}]}
    )

    quotas: list[QuotaRead]


def wishes_of(body: QuotasUpdate) -> list[QuotaWish]:
    return [
        QuotaWish(
            meter=quota.meter, period=quota.period, currency=quota.currency, limit=quota.limit
        )
        for quota in body.quotas
    ]
