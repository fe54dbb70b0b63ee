"""What the routes of deployments take and give."""

from collections.abc import Mapping
from datetime import timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import (
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)
from pydantic_core import PydanticCustomError

from maas.inference.application.deployments import DeploymentUpdate as Changes
from maas.inference.application.deployments import NewDeployment, NewTarget
from maas.inference.domain.deployment import (
    MAX_DESCRIPTION_CHARS,
    MAX_NAME_CHARS,
    MAX_TARGETS,
    DeploymentName,
    DeploymentStatus,
    DeploymentText,
    DeploymentVisibility,
    Target,
    TargetStatus,
)
from maas.inference.domain.route import TargetLimits
from maas.model.public import ModelId, ProviderModelId, VersionReference
from maas.shared.domain.pricing import Price, Prices
from maas.shared.interface.types import Instant, ReadModel, StrictModel
from maas.shared.interface.values import value_text

MAX_BODY_BYTES = 32 * 1024**2
MAX_TOKENS = 1_000_000_000
MAX_CHOICES = 128
MAX_CACHE_SECONDS = 31 * 24 * 3_600
MAX_CAPTURE_DAYS = 3_650
MAX_PRICE_CHARS = 22

NameField = Annotated[
    DeploymentName, value_text(DeploymentName, MAX_NAME_CHARS, examples=["acme/support:7b"])
]
DescriptionField = Annotated[DeploymentText, value_text(DeploymentText, MAX_DESCRIPTION_CHARS)]
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

STATUS = "A disabled deployment is not called, and its name leads nowhere else."
VISIBILITY = (
    "`tenant`: its tenant, and those it is granted to; `public`: every tenant, which wants "
    "`platform:deployments`."
)
CURRENCY = (
    "What calls are charged in. Null: the first, by the alphabet, that the first target with a "
    "price has one in. Targets without a price in it are not called, unless none has any."
)
BODY = "A longer request is refused; null: at most 32 MiB."
OUTPUT = "How many tokens an answer may have; null: what the target can."
CHOICES = "How many answers one call may ask for (`n`); null: as many as the target gives."
CACHE = "For so long the same question gets the same answer, charged once; null: never."
CAPTURE = "For so many days questions and answers are kept, sealed; null: they are not."
TARGETS = "What answers, at least one; they are set all together."
PRIORITY = "Lower ones are asked first."
WEIGHT = "Among those of one priority, how much of the calls it gets."
CONCURRENT = "How many calls it is sent at a time, by all processes together; null: any number."
QUEUED = "How many calls wait for their turn."
MODEL = "A model of the registry that the tenant sees, run by the local runtime."


def _absent() -> Any:
    """Stand in for a field that was not sent and may not be null; it is never looked at."""


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
BodyBytesField = Annotated[int, Field(strict=True, ge=1, le=MAX_BODY_BYTES)]
TokensField = Annotated[int, Field(strict=True, ge=1, le=MAX_TOKENS)]
ChoicesField = Annotated[int, Field(strict=True, ge=1, le=MAX_CHOICES)]
CacheField = Annotated[int, Field(strict=True, ge=1, le=MAX_CACHE_SECONDS)]
CaptureField = Annotated[int, Field(strict=True, ge=1, le=MAX_CAPTURE_DAYS)]

_TARGET_EXAMPLE = {
    "kind": "provider",
    "provider_model_id": "01935d2e-0000-7000-8000-0000000000c1",
    "priority": 0,
    "weight": 3,
}
_LOCAL_EXAMPLE = {
    "kind": "local",
    "model_id": "01935d2e-0000-7000-8000-0000000000d1",
    "alias": "production",
    "priority": 1,
    "price": {"currency": "USD", "input": "0.05", "output": "0.1"},
}


class DeploymentCreate(StrictModel):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "name": "acme/support:7b",
                    "description": "Answers customers; our own weights where the supplier is away.",
                    "currency": "USD",
                    "max_output_tokens": 2_000,
                    "targets": [_TARGET_EXAMPLE, _LOCAL_EXAMPLE],
                }
            ]
        }
    )

    name: NameField = Field(
        description="What callers send as `model`; unique in the tenant. Case matters."
    )
    description: DescriptionField | None = None
    status: DeploymentStatus = Field(default="active", description=STATUS)
    visibility: DeploymentVisibility = Field(default="tenant", description=VISIBILITY)
    currency: CurrencyField | None = Field(default=None, description=CURRENCY)
    max_body_bytes: BodyBytesField | None = Field(default=None, description=BODY)
    max_output_tokens: TokensField | None = Field(default=None, description=OUTPUT)
    max_choices: ChoicesField | None = Field(default=None, description=CHOICES)
    cache_seconds: CacheField | None = Field(default=None, description=CACHE)
    capture_days: CaptureField | None = Field(default=None, description=CAPTURE)
    targets: TargetsField = Field(description=TARGETS)

    def to_domain(self) -> NewDeployment:
        return NewDeployment(
            name=self.name,
            description=self.description,
            status=self.status,
            visibility=self.visibility,
            currency=self.currency,
            max_body_bytes=self.max_body_bytes,
            max_output_tokens=self.max_output_tokens,
            max_choices=self.max_choices,
            cache_seconds=self.cache_seconds,
            capture_days=self.capture_days,
            targets=[target.to_domain() for target in self.targets],
        )


class DeploymentUpdate(StrictModel):
    """Fields that are absent stay as they are; `null` clears those that may be empty."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"targets": [_TARGET_EXAMPLE]}, {"status": "disabled"}]}
    )

    name: NameField = Field(default_factory=_absent)
    description: DescriptionField | None = None
    status: DeploymentStatus = Field(default_factory=_absent, description=STATUS)
    visibility: DeploymentVisibility = Field(default_factory=_absent, description=VISIBILITY)
    currency: CurrencyField | None = Field(default=None, description=CURRENCY)
    max_body_bytes: BodyBytesField | None = Field(default=None, description=BODY)
    max_output_tokens: TokensField | None = Field(default=None, description=OUTPUT)
    max_choices: ChoicesField | None = Field(default=None, description=CHOICES)
    cache_seconds: CacheField | None = Field(default=None, description=CACHE)
    capture_days: CaptureField | None = Field(default=None, description=CAPTURE)
    targets: TargetsField = Field(default_factory=_absent, description=TARGETS)

    def to_changes(self) -> Changes:
        changes: dict[str, Any] = {name: getattr(self, name) for name in self.model_fields_set}
        if "targets" in changes:
            changes["targets"] = [target.to_domain() for target in self.targets]
        return Changes(**changes)  # type: ignore[typeddict-item]  # the names of its fields


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


class DeploymentRead(ReadModel):
    """Another tenant's shows null where only its owner is told: what answers, and who made it."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "01935d2e-0000-7000-8000-0000000000e1",
                    "tenant_id": "01935d2e-0000-7000-8000-000000000001",
                    "name": "acme/support:7b",
                    "description": "Answers customers.",
                    "status": "active",
                    "visibility": "tenant",
                    "currency": "USD",
                    "max_body_bytes": None,
                    "max_output_tokens": 2_000,
                    "max_choices": None,
                    "cache_seconds": None,
                    "capture_days": None,
                    "targets": [
                        {
                            "id": "01935d2e-0000-7000-8000-0000000000f1",
                            "kind": "local",
                            "provider_model_id": None,
                            "model_id": "01935d2e-0000-7000-8000-0000000000d1",
                            "version": None,
                            "alias": "production",
                            "priority": 1,
                            "weight": 1,
                            "status": "active",
                            "max_concurrent": None,
                            "max_queued": 100,
                            "queue_seconds": 10,
                            "connect_seconds": 5,
                            "first_byte_seconds": 60,
                            "idle_seconds": 60,
                            "total_seconds": 600,
                            "price": {
                                "currency": "USD",
                                "input": "0.05",
                                "output": "0.1",
                                "cached": None,
                                "reasoning": None,
                                "request": None,
                            },
                        }
                    ],
                    "created_by": "01935d2e-0000-7000-8000-000000000002",
                    "created_at": "2026-11-22T08:00:00Z",
                    "updated_at": "2026-11-22T08:00:00Z",
                }
            ]
        }
    )

    id: UUID
    tenant_id: UUID = Field(description="Whose it is; another tenant's can only be called.")
    name: str
    description: str | None
    status: DeploymentStatus = Field(description=STATUS)
    visibility: DeploymentVisibility = Field(description=VISIBILITY)
    currency: str | None = Field(description=CURRENCY)
    max_body_bytes: int | None = Field(description=BODY)
    max_output_tokens: int | None = Field(description=OUTPUT)
    max_choices: int | None = Field(description=CHOICES)
    cache_seconds: int | None = Field(description=CACHE)
    capture_days: int | None = Field(description=CAPTURE)
    targets: list[TargetRead] | None
    created_by: UUID | None
    created_at: Instant
    updated_at: Instant


class DeploymentGrantRead(ReadModel):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "tenant_id": "01935d2e-0000-7000-8000-000000000009",
                    "created_by": "01935d2e-0000-7000-8000-000000000002",
                    "created_at": "2026-11-22T08:00:00Z",
                }
            ]
        }
    )

    tenant_id: UUID = Field(description="The tenant that may call the deployment.")
    created_by: UUID
    created_at: Instant
