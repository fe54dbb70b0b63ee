"""What the routes of suppliers ask for."""

from typing import Annotated, cast
from uuid import UUID

from fastapi import Depends, Path, Request

from maas.model.application.provider_checks import ProviderCheckService
from maas.model.application.provider_model_queries import ProviderModelQueries
from maas.model.application.provider_models import ProviderModelService
from maas.model.application.provider_queries import ProviderQueries
from maas.model.application.providers import ProviderService
from maas.model.public import PriceId, ProviderId, ProviderModelId


async def _providers(request: Request) -> ProviderService:
    return cast("ProviderService", request.scope["state"]["providers"])


async def _provider_queries(request: Request) -> ProviderQueries:
    return cast("ProviderQueries", request.scope["state"]["provider_queries"])


async def _provider_models(request: Request) -> ProviderModelService:
    return cast("ProviderModelService", request.scope["state"]["provider_models"])


async def _provider_model_queries(request: Request) -> ProviderModelQueries:
    return cast("ProviderModelQueries", request.scope["state"]["provider_model_queries"])


async def _provider_checks(request: Request) -> ProviderCheckService:
    return cast("ProviderCheckService", request.scope["state"]["provider_checks"])


async def _provider_id(
    provider_id: Annotated[UUID, Path(description="The provider's id.")],
) -> ProviderId:
    return ProviderId(provider_id)


async def _model_id(
    model_id: Annotated[UUID, Path(description="The model's id, not its name.")],
) -> ProviderModelId:
    return ProviderModelId(model_id)


async def _price_id(price_id: Annotated[UUID, Path(description="The price's id.")]) -> PriceId:
    return PriceId(price_id)


Providers = Annotated[ProviderService, Depends(_providers)]
ProviderReads = Annotated[ProviderQueries, Depends(_provider_queries)]
ProviderChecks = Annotated[ProviderCheckService, Depends(_provider_checks)]
ProviderIdPath = Annotated[ProviderId, Depends(_provider_id)]
ProviderModels = Annotated[ProviderModelService, Depends(_provider_models)]
ProviderModelReads = Annotated[ProviderModelQueries, Depends(_provider_model_queries)]
ProviderModelIdPath = Annotated[ProviderModelId, Depends(_model_id)]
PriceIdPath = Annotated[PriceId, Depends(_price_id)]
