"""What is shown of suppliers' models and prices."""

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, Self

from maas.model.domain.provider_model import Price, ProviderModel
from maas.model.public import Capability, PriceId, ProviderId, ProviderModelId, ProviderStatus
from maas.shared.domain.ids import AccountId
from maas.shared.domain.page import Page, PageRequest
from maas.shared.domain.principal import Principal


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceDetails:
    """A price; `input` to `reasoning` are decimals for a million tokens, `request` for a call.

    To a tenant that the provider is granted to, `created_by` is `None`.
    """

    id: PriceId
    provider_id: ProviderId
    model_id: ProviderModelId
    currency: str
    input: str
    output: str
    cached: str | None
    reasoning: str | None
    request: str | None
    valid_from: datetime
    created_by: AccountId | None
    created_at: datetime

    @classmethod
    def of(cls, price: Price) -> Self:
        return cls(
            id=price.id,
            provider_id=price.provider_id,
            model_id=price.model_id,
            currency=str(price.currency),
            input=str(price.input),
            output=str(price.output),
            cached=None if price.cached is None else str(price.cached),
            reasoning=None if price.reasoning is None else str(price.reasoning),
            request=None if price.request is None else str(price.request),
            valid_from=price.valid_from,
            created_by=price.created_by,
            created_at=price.created_at,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderModelDetails:
    """A model of a supplier; to a tenant the provider is granted to, `created_by` is `None`."""

    id: ProviderModelId
    provider_id: ProviderId
    name: str
    capabilities: list[Capability]
    context_length: int | None
    max_output_tokens: int | None
    status: ProviderStatus
    created_by: AccountId | None
    created_at: datetime
    updated_at: datetime
    revision: int

    @classmethod
    def of(cls, model: ProviderModel) -> Self:
        return cls(
            id=model.id,
            provider_id=model.provider_id,
            name=str(model.name),
            capabilities=model.capabilities,
            context_length=model.context_length,
            max_output_tokens=model.max_output_tokens,
            status=model.status,
            created_by=model.created_by,
            created_at=model.created_at,
            updated_at=model.updated_at,
            revision=model.revision,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceFilter:
    """With `at`, what held then: one price of each currency at most."""

    currency: str | None = None
    at: datetime | None = None


class ProviderModelQueries(Protocol):
    """What a caller may see: models of the own tenant's providers, and of those granted to it."""

    async def get_model(
        self, caller: Principal, provider_id: ProviderId, model_id: ProviderModelId
    ) -> ProviderModelDetails:
        """Raises ProviderModelNotFoundError."""
        ...

    async def list_models(
        self, caller: Principal, provider_id: ProviderId, page: PageRequest
    ) -> Page[ProviderModelDetails]:
        """List them, newest first. Raises ProviderNotFoundError."""
        ...

    async def get_price(
        self,
        caller: Principal,
        provider_id: ProviderId,
        model_id: ProviderModelId,
        price_id: PriceId,
    ) -> PriceDetails:
        """Raises ProviderModelNotFoundError, PriceNotFoundError."""
        ...

    async def list_prices(
        self,
        caller: Principal,
        provider_id: ProviderId,
        model_id: ProviderModelId,
        wanted: PriceFilter,
        page: PageRequest,
    ) -> Page[PriceDetails]:
        """List them, those first that hold from latest on. Raises ProviderModelNotFoundError."""
        ...
