"""What the routes of deployments take and give of targets."""

from collections.abc import Mapping
from datetime import timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import Field, StringConstraints, model_validator
from pydantic.config import JsonDict
from pydantic_core import PydanticCustomError

from maas.inference.application.deployments import NewTarget
from maas.inference.domain.deployment import MAX_TARGETS, Target, TargetStatus
from maas.inference.domain.route import TargetLimits
from maas.model.public import ModelId, ProviderModelId, VersionReference
from maas.shared.domain.pricing import Price, Prices
from maas.shared.interface.types import ReadModel, StrictModel

MAX_PRICE_CHARS = 22

CurrencyField = Annotated[
    str, StringConstraints(strict=True, pattern="^[A-Z]{3}$"), Field(examples=["USD"])
]
AmountField = Annotated[
    str,
    StringConstraints(
        strict=True,
        min_length=1,
        max_length=MAX_PRICE_CHARS,
        pattern=r"^[0-9]{1,9}(\.[0-9]{1,12})?$",
    ),
    Field(examples=["2.5"]),
]
VersionField = Annotated[
    str, StringConstraints(strict=True, pattern="^[A-Za-z0-9._+-]{1,64}$"), Field(examples=["1.0"])
]
PriorityField = Annotated[int, Field(strict=True, ge=0, le=100)]
WeightField = Annotated[int, Field(strict=True, ge=1, le=1_000)]
WaitField = Annotated[int, Field(strict=True, ge=1, le=3_600)]

PRIORITY = "Lower ones are asked first."
WEIGHT = "Among those of one priority, how much of the calls it gets."
CONCURRENT = "How many calls it is sent at a time, by all processes together; null: any number."
QUEUED = "How many calls wait for their turn."
MODEL = "A model of the registry that the tenant sees, run by the local runtime."


class TargetPrice(StrictModel):
    """What a local model costs; a supplier's model has its own prices."""

    currency: CurrencyField
    input: AmountField = Field(description="For a million tokens of the prompt.")
    output: AmountField = Field(description="For a million tokens of the answer.")
    cached: AmountField | None = Field(
        default=None, description="For a million tokens that were cached; null: as input."
    )
    reasoning: AmountField | None = Field(
        default=None, description="For a million tokens of reasoning; null: as output."
    )
    request: AmountField | None = Field(default=None, description="For each call; null: nothing.")

    def to_domain(self) -> Prices:
        return Prices(
            currency=self.currency,
            input=Price(Decimal(self.input)),
            output=Price(Decimal(self.output)),
            cached=None if self.cached is None else Price(Decimal(self.cached)),
            reasoning=None if self.reasoning is None else Price(Decimal(self.reasoning)),
            request=None if self.request is None else Decimal(self.request),
        )


class _TargetCreate(StrictModel):
    priority: PriorityField = Field(default=0, description=PRIORITY)
    weight: WeightField = Field(default=1, description=WEIGHT)
    status: TargetStatus = Field(default="active", description="A disabled one is not called.")
    max_concurrent: Annotated[int, Field(strict=True, ge=1, le=100_000)] | None = Field(
        default=None, description=CONCURRENT
    )
    max_queued: Annotated[int, Field(strict=True, ge=0, le=100_000)] = Field(
        default=100, description=QUEUED
    )
    queue_seconds: Annotated[int, Field(strict=True, ge=0, le=600)] = Field(
        default=10, description="How long a call waits for its turn."
    )
    connect_seconds: Annotated[int, Field(strict=True, ge=1, le=60)] = 5
    first_byte_seconds: WaitField = Field(
        default=60, description="How long the answer may take to begin."
    )
    idle_seconds: WaitField = Field(
        default=60, description="How long it may pause between two pieces."
    )
    total_seconds: Annotated[int, Field(strict=True, ge=1, le=86_400)] = Field(
        default=600, description="How long it may take in all."
    )

    def _limits(self) -> TargetLimits:
        return TargetLimits(
            max_concurrent=self.max_concurrent,
            max_queued=self.max_queued,
            queue_for=timedelta(seconds=self.queue_seconds),
            connect=timedelta(seconds=self.connect_seconds),
            first_byte=timedelta(seconds=self.first_byte_seconds),
            idle=timedelta(seconds=self.idle_seconds),
            total=timedelta(seconds=self.total_seconds),
        )


class ProviderTargetCreate(_TargetCreate):
    kind: Literal["provider"]
    provider_model_id: UUID = Field(
        description="A model of a provider: the tenant's own, or granted to it."
    )

    def to_domain(self) -> NewTarget:
        return NewTarget(
            to=ProviderModelId(self.provider_model_id),
            priority=self.priority,
            weight=self.weight,
            status=self.status,
            limits=self._limits(),
        )


class LocalTargetCreate(_TargetCreate):
    kind: Literal["local"]
    model_id: UUID = Field(description=MODEL)
    version: VersionField | None = Field(default=None, description="This one; or an alias.")
    alias: VersionField | None = Field(
        default=None, description="Whichever version it points at when the call is made."
    )
    price: TargetPrice | None = Field(default=None, description="Null: calls have no price.")

    @model_validator(mode="after")
    def _has_one_of_both(self) -> "LocalTargetCreate":
        if (self.version is None) == (self.alias is None):
            raise PydanticCustomError("version_or_alias", "Send `version` or `alias`: one of both")
        return self

    def to_domain(self) -> NewTarget:
        return NewTarget(
            to=VersionReference(
                model_id=ModelId(self.model_id), version=self.version, alias=self.alias
            ),
            priority=self.priority,
            weight=self.weight,
            status=self.status,
            limits=self._limits(),
            price=None if self.price is None else self.price.to_domain(),
        )


TargetField = Annotated[ProviderTargetCreate | LocalTargetCreate, Field(discriminator="kind")]
TargetsField = Annotated[list[TargetField], Field(min_length=1, max_length=MAX_TARGETS)]

TARGET_EXAMPLE: JsonDict = {
    "kind": "provider",
    "provider_model_id": "01935d2e-0000-7000-8000-0000000000c1",
    "priority": 0,
    "weight": 3,
}
LOCAL_EXAMPLE: JsonDict = {
    "kind": "local",
    "model_id": "01935d2e-0000-7000-8000-0000000000d1",
    "alias": "production",
    "priority": 1,
    "price": {"currency": "USD", "input": "0.05", "output": "0.1"},
}


def _seconds(time: timedelta) -> int:
    return time // timedelta(seconds=1)


def _spell_amount(amount: Decimal) -> str:
    """Write a decimal in its shortest form, without an exponent: `2.50` is `2.5`."""
    text = f"{amount:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


class TargetPriceRead(ReadModel):
    """Decimals as strings."""

    currency: str
    input: str
    output: str
    cached: str | None
    reasoning: str | None
    request: str | None

    @model_validator(mode="before")
    @classmethod
    def _of_prices(cls, value: Any) -> Any:
        return _spell_prices(value) if isinstance(value, Prices) else value


class TargetRead(ReadModel):
    """Of what a target does not have, the fields are null: one kind has these, another those."""

    id: UUID = Field(description="The same for as long as the target leads to the same.")
    kind: Literal["provider", "local"]
    provider_model_id: UUID | None
    model_id: UUID | None
    version: str | None
    alias: str | None
    priority: int = Field(description=PRIORITY)
    weight: int = Field(description=WEIGHT)
    status: TargetStatus
    max_concurrent: int | None = Field(description=CONCURRENT)
    max_queued: int = Field(description=QUEUED)
    queue_seconds: int
    connect_seconds: int
    first_byte_seconds: int
    idle_seconds: int
    total_seconds: int
    price: TargetPriceRead | None

    @model_validator(mode="before")
    @classmethod
    def _of_target(cls, value: Any) -> Any:
        return _spell_target(value) if isinstance(value, Target) else value


def _spell_target(target: Target) -> Mapping[str, object]:
    to, limits = target.to, target.limits
    local = to if isinstance(to, VersionReference) else None
    return {
        "id": target.id,
        "kind": "provider" if local is None else "local",
        "provider_model_id": to if local is None else None,
        "model_id": None if local is None else local.model_id,
        "version": None if local is None else local.version,
        "alias": None if local is None else local.alias,
        "priority": target.priority,
        "weight": target.weight,
        "status": target.status,
        "max_concurrent": limits.max_concurrent,
        "max_queued": limits.max_queued,
        "queue_seconds": _seconds(limits.queue_for),
        "connect_seconds": _seconds(limits.connect),
        "first_byte_seconds": _seconds(limits.first_byte),
        "idle_seconds": _seconds(limits.idle),
        "total_seconds": _seconds(limits.total),
        "price": target.price,
    }


def _spell_prices(prices: Prices) -> Mapping[str, object]:
    return {
        "currency": prices.currency,
        "input": _spell_amount(prices.input.per_million),
        "output": _spell_amount(prices.output.per_million),
        "cached": None if prices.cached is None else _spell_amount(prices.cached.per_million),
        "reasoning": None
        if prices.reasoning is None
        else _spell_amount(prices.reasoning.per_million),
        "request": None if prices.request is None else _spell_amount(prices.request),
    }
