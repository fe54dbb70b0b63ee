"""Adding the models of suppliers, and setting what they cost."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from typing_extensions import Unpack

from maas.audit.public import ChangeValue, current_scope
from maas.model.application.ports import CheckRevision
from maas.model.application.provider_model_queries import PriceDetails, ProviderModelDetails
from maas.model.application.provider_ports import ProviderUnitOfWork
from maas.model.application.trail import PROVIDER_MODEL
from maas.model.domain.provider_model import (
    MAX_CURRENCIES,
    MAX_PRICES,
    MAX_PROVIDER_MODELS,
    Currency,
    Price,
    PriceInThePastError,
    ProviderModel,
    ProviderModelChanges,
    ProviderModelName,
    ProviderModelTakenError,
    TooManyCurrenciesError,
    TooManyPricesError,
    TooManyProviderModelsError,
    UnitPrice,
)
from maas.model.public import (
    MANAGE_SUPPLIERS,
    Capability,
    PriceId,
    ProviderId,
    ProviderModelId,
    ProviderStatus,
)
from maas.shared.domain.clock import Clock
from maas.shared.domain.ids import new_id
from maas.shared.domain.principal import Principal


@dataclass(frozen=True, slots=True, kw_only=True)
class NewProviderModel:
    name: ProviderModelName
    capabilities: list[Capability]
    context_length: int | None = None
    max_output_tokens: int | None = None
    status: ProviderStatus = "active"


@dataclass(frozen=True, slots=True, kw_only=True)
class NewPrice:
    """A price to be set; without `valid_from` it holds at once."""

    currency: Currency
    input: UnitPrice
    output: UnitPrice
    cached: UnitPrice | None = None
    reasoning: UnitPrice | None = None
    request: UnitPrice | None = None
    valid_from: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderModelService:
    """Every change wants what a change of the provider itself wants; its row is locked first."""

    unit_of_work: Callable[[], ProviderUnitOfWork]
    clock: Clock

    async def add(
        self, principal: Principal, provider_id: ProviderId, new: NewProviderModel
    ) -> ProviderModelDetails:
        """Add a model to a provider of the caller's tenant.

        Raises:
            ProviderNotFoundError, ProviderOfOperatorError.
            ProviderModelTakenError, TooManyProviderModelsError.
        """
        now = self.clock.now()
        model = ProviderModel(
            id=ProviderModelId(new_id()),
            provider_id=provider_id,
            tenant_id=principal.tenant_id,
            name=new.name,
            capabilities=new.capabilities,
            context_length=new.context_length,
            max_output_tokens=new.max_output_tokens,
            status=new.status,
            created_by=principal.account_id,
            created_at=now,
            updated_at=now,
        )
        async with self.unit_of_work() as uow:
            await _lock_provider(uow, principal, provider_id)
            if await uow.models.is_name_taken(provider_id, model.name):
                raise ProviderModelTakenError
            if await uow.models.count(provider_id) >= MAX_PROVIDER_MODELS:
                raise TooManyProviderModelsError
            uow.models.add(model)
            details = ProviderModelDetails.of(model)
            current_scope().change(PROVIDER_MODEL, model.id, after=_trail(model))
            await uow.commit(details)
        return details

    async def revise(
        self,
        principal: Principal,
        provider_id: ProviderId,
        model_id: ProviderModelId,
        *,
        check: CheckRevision,
        **changes: Unpack[ProviderModelChanges],
    ) -> ProviderModelDetails:
        """Set what is given, leave the rest.

        What changes nothing is in the trail all the same: one event, without changes.

        Raises:
            ProviderNotFoundError, ProviderModelNotFoundError, ProviderOfOperatorError.
        """
        async with self.unit_of_work() as uow:
            await _lock_provider(uow, principal, provider_id)
            model = await uow.models.get(provider_id, model_id)
            current_scope().resource(PROVIDER_MODEL, model.id)
            check(model.revision)
            before = _trail(model)
            model.revise(at=self.clock.now(), **changes)
            current_scope().change(PROVIDER_MODEL, model.id, before=before, after=_trail(model))
            await uow.commit()
        return ProviderModelDetails.of(model)

    async def delete(
        self,
        principal: Principal,
        provider_id: ProviderId,
        model_id: ProviderModelId,
        *,
        check: CheckRevision,
    ) -> None:
        """Take a model out of sight; its name is free again.

        Raises:
            ProviderNotFoundError, ProviderModelNotFoundError, ProviderOfOperatorError.
        """
        async with self.unit_of_work() as uow:
            await _lock_provider(uow, principal, provider_id)
            model = await uow.models.get(provider_id, model_id)
            current_scope().resource(PROVIDER_MODEL, model.id)
            check(model.revision)
            before = _trail(model)
            model.delete(at=self.clock.now())
            current_scope().change(PROVIDER_MODEL, model.id, before=before)
            await uow.commit()

    async def set_price(
        self,
        principal: Principal,
        provider_id: ProviderId,
        model_id: ProviderModelId,
        new: NewPrice,
    ) -> PriceDetails:
        """Say what a model costs from now or a later time on; what it cost before stays.

        Raises:
            ProviderNotFoundError, ProviderModelNotFoundError, ProviderOfOperatorError.
            PriceInThePastError, TooManyPricesError, TooManyCurrenciesError.
        """
        async with self.unit_of_work() as uow:
            await _lock_provider(uow, principal, provider_id)
            model = await uow.models.get(provider_id, model_id)
            current_scope().resource(PROVIDER_MODEL, model.id)
            # Under the lock, and from there on not changed by anybody else.
            so_far = await uow.models.prices_so_far(model_id)
            if new.valid_from is not None and new.valid_from < so_far.now:
                raise PriceInThePastError
            if so_far.count >= MAX_PRICES:
                raise TooManyPricesError
            if len(so_far.currencies | {str(new.currency)}) > MAX_CURRENCIES:
                raise TooManyCurrenciesError
            price = Price(
                id=PriceId(new_id()),
                model_id=model.id,
                provider_id=model.provider_id,
                tenant_id=model.tenant_id,
                currency=new.currency,
                input=new.input,
                output=new.output,
                cached=new.cached,
                reasoning=new.reasoning,
                request=new.request,
                valid_from=new.valid_from or so_far.now,
                created_by=principal.account_id,
                created_at=so_far.now,
            )
            await uow.models.add_price(price)
            details = PriceDetails.of(price)
            current_scope().change(PROVIDER_MODEL, model.id, after=_price_trail(price))
            await uow.commit(details)
        return details


async def _lock_provider(
    uow: ProviderUnitOfWork, principal: Principal, provider_id: ProviderId
) -> None:
    provider = await uow.providers.get(provider_id)
    provider.check_operator(is_operator=principal.may(MANAGE_SUPPLIERS))


def _trail(model: ProviderModel) -> dict[str, ChangeValue]:
    return {
        "provider_id": str(model.provider_id),
        "name": str(model.name),
        "capabilities": [*model.capabilities],
        "context_length": model.context_length,
        "max_output_tokens": model.max_output_tokens,
        "status": model.status,
    }


def _price_trail(price: Price) -> dict[str, ChangeValue]:
    prices = {
        "input": price.input,
        "output": price.output,
        "cached": price.cached,
        "reasoning": price.reasoning,
        "request": price.request,
    }
    return {
        "provider_id": str(price.provider_id),
        "price_id": str(price.id),
        "currency": str(price.currency),
        "valid_from": price.valid_from.isoformat(),
        **{meter: str(each) for meter, each in prices.items() if each is not None},
    }
