"""What the routes of suppliers ask for."""

from typing import Annotated, cast
from uuid import UUID

from fastapi import Depends, Path, Request

from maas.model.application.provider_queries import ProviderQueries
from maas.model.application.providers import ProviderService
from maas.model.public import ProviderId


async def _providers(request: Request) -> ProviderService:
    return cast("ProviderService", request.scope["state"]["providers"])


async def _provider_queries(request: Request) -> ProviderQueries:
    return cast("ProviderQueries", request.scope["state"]["provider_queries"])


async def _provider_id(
    provider_id: Annotated[UUID, Path(description="The provider's id.")],
) -> ProviderId:
    return ProviderId(provider_id)


Providers = Annotated[ProviderService, Depends(_providers)]
ProviderReads = Annotated[ProviderQueries, Depends(_provider_queries)]
ProviderIdPath = Annotated[ProviderId, Depends(_provider_id)]
