"""Connecting suppliers, keeping their keys, and letting other tenants call them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypedDict, cast

from typing_extensions import Unpack

from maas.audit.public import ChangeValue, current_scope
from maas.model.application.ports import CheckRevision
from maas.model.application.provider_ports import (
    CredentialSeals,
    ProviderUnitOfWork,
    TargetCheck,
)
from maas.model.application.provider_queries import ProviderDetails
from maas.model.application.trail import PROVIDER
from maas.model.domain.provider import (
    MAX_PROVIDERS,
    ApiVersion,
    BaseUrlMissingError,
    Provider,
    ProviderChanges,
    ProviderGrantsOfOperatorError,
    ProviderGrantToSelfError,
    ProviderName,
    ProviderNameTakenError,
    SupplierKey,
    TooManyProvidersError,
)
from maas.model.domain.provider_types import PROVIDER_TYPES
from maas.model.domain.text import Description
from maas.model.public import MANAGE_SUPPLIERS, ProviderId, ProviderKind, ProviderStatus
from maas.shared.domain.clock import Clock
from maas.shared.domain.grants import Grant
from maas.shared.domain.ids import TenantId, new_id
from maas.shared.domain.principal import Principal


@dataclass(frozen=True, slots=True, kw_only=True)
class NewProvider:
    name: ProviderName
    type: ProviderKind
    base_url: str | None = None
    api_version: ApiVersion | None = None
    description: Description | None = None
    status: ProviderStatus = "active"


class ProviderUpdate(TypedDict, total=False):
    """What a caller may set; what is absent stays."""

    name: ProviderName
    type: ProviderKind
    base_url: str
    api_version: ApiVersion | None
    description: Description | None
    status: ProviderStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderService:
    """Every change of a provider at a private target wants `platform:suppliers`."""

    unit_of_work: Callable[[], ProviderUnitOfWork]
    check_target: TargetCheck
    seals: CredentialSeals
    clock: Clock

    async def create(self, principal: Principal, new: NewProvider) -> ProviderDetails:
        """Connect a supplier to the caller's tenant; it has no credential yet.

        Raises:
            BaseUrlMissingError, TargetRefusedError, ApiVersionNotUsedError.
            ProviderNameTakenError, TooManyProvidersError.
        """
        base_url = new.base_url or _own_base_url(new.type)
        target = self.check_target(base_url, is_operator=_is_operator(principal))
        now = self.clock.now()
        provider = Provider(
            id=ProviderId(new_id()),
            tenant_id=principal.tenant_id,
            name=new.name,
            type=new.type,
            base_url=target.base_url,
            reach=target.reach,
            api_version=new.api_version,
            description=new.description,
            status=new.status,
            created_by=principal.account_id,
            created_at=now,
            updated_at=now,
        )
        async with self.unit_of_work() as uow:
            if await uow.providers.count() >= MAX_PROVIDERS:
                raise TooManyProvidersError
            if await uow.providers.is_name_taken(provider.name):
                raise ProviderNameTakenError
            uow.providers.add(provider)
            details = ProviderDetails.of(provider)
            current_scope().change(PROVIDER, provider.id, after=_trail(provider))
            await uow.commit(details)
        return details

    async def revise(
        self,
        principal: Principal,
        provider_id: ProviderId,
        *,
        check: CheckRevision,
        **changes: Unpack[ProviderUpdate],
    ) -> ProviderDetails:
        """Set what is given, leave the rest; another type or base URL takes the credential away.

        Another type without a base URL goes to the type's own. What changes nothing is in the trail
        all the same: one event, without changes.

        Raises:
            ProviderNotFoundError, ProviderOfOperatorError, ProviderNameTakenError.
            TargetRefusedError, BaseUrlMissingError, ApiVersionNotUsedError.
        """
        is_operator = _is_operator(principal)
        revised = _without_url(changes)
        if "base_url" in changes:
            revised["target"] = self.check_target(changes["base_url"], is_operator=is_operator)
        async with self.unit_of_work() as uow:
            provider = await uow.providers.get(provider_id)
            current_scope().resource(PROVIDER, provider.id)
            provider.check_operator(is_operator=is_operator)
            check(provider.revision)
            before = _trail(provider)
            name = changes.get("name", provider.name)
            if name != provider.name and await uow.providers.is_name_taken(name):
                raise ProviderNameTakenError
            if "target" not in revised and changes.get("type", provider.type) != provider.type:
                base_url = _own_base_url(changes["type"])
                revised["target"] = self.check_target(base_url, is_operator=is_operator)
            provider.revise(at=self.clock.now(), **revised)
            if provider.credential_set_at is None:
                await uow.providers.remove_credential(provider)
            current_scope().change(PROVIDER, provider.id, before=before, after=_trail(provider))
            await uow.commit()
        return ProviderDetails.of(provider)

    async def delete(
        self, principal: Principal, provider_id: ProviderId, *, check: CheckRevision
    ) -> None:
        """Take a provider out of sight for good, and its key away at once; its name is free again.

        Raises:
            ProviderNotFoundError, ProviderOfOperatorError.
        """
        async with self.unit_of_work() as uow:
            provider = await uow.providers.get(provider_id)
            current_scope().resource(PROVIDER, provider.id)
            provider.check_operator(is_operator=_is_operator(principal))
            check(provider.revision)
            before = _trail(provider)
            provider.delete(at=self.clock.now())
            await uow.providers.remove_credential(provider)
            current_scope().change(PROVIDER, provider.id, before=before)
            await uow.commit()

    async def set_credential(
        self,
        principal: Principal,
        provider_id: ProviderId,
        key: SupplierKey,
        *,
        check: CheckRevision,
    ) -> ProviderDetails:
        """Keep a key, sealed; the one before it is gone.

        Raises:
            ProviderNotFoundError, ProviderOfOperatorError.
        """
        # Whose the provider is, the caller's tenant tells: a foreign one is not found below.
        sealed = self.seals.seal(key, provider_id, principal.tenant_id)
        async with self.unit_of_work() as uow:
            provider = await uow.providers.get(provider_id)
            current_scope().resource(PROVIDER, provider.id)
            provider.check_operator(is_operator=_is_operator(principal))
            check(provider.revision)
            provider.have_credential(at=self.clock.now())
            await uow.providers.put_credential(provider, sealed, by=principal.account_id)
            current_scope().change(PROVIDER, provider.id, after={"has_credential": True})
            await uow.commit()
        return ProviderDetails.of(provider)

    async def remove_credential(
        self, principal: Principal, provider_id: ProviderId, *, check: CheckRevision
    ) -> ProviderDetails:
        """Keep no key any more.

        Raises:
            ProviderNotFoundError, ProviderOfOperatorError, CredentialNotSetError.
        """
        async with self.unit_of_work() as uow:
            provider = await uow.providers.get(provider_id)
            current_scope().resource(PROVIDER, provider.id)
            provider.check_operator(is_operator=_is_operator(principal))
            check(provider.revision)
            provider.lose_credential(at=self.clock.now())
            await uow.providers.remove_credential(provider)
            current_scope().change(PROVIDER, provider.id, before={"has_credential": True})
            await uow.commit()
        return ProviderDetails.of(provider)

    async def grant(
        self, principal: Principal, provider_id: ProviderId, grantee_id: TenantId
    ) -> tuple[Grant, bool]:
        """Let another tenant call the provider, and tell whether that is new.

        Raises:
            ProviderNotFoundError, ProviderGrantsOfOperatorError.
            ProviderGrantToSelfError, TooManyProviderGrantsError.
        """
        async with self.unit_of_work() as uow:
            provider = await uow.providers.get(provider_id)
            current_scope().resource(PROVIDER, provider.id)
            if not _is_operator(principal):
                raise ProviderGrantsOfOperatorError
            if grantee_id == provider.tenant_id:
                raise ProviderGrantToSelfError
            grant = Grant(
                tenant_id=grantee_id,
                created_by=principal.account_id,
                created_at=self.clock.now(),
            )
            kept, is_new = await uow.providers.grant(provider.id, grant)
            current_scope().change(PROVIDER, provider.id, after={"granted_to": str(grantee_id)})
            await uow.commit()
        return kept, is_new

    async def revoke(
        self, principal: Principal, provider_id: ProviderId, grantee_id: TenantId
    ) -> None:
        """Let another tenant call the provider no longer.

        Raises:
            ProviderNotFoundError, ProviderOfOperatorError, ProviderGrantNotFoundError.
        """
        async with self.unit_of_work() as uow:
            provider = await uow.providers.get(provider_id)
            current_scope().resource(PROVIDER, provider.id)
            provider.check_operator(is_operator=_is_operator(principal))
            await uow.providers.revoke(provider.id, grantee_id)
            current_scope().change(PROVIDER, provider.id, before={"granted_to": str(grantee_id)})
            await uow.commit()


def _own_base_url(kind: ProviderKind) -> str:
    base_url = PROVIDER_TYPES[kind].base_url
    if base_url is None:
        raise BaseUrlMissingError
    return base_url


def _without_url(changes: ProviderUpdate) -> ProviderChanges:
    return cast("ProviderChanges", {name: to for name, to in changes.items() if name != "base_url"})


def _is_operator(principal: Principal) -> bool:
    return principal.may(MANAGE_SUPPLIERS)


def _trail(provider: Provider) -> dict[str, ChangeValue]:
    return {
        "name": str(provider.name),
        "type": provider.type,
        "base_url": provider.base_url,
        "reach": provider.reach,
        "api_version": None if provider.api_version is None else str(provider.api_version),
        "description": None if provider.description is None else str(provider.description),
        "status": provider.status,
        "has_credential": provider.credential_set_at is not None,
    }
