"""Service accounts of a tenant: made, given roles, suspended and deleted by its administrators."""

from collections.abc import Callable, Collection
from dataclasses import dataclass

from typing_extensions import TypedDict, Unpack

from maas.audit.public import AuditedResource, ChangeValue, current_scope
from maas.shared.domain.clock import Clock
from maas.shared.domain.ids import AccountId, ServiceAccountId, new_id
from maas.shared.domain.principal import Principal
from maas.user.application.admin_acts import CheckVersion, check_given, granter_of
from maas.user.application.admin_ports import SessionMarks, names_of
from maas.user.application.key_ports import KeyUnitOfWork, ServiceAccountDetails
from maas.user.domain.role import RoleName
from maas.user.domain.service_account import (
    MAX_SERVICE_ACCOUNTS,
    ServiceAccount,
    ServiceAccountStatus,
    TooManyServiceAccountsError,
)

SERVICE_ACCOUNT = AuditedResource(
    "service_account", frozenset({"name", "description", "status", "roles"})
)


class ServiceAccountChanges(TypedDict, total=False):
    """What may be changed of a service account; what is absent stays."""

    name: str
    description: str | None
    status: ServiceAccountStatus
    roles: Collection[RoleName]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceAccountService:
    unit_of_work: Callable[[], KeyUnitOfWork]
    marks: SessionMarks
    clock: Clock

    async def create(
        self,
        principal: Principal,
        *,
        name: str,
        description: str | None,
        roles: Collection[RoleName],
    ) -> ServiceAccountDetails:
        """Make a service account of the caller's tenant.

        Raises:
            ServiceAccountNameTakenError, TooManyServiceAccountsError, RoleNotFoundError,
            OwnRolesError, BeyondOwnRightsError, LimitedKeyError.
        """
        now, wanted = self.clock.now(), frozenset(roles)
        account = ServiceAccount(
            id=ServiceAccountId(new_id()),
            tenant_id=principal.tenant_id,
            name=name,
            description=description,
            status="active",
            grants=[],
            created_by=principal.account_id,
            created_at=now,
            updated_at=now,
            version=0,
        )
        async with self.unit_of_work() as uow:
            if await uow.service_accounts.count_locked() >= MAX_SERVICE_ACCOUNTS:
                raise TooManyServiceAccountsError
            await check_given(
                uow, granter_of(principal), AccountId(account.id), before=(), after=wanted
            )
            account.assign(wanted, at=now)
            uow.service_accounts.add(account)
            current_scope().change(SERVICE_ACCOUNT, account.id, after=_trail(account))
            details = ServiceAccountDetails.of(account)
            await uow.commit(details)
        return details

    async def revise(
        self,
        principal: Principal,
        service_account_id: ServiceAccountId,
        *,
        check: CheckVersion,
        **changes: Unpack[ServiceAccountChanges],
    ) -> ServiceAccountDetails:
        """Change a service account; its keys feel it at their next request.

        Raises:
            ServiceAccountNotFoundError, ServiceAccountNameTakenError, RoleNotFoundError,
            OwnRolesError, BeyondOwnRightsError, LimitedKeyError.
        """
        now, granter = self.clock.now(), granter_of(principal)
        async with self.unit_of_work() as uow:
            account = await uow.service_accounts.get(service_account_id)
            current_scope().resource(SERVICE_ACCOUNT, service_account_id)
            check(account.version)
            before, held = _trail(account), account.role_names
            wanted = frozenset(changes.get("roles", held))
            target, status = AccountId(service_account_id), changes.get("status", account.status)
            # A role that stays needs no rights, but whoever changes anything else needs all: they
            # could switch it off, or have it taken for another one.
            is_other = bool(changes.keys() & {"name", "description", "status"})
            await check_given(
                uow,
                granter,
                target,
                before=held if is_other else held - wanted,
                after=wanted - held,
            )
            if wanted != held:
                account.assign(wanted, at=now)
            if "name" in changes or "description" in changes:
                account.describe(
                    changes.get("name", account.name),
                    changes.get("description", account.description),
                    at=now,
                )
            if status != account.status:
                account.suspend(at=now) if status == "suspended" else account.restore(at=now)
            effects = await uow.refresh_keys(service_account_id)
            current_scope().change(
                SERVICE_ACCOUNT, service_account_id, before=before, after=_trail(account)
            )
            await uow.commit()
        await self.marks.announce(effects)
        return ServiceAccountDetails.of(account)

    async def delete(
        self,
        principal: Principal,
        service_account_id: ServiceAccountId,
        *,
        check: CheckVersion,
    ) -> None:
        """Delete a service account and its keys with it.

        Raises:
            ServiceAccountNotFoundError, OwnRolesError, BeyondOwnRightsError.
        """
        async with self.unit_of_work() as uow:
            account = await uow.service_accounts.get(service_account_id)
            current_scope().resource(SERVICE_ACCOUNT, service_account_id)
            check(account.version)
            await check_given(
                uow,
                granter_of(principal),
                AccountId(service_account_id),
                before=account.role_names,
                after=(),
            )
            effects = await uow.refresh_keys(service_account_id)
            current_scope().change(SERVICE_ACCOUNT, service_account_id, before=_trail(account))
            await uow.service_accounts.remove(account)
            await uow.commit()
        await self.marks.announce(effects)


def _trail(account: ServiceAccount) -> dict[str, ChangeValue]:
    return {
        "name": account.name,
        "description": account.description,
        "status": account.status,
        "roles": tuple(names_of(account.role_names)),
    }
