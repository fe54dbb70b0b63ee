"""What the use cases of suppliers need from the outside."""

from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from maas.model.domain.provider import ProviderRepository, SupplierKey, Target
from maas.model.domain.provider_model import ProviderModelRepository
from maas.model.public import ProviderId, ProviderKind, ProviderStatus, Reach
from maas.shared.domain.ids import TenantId


class ProviderUnitOfWork(Protocol):
    """One transaction over suppliers.

    `commit()` turns a lost race for a name into `ProviderNameTakenError` or
    `ProviderModelTakenError`. A provider is locked before its models are.
    """

    providers: ProviderRepository
    models: ProviderModelRepository

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    async def commit(self, result: object = None) -> None: ...


class TargetCheck(Protocol):
    def __call__(self, url: str, *, is_operator: bool) -> Target:
        """Read a base URL that may be called, as far as can be told without resolving its host.

        For an operator, one of the operator's private targets is `private`. For everybody else
        that list is not there: what is in it is judged like any other address, and nothing told
        of it.

        Raises:
            TargetRefusedError: it may not be called.
        """
        ...


class CredentialSeals(Protocol):
    """Seals keys, each to the row of its provider and tenant."""

    def seal(self, key: SupplierKey, provider_id: ProviderId, tenant_id: TenantId) -> bytes: ...

    def open(self, sealed: bytes, provider_id: ProviderId, tenant_id: TenantId) -> SupplierKey:
        """Read a key back.

        Raises:
            SecretUnreadableError: it was sealed elsewhere, under a key that is gone, or changed.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SupplierAccount:
    """All that a call to a supplier needs; whoever takes one keeps it no longer than the call."""

    id: ProviderId
    tenant_id: TenantId
    type: ProviderKind
    base_url: str
    reach: Reach
    api_version: str | None
    status: ProviderStatus
    key: SupplierKey | None


class SupplierAccounts(Protocol):
    async def get(self, tenant_id: TenantId, provider_id: ProviderId) -> SupplierAccount:
        """Read a provider of this tenant, and open its key.

        Address and key are read as they were at one moment: a key never goes with an address it
        was not given for.

        Raises:
            ProviderNotFoundError: not there, deleted, another tenant's, or of one that is suspended
                or closed.
            CredentialUnreadableError: the key does not open.
        """
        ...
