"""What is shown of suppliers, and the questions that are asked without loading an aggregate."""

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, Self

from maas.model.domain.provider import Provider
from maas.model.domain.provider_health import ProviderHealth
from maas.model.public import ProviderId, ProviderKind, ProviderStatus, Reach
from maas.shared.domain.grants import Grant
from maas.shared.domain.ids import AccountId, TenantId
from maas.shared.domain.page import Page, PageRequest
from maas.shared.domain.principal import Principal


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderDetails:
    """A supplier as its own tenant sees it; a tenant it is granted to sees no more than it needs.

    To that one, what may be `None` here is `None`.
    """

    id: ProviderId
    tenant_id: TenantId
    name: str
    type: ProviderKind
    base_url: str | None
    api_version: str | None
    description: str | None
    status: ProviderStatus
    reach: Reach | None
    credential_set_at: datetime | None
    health: ProviderHealth
    created_by: AccountId | None
    created_at: datetime
    updated_at: datetime
    revision: int

    @classmethod
    def of(cls, provider: Provider) -> Self:
        return cls(
            id=provider.id,
            tenant_id=provider.tenant_id,
            name=str(provider.name),
            type=provider.type,
            base_url=provider.base_url,
            api_version=None if provider.api_version is None else str(provider.api_version),
            description=None if provider.description is None else str(provider.description),
            status=provider.status,
            reach=provider.reach,
            credential_set_at=provider.credential_set_at,
            health=provider.health,
            created_by=provider.created_by,
            created_at=provider.created_at,
            updated_at=provider.updated_at,
            revision=provider.revision,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderFilter:
    type: ProviderKind | None = None
    status: ProviderStatus | None = None


class ProviderQueries(Protocol):
    """What a caller may see: the own tenant's providers, and those granted to the tenant."""

    async def get_provider(self, caller: Principal, provider_id: ProviderId) -> ProviderDetails:
        """Raises ProviderNotFoundError."""
        ...

    async def list_providers(
        self, caller: Principal, wanted: ProviderFilter, page: PageRequest
    ) -> Page[ProviderDetails]:
        """List them, newest first."""
        ...

    async def list_grants(
        self, caller: Principal, provider_id: ProviderId, page: PageRequest
    ) -> Page[Grant]:
        """List to whom a provider of the caller's own tenant is granted, newest first.

        Raises ProviderNotFoundError.
        """
        ...
