"""What the use cases of API keys and service accounts need from outside, and what they tell."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol, Self
from uuid import UUID

from maas.shared.domain.ids import ApiKeyId, ServiceAccountId, TenantId
from maas.shared.domain.page import Page, PageRequest
from maas.shared.domain.principal import Principal
from maas.user.application.admin_ports import AdminUnitOfWork, SessionEffects, names_of
from maas.user.domain.api_key import ApiKey, ApiKeyRepository, Holder
from maas.user.domain.service_account import (
    ServiceAccount,
    ServiceAccountRepository,
    ServiceAccountStatus,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """When the key that calls ends, and whether it has quotas; a session has neither."""

    ends_by: datetime | None = None
    has_quotas: bool = False


class KeyUnitOfWork(AdminUnitOfWork, Protocol):
    """One transaction over the keys and service accounts of the tenant acted in."""

    @property
    def keys(self) -> ApiKeyRepository: ...

    @property
    def service_accounts(self) -> ServiceAccountRepository: ...

    async def lock_holder(self, holder: Holder) -> ServiceAccount | None:
        """Lock whoever holds keys, before any of the keys: others change them in this order.

        Returns the service account, if it is one.

        Raises:
            ServiceAccountNotFoundError, AccountNotFoundError.
        """
        ...

    async def find_caller(self, principal: Principal) -> Caller:
        """Tell what binds the credential that calls.

        Raises:
            InvalidTokenError, InvalidApiKeyError: it has ended or changed while this call waited.
        """
        ...

    async def refresh_keys(self, service_account_id: ServiceAccountId) -> SessionEffects:
        """Have the keys of a service account, which is locked, read their rights anew."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKeyDetails:
    """A key as its holder sees it: nothing in here lets anybody in."""

    id: ApiKeyId
    prefix: str
    name: str
    scopes: list[str]
    allowed_networks: list[str] | None
    allowed_models: list[str] | None
    requests_per_minute: int | None
    expires_at: datetime
    last_used_at: datetime | None
    rotated_at: datetime | None
    previous_valid_until: datetime | None
    created_by: UUID
    created_by_key: ApiKeyId | None
    created_at: datetime
    updated_at: datetime
    version: int

    @classmethod
    def of(cls, key: ApiKey) -> Self:
        return cls(
            id=key.id,
            prefix=key.prefix,
            name=key.name,
            scopes=key.scopes,
            allowed_networks=key.allowed_networks,
            allowed_models=key.allowed_models,
            requests_per_minute=key.requests_per_minute,
            expires_at=key.expires_at,
            last_used_at=key.last_used_at,
            rotated_at=key.rotated_at,
            previous_valid_until=key.previous_valid_until,
            created_by=key.created_by,
            created_by_key=key.created_by_key,
            created_at=key.created_at,
            updated_at=key.updated_at,
            version=key.version,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedKey:
    """A key with its text, which is told this once."""

    details: ApiKeyDetails
    holder: Holder
    key: str = field(repr=False)

    @property
    def version(self) -> int:
        return self.details.version


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceAccountDetails:
    id: ServiceAccountId
    name: str
    description: str | None
    status: ServiceAccountStatus
    roles: list[str]
    created_by: UUID
    created_at: datetime
    updated_at: datetime
    version: int

    @classmethod
    def of(cls, account: ServiceAccount) -> Self:
        return cls(
            id=account.id,
            name=account.name,
            description=account.description,
            status=account.status,
            roles=names_of(account.role_names),
            created_by=account.created_by,
            created_at=account.created_at,
            updated_at=account.updated_at,
            version=account.version,
        )


class KeyQueries(Protocol):
    async def list_keys(
        self, tenant_id: TenantId, holder: Holder, page: PageRequest
    ) -> Page[ApiKeyDetails]:
        """Raises ServiceAccountNotFoundError."""
        ...

    async def get_key(self, tenant_id: TenantId, holder: Holder, key_id: ApiKeyId) -> ApiKeyDetails:
        """Raises ApiKeyNotFoundError."""
        ...

    async def list_service_accounts(
        self, tenant_id: TenantId, page: PageRequest
    ) -> Page[ServiceAccountDetails]: ...

    async def get_service_account(
        self, tenant_id: TenantId, service_account_id: ServiceAccountId
    ) -> ServiceAccountDetails:
        """Raises ServiceAccountNotFoundError."""
        ...
