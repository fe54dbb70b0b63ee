"""Roles of a tenant: made, changed and deleted within their maker's own rights."""

from collections.abc import Callable, Collection
from dataclasses import dataclass

from typing_extensions import TypedDict, Unpack

from maas.audit.public import ChangeValue, current_scope
from maas.shared.domain.clock import Clock
from maas.shared.domain.principal import Principal
from maas.user.application.admin_acts import CheckVersion, granter_of
from maas.user.application.admin_ports import (
    AdminUnitOfWork,
    RoleDetails,
    SessionEffects,
    SessionMarks,
)
from maas.user.application.admin_trail import ROLE
from maas.user.domain.role import (
    PermissionPattern,
    Role,
    RoleInUseError,
    RoleName,
    RoleNameTakenError,
    RoleNotFoundError,
    spell_permissions,
)


class RoleChanges(TypedDict, total=False):
    """What may be changed of a role; what is absent stays."""

    description: str | None
    permissions: Collection[PermissionPattern]


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleService:
    unit_of_work: Callable[[], AdminUnitOfWork]
    marks: SessionMarks
    clock: Clock

    async def create(
        self,
        principal: Principal,
        *,
        name: RoleName,
        description: str | None,
        permissions: Collection[PermissionPattern],
    ) -> RoleDetails:
        """Make a role in the caller's tenant.

        Raises:
            RoleNameTakenError, BeyondOwnRightsError.
        """
        now, spelled = self.clock.now(), spell_permissions(permissions)
        current_scope().resource(ROLE, name)
        granter_of(principal).check_define(spelled)
        role = Role(
            tenant_id=principal.tenant_id,
            name=name,
            description=description,
            permissions=spelled,
            is_protected=False,
            created_at=now,
            updated_at=now,
        )
        async with self.unit_of_work() as uow:
            if await _exists(uow, name):
                raise RoleNameTakenError
            uow.roles.add(role)
            current_scope().change(ROLE, name, after=_trail(role))
            details = RoleDetails.of(role)
            await uow.commit(details)
        return details

    async def revise(
        self,
        principal: Principal,
        name: RoleName,
        *,
        check: CheckVersion,
        **changes: Unpack[RoleChanges],
    ) -> RoleDetails:
        """Change what a role allows, for its holders from their next request on.

        Raises:
            RoleNotFoundError, ProtectedRoleError, OwnRolesError, BeyondOwnRightsError.
        """
        effects, now = SessionEffects(), self.clock.now()
        async with self.unit_of_work() as uow:
            # Before any session can be opened with the old rights that this would miss.
            await uow.lock_tenant(principal.tenant_id)
            role = await uow.roles.get(name)
            current_scope().resource(ROLE, name)
            check(role.version)
            before = _trail(role)
            wanted = changes.get("permissions")
            spelled = role.permissions if wanted is None else spell_permissions(wanted)
            granter_of(principal).check_redefine(
                role,
                permissions=spelled,
                is_own=name in await uow.roles.list_held(principal.account_id),
            )
            if "description" in changes:
                role.describe(changes["description"], at=now)
            if wanted is not None:
                role.allow(wanted, at=now)
                effects = await uow.sessions.refresh_holders(name)
            current_scope().change(ROLE, name, before=before, after=_trail(role))
            await uow.commit()
        await self.marks.announce(effects)
        return RoleDetails.of(role)

    async def delete(self, principal: Principal, name: RoleName, *, check: CheckVersion) -> None:
        """Delete a role that nobody holds.

        Raises:
            RoleNotFoundError, ProtectedRoleError, BeyondOwnRightsError, RoleInUseError.
        """
        async with self.unit_of_work() as uow:
            role = await uow.roles.get(name)
            current_scope().resource(ROLE, name)
            check(role.version)
            granter_of(principal).check_redefine(role, permissions=(), is_own=False)
            if await uow.roles.is_held(name):
                raise RoleInUseError
            current_scope().change(ROLE, name, before=_trail(role))
            await uow.roles.remove(role)
            await uow.commit()


async def _exists(uow: AdminUnitOfWork, name: RoleName) -> bool:
    try:
        await uow.roles.get(name)
    except RoleNotFoundError:
        return False
    return True


def _trail(role: Role) -> dict[str, ChangeValue]:
    return {"permissions": tuple(role.permissions), "description": role.description}
