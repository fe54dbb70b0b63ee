"""Tenants and who belongs to them, as the platform's administrators see to it."""

from collections.abc import Callable, Collection
from dataclasses import dataclass

from typing_extensions import TypedDict, Unpack

from maas.audit.public import ChangeValue, audit_row, current_scope
from maas.shared.domain.clock import Clock
from maas.shared.domain.ids import AccountId, TenantId, new_id
from maas.shared.domain.principal import Principal
from maas.user.application.admin_acts import (
    AccessActs,
    CheckVersion,
    check_given,
    platform_granter_of,
)
from maas.user.application.admin_ports import (
    AdminUnitOfWork,
    MemberDetails,
    SessionEffects,
    SessionMarks,
    TenantDetails,
    names_of,
)
from maas.user.application.admin_trail import MEMBER, TENANT
from maas.user.domain.role import Role, RoleName
from maas.user.domain.tenant import Slug, Tenant, TenantSlugTakenError, TenantStatus
from maas.user.public import BUILT_IN_ROLES

ADMIN_ROLE = RoleName("admin")


class TenantChanges(TypedDict, total=False):
    """What may be changed of a tenant; what is absent stays."""

    name: str
    status: TenantStatus
    status_reason: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantService:
    unit_of_work: Callable[[], AdminUnitOfWork]
    acts: AccessActs
    marks: SessionMarks
    clock: Clock

    async def create(
        self, principal: Principal, *, slug: Slug, name: str, admin_id: AccountId | None
    ) -> TenantDetails:
        """Make a tenant with the built-in roles and, if told, its first administrator.

        The first administrator may be the caller: nobody else is in the tenant yet.

        Raises:
            TenantSlugTakenError, AccountNotFoundError, LimitedKeyError.
        """
        now = self.clock.now()
        if admin_id is not None:
            platform_granter_of(principal).check_unlimited()
        tenant = Tenant(
            id=TenantId(new_id()),
            slug=slug,
            name=name,
            status="active",
            status_reason=None,
            created_at=now,
            updated_at=now,
        )
        async with self.unit_of_work() as uow:
            if await uow.tenants.is_slug_taken(slug):
                raise TenantSlugTakenError
            uow.tenants.add(tenant)
            await uow.act_in(tenant.id)
            for role, permissions in BUILT_IN_ROLES.items():
                uow.roles.add(
                    Role(
                        tenant_id=tenant.id,
                        name=RoleName(role),
                        description=None,
                        permissions=sorted(permissions),
                        is_protected=True,
                        created_at=now,
                        updated_at=now,
                    )
                )
            if admin_id is not None:
                await uow.act_in(tenant.id)
                admin = await uow.accounts.get(admin_id)
                self.acts.join(uow, admin.id, tenant.id, [ADMIN_ROLE])
                with audit_row("tenant.member_put") as row:
                    row.tenant_id = tenant.id
                    row.change(
                        MEMBER,
                        admin.id,
                        after={"status": "active", "roles": names_of([ADMIN_ROLE])},
                    )
            await uow.act_in(principal.tenant_id)
            with audit_row("tenant.created") as row:
                row.change(TENANT, tenant.id, after=_trail(tenant))
            details = TenantDetails.of(tenant)
            await uow.commit(details)
        return details

    async def revise(
        self, tenant_id: TenantId, *, check: CheckVersion, **changes: Unpack[TenantChanges]
    ) -> TenantDetails:
        """Rename, suspend or restore a tenant; nobody acts in a suspended one.

        Raises:
            TenantNotFoundError, DefaultTenantError.
        """
        effects, now = SessionEffects(), self.clock.now()
        async with self.unit_of_work() as uow:
            tenant = await uow.tenants.get(tenant_id)
            current_scope().resource(TENANT, tenant_id)
            check(tenant.version)
            before, status = _trail(tenant), changes.get("status", tenant.status)
            if "name" in changes:
                tenant.rename(changes["name"], at=now)
            if status == "suspended":
                tenant.suspend(changes.get("status_reason", tenant.status_reason), at=now)
                effects = await uow.sessions.end_tenant(tenant_id, at=now)
            elif tenant.status != "active":
                tenant.restore(at=now)
            current_scope().change(TENANT, tenant_id, before=before, after=_trail(tenant))
            await uow.commit()
        await self.marks.announce(effects)
        return TenantDetails.of(tenant)

    async def delete(self, tenant_id: TenantId, *, check: CheckVersion) -> None:
        """Close a tenant for good; its rows and its slug are kept for the trail.

        Raises:
            TenantNotFoundError, DefaultTenantError.
        """
        now = self.clock.now()
        async with self.unit_of_work() as uow:
            tenant = await uow.tenants.get(tenant_id)
            current_scope().resource(TENANT, tenant_id)
            check(tenant.version)
            before = _trail(tenant)
            tenant.delete(at=now)
            effects = await uow.sessions.end_tenant(tenant_id, at=now)
            current_scope().change(TENANT, tenant_id, before=before, after=_trail(tenant))
            await uow.commit()
        await self.marks.announce(effects)

    async def put_member(
        self,
        principal: Principal,
        tenant_id: TenantId,
        account_id: AccountId,
        names: Collection[RoleName],
        *,
        check: CheckVersion,
    ) -> MemberDetails:
        """Join an account to a tenant with these roles, or have a member hold exactly them.

        Raises:
            TenantNotFoundError, AccountNotFoundError, RoleNotFoundError, OwnRolesError,
            BeyondOwnRightsError, LastAdminError.
        """
        granter, wanted = platform_granter_of(principal), frozenset(names)
        effects = SessionEffects()
        async with self.unit_of_work() as uow:
            await self._enter(uow, tenant_id)
            current_scope().resource(MEMBER, account_id)
            await uow.lock_guarded_roles()
            account = await uow.accounts.get(account_id)
            membership = await uow.memberships.find(account_id)
            if membership is None:
                check(account.version)
                await check_given(uow, granter, account_id, before=(), after=wanted)
                membership = self.acts.join(uow, account_id, tenant_id, wanted)
                current_scope().change(
                    MEMBER, account_id, after={"status": "active", "roles": names_of(wanted)}
                )
            else:
                _, effects = await self.acts.assign(uow, granter, account_id, wanted, check=check)
            await uow.act_in(principal.tenant_id)
            await uow.commit()
        await self.marks.announce(effects)
        return MemberDetails.of(account, membership)

    async def remove_member(
        self,
        principal: Principal,
        tenant_id: TenantId,
        account_id: AccountId,
        *,
        check: CheckVersion,
    ) -> None:
        """Take a member out; an account at home there and nowhere else is deleted with it.

        Raises:
            TenantNotFoundError, MemberNotFoundError, OwnRolesError, BeyondOwnRightsError,
            LastAdminError.
        """
        async with self.unit_of_work() as uow:
            await self._enter(uow, tenant_id)
            effects = await self.acts.remove(
                uow, platform_granter_of(principal), account_id, tenant_id, check=check
            )
            await uow.act_in(principal.tenant_id)
            await uow.commit()
        await self.marks.announce(effects)

    async def _enter(self, uow: AdminUnitOfWork, tenant_id: TenantId) -> None:
        """Act in another tenant; what is done to its people stands in its own trail."""
        await uow.tenants.get(tenant_id)
        await uow.act_in(tenant_id)
        current_scope().tenant_id = tenant_id


def _trail(tenant: Tenant) -> dict[str, ChangeValue]:
    return {"slug": str(tenant.slug), "name": tenant.name, "status": tenant.status}
