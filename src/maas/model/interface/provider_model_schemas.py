"""What the routes of suppliers' models and prices take and give."""

from typing import Annotated, Any
from uuid import UUID

from pydantic import AfterValidator, ConfigDict, Field

from maas.model.domain.provider_model import (
    MAX_MODEL_NAME_CHARS,
    MAX_PRICE_CHARS,
    MAX_TOKENS,
    Currency,
    ProviderModelName,
    UnitPrice,
)
from maas.model.public import Capability, ProviderStatus
from maas.shared.interface.types import Instant, ReadModel, StrictModel
from maas.shared.interface.values import value_text

NameField = Annotated[
    ProviderModelName,
    value_text(
        ProviderModelName, MAX_MODEL_NAME_CHARS, pattern="^[!-~]{1,200}$", examples=["gpt-4o-mini"]
    ),
]
CurrencyField = Annotated[Currency, value_text(Currency, 3, pattern="^[A-Z]{3}$", examples=["USD"])]
PriceField = Annotated[
    UnitPrice,
    value_text(UnitPrice, MAX_PRICE_CHARS, pattern=r"^\d{1,9}(\.\d{1,12})?$", examples=["2.5"]),
]


def _each_once(capabilities: list[Capability]) -> list[Capability]:
    return sorted(set(capabilities))


CapabilitiesField = Annotated[
    list[Capability], Field(min_length=1, max_length=3), AfterValidator(_each_once)
]
TokensField = Annotated[int, Field(strict=True, ge=1, le=MAX_TOKENS)]

NAME = "As the supplier calls it; unique among the provider's models, and fixed, as its prices are."
CAPABILITIES = "What it can be asked for."
CONTEXT_LENGTH = "How many tokens prompt and answer may have together; null: not known."
MAX_OUTPUT_TOKENS = "How many tokens an answer may have; null: not known."
STATUS = "A disabled model is not called."
CACHED = "For a million tokens of the prompt the supplier had cached; null: what input costs."
REASONING = "For a million tokens of reasoning; null: what output costs."
REQUEST = "For each call, whatever its length; null: nothing."


def _absent() -> Any:
    """Stand in for a field that was not sent and may not be null; it is never looked at."""


class ProviderModelCreate(StrictModel):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "name": "gpt-4o-mini",
                    "capabilities": ["chat"],
                    "context_length": 128_000,
                    "max_output_tokens": 16_384,
                }
            ]
        }
    )

    name: NameField = Field(description=NAME)
    capabilities: CapabilitiesField = Field(default=["chat"], description=CAPABILITIES)
    context_length: TokensField | None = Field(default=None, description=CONTEXT_LENGTH)
    max_output_tokens: TokensField | None = Field(default=None, description=MAX_OUTPUT_TOKENS)
    status: ProviderStatus = Field(default="active", description=STATUS)


class ProviderModelUpdate(StrictModel):
    """Fields that are absent stay as they are; `null` clears those that may be empty."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"context_length": 128_000}]})

    capabilities: CapabilitiesField = Field(default_factory=_absent, description=CAPABILITIES)
    context_length: TokensField | None = Field(default=None, description=CONTEXT_LENGTH)
    max_output_tokens: TokensField | None = Field(default=None, description=MAX_OUTPUT_TOKENS)
    status: ProviderStatus = Field(default_factory=_absent, description=STATUS)


class ProviderModelRead(ReadModel):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "01935d2e-0000-7000-8000-0000000000c1",
                    "provider_id": "01935d2e-0000-7000-8000-0000000000b1",
                    "name": "gpt-4o-mini",
                    "capabilities": ["chat"],
                    "context_length": 128_000,
                    "max_output_tokens": 16_384,
                    "status": "active",
                    "created_by": "01935d2e-0000-7000-8000-000000000002",
                    "created_at": "2026-11-21T08:00:00Z",
                    "updated_at": "2026-11-21T08:00:00Z",
                }
            ]
        }
    )

    id: UUID
    provider_id: UUID
    name: str
    capabilities: list[Capability]
    context_length: int | None = Field(description=CONTEXT_LENGTH)
    max_output_tokens: int | None = Field(description=MAX_OUTPUT_TOKENS)
    status: ProviderStatus = Field(description=STATUS)
    created_by: UUID | None = Field(description="Null to a tenant the provider is granted to.")
    created_at: Instant
    updated_at: Instant


class PriceCreate(StrictModel):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"currency": "USD", "input": "0.15", "cached": "0.075", "output": "0.6"}]
        }
    )

    currency: CurrencyField
    input: PriceField = Field(description="For a million tokens of the prompt.")
    output: PriceField = Field(description="For a million tokens of the answer.")
    cached: PriceField | None = Field(default=None, description=CACHED)
    reasoning: PriceField | None = Field(default=None, description=REASONING)
    request: PriceField | None = Field(default=None, description=REQUEST)
    valid_from: Instant | None = Field(
        default=None, description="When it begins to hold; without, at once. Not in the past."
    )


class PriceRead(ReadModel):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "01935d2e-0000-7000-8000-0000000000d1",
                    "provider_id": "01935d2e-0000-7000-8000-0000000000b1",
                    "model_id": "01935d2e-0000-7000-8000-0000000000c1",
                    "currency": "USD",
                    "input": "0.15",
                    "output": "0.6",
                    "cached": "0.075",
                    "reasoning": None,
                    "request": None,
                    "valid_from": "2026-11-21T08:00:00Z",
                    "created_by": "01935d2e-0000-7000-8000-000000000002",
                    "created_at": "2026-11-21T08:00:00Z",
                }
            ]
        }
    )

    id: UUID
    provider_id: UUID
    model_id: UUID
    currency: str
    input: str
    output: str
    cached: str | None = Field(description=CACHED)
    reasoning: str | None = Field(description=REASONING)
    request: str | None = Field(description=REQUEST)
    valid_from: Instant
    created_by: UUID | None = Field(description="Null to a tenant the provider is granted to.")
    created_at: Instant
