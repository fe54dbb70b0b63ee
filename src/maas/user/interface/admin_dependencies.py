"""The services of the admin area, as routes ask for them, and its names in paths."""

from typing import Annotated, cast
from uuid import UUID

from fastapi import Depends, Path, Query, Request

from maas.shared.domain.errors import may_refuse
from maas.shared.domain.ids import AccountId, TenantId
from maas.shared.interface.types import Search
from maas.user.application.admin_bulk import BulkService
from maas.user.application.admin_ports import DirectoryQueries, MemberFilter
from maas.user.application.members import MemberService
from maas.user.application.roles import RoleService
from maas.user.application.tenants import TenantService
from maas.user.domain.role import InvalidRoleNameError, RoleName
from maas.user.domain.tenant import MembershipStatus

API = "/api/v1"


async def _members(request: Request) -> MemberService:
    return cast("MemberService", request.scope["state"]["members"])


async def _bulk(request: Request) -> BulkService:
    return cast("BulkService", request.scope["state"]["member_bulk"])


async def _roles(request: Request) -> RoleService:
    return cast("RoleService", request.scope["state"]["roles"])


async def _tenants(request: Request) -> TenantService:
    return cast("TenantService", request.scope["state"]["tenants"])


async def _directory(request: Request) -> DirectoryQueries:
    return cast("DirectoryQueries", request.scope["state"]["directory"])


async def _user_id(user_id: Annotated[UUID, Path(description="The account's id.")]) -> AccountId:
    return AccountId(user_id)


async def _tenant_id(
    tenant_id: Annotated[UUID, Path(description="The tenant's id.")],
) -> TenantId:
    return TenantId(tenant_id)


@may_refuse(InvalidRoleNameError)
async def _role_name(
    name: Annotated[str, Path(description="The role's name.", examples=["developer"])],
) -> RoleName:
    return RoleName(name)


async def _wanted(
    q: Annotated[
        Search | None,
        Query(
            description="A part of the user name, e-mail address or display name, in any case and "
            "script; `%` and `_` are letters."
        ),
    ] = None,
    status: MembershipStatus | None = None,
    role: Annotated[str | None, Query(min_length=1, max_length=64)] = None,
) -> MemberFilter:
    return MemberFilter(search=q, status=status, role=role)


Members = Annotated[MemberService, Depends(_members)]
Bulk = Annotated[BulkService, Depends(_bulk)]
Roles = Annotated[RoleService, Depends(_roles)]
Tenants = Annotated[TenantService, Depends(_tenants)]
Directory = Annotated[DirectoryQueries, Depends(_directory)]
UserIdPath = Annotated[AccountId, Depends(_user_id)]
TenantIdPath = Annotated[TenantId, Depends(_tenant_id)]
RoleNamePath = Annotated[RoleName, Depends(_role_name)]
Wanted = Annotated[MemberFilter, Depends(_wanted)]
