"""Loading and keeping suppliers' models, and adding prices."""

from datetime import timedelta
from typing import Final

from sqlalchemy import ColumnElement, exists, func, insert, select
from sqlalchemy.ext.asyncio import AsyncSession

from maas.model.domain.provider_model import (
    Price,
    PricesSoFar,
    ProviderModel,
    ProviderModelName,
    ProviderModelNotFoundError,
    UnitPrice,
)
from maas.model.infrastructure.provider_model_tables import provider_models, provider_prices
from maas.model.public import ProviderId, ProviderModelId
from maas.shared.domain.ids import TenantId

_LATER: Final = timedelta(microseconds=1)


class SqlProviderModelRepository:
    def __init__(self, session: AsyncSession, tenant_id: TenantId | None) -> None:
        self._session = session
        self._tenant_id = tenant_id

    async def get(self, provider_id: ProviderId, model_id: ProviderModelId) -> ProviderModel:
        found = await self._session.execute(
            select(ProviderModel)
            .where(*self._of(provider_id), provider_models.c.id == model_id)
            .with_for_update(key_share=True)
        )
        model: ProviderModel | None = found.scalar_one_or_none()
        if model is None:
            raise ProviderModelNotFoundError
        return model

    async def is_name_taken(self, provider_id: ProviderId, name: ProviderModelName) -> bool:
        found = await self._session.scalar(
            select(exists().where(*self._of(provider_id), provider_models.c.name == name))
        )
        return bool(found)

    async def count(self, provider_id: ProviderId) -> int:
        found = await self._session.scalar(
            select(func.count()).select_from(provider_models).where(*self._of(provider_id))
        )
        return int(found or 0)

    def add(self, model: ProviderModel) -> None:
        self._session.add(model)

    async def prices_so_far(self, model_id: ProviderModelId) -> PricesSoFar:
        moment = func.greatest(
            func.clock_timestamp(), func.max(provider_prices.c.created_at) + _LATER
        )
        found = await self._session.execute(
            select(
                func.count(),
                func.array_agg(provider_prices.c.currency.distinct()),
                moment,
            ).where(
                provider_prices.c.model_id == model_id,
                provider_prices.c.tenant_id == self._tenant_id,
            )
        )
        count, currencies, now = found.one()
        return PricesSoFar(count=count, currencies=frozenset(currencies or ()), now=now)

    async def add_price(self, price: Price) -> None:
        await self._session.execute(
            insert(provider_prices).values(
                id=price.id,
                model_id=price.model_id,
                provider_id=price.provider_id,
                tenant_id=price.tenant_id,
                currency=str(price.currency),
                input=price.input.amount,
                output=price.output.amount,
                cached=_amount(price.cached),
                reasoning=_amount(price.reasoning),
                request=_amount(price.request),
                valid_from=price.valid_from,
                created_by=price.created_by,
                created_at=price.created_at,
            )
        )

    def _of(self, provider_id: ProviderId) -> tuple[ColumnElement[bool], ...]:
        return (
            provider_models.c.provider_id == provider_id,
            provider_models.c.tenant_id == self._tenant_id,
            provider_models.c.deleted_at.is_(None),
        )


def _amount(price: UnitPrice | None) -> object:
    return None if price is None else price.amount
