"""The services of the admin area, as routes ask for them, and what its routes may refuse."""

from typing import Annotated, Any, cast
from uuid import UUID

from fastapi import Depends, Path, Query, Request

from maas.shared.domain.ids import AccountId, TenantId
from maas.shared.interface.problems import PROBLEM_MEDIA_TYPE
from maas.shared.interface.types import Search
from maas.user.application.admin_bulk import BulkService
from maas.user.application.admin_ports import DirectoryQueries, MemberFilter
from maas.user.application.members import MemberService
from maas.user.application.roles import RoleService
from maas.user.application.tenants import TenantService
from maas.user.domain.role import RoleName
from maas.user.domain.tenant import MembershipStatus

API = "/api/v1"

_REFUSALS = {
    403: "You may not do this, or not to this person or with this role; `code` says which.",
    404: "Not there, or another tenant's.",
    409: "Taken, protected, in use, or the last of its kind; `code` says which.",
    412: "It changed since the ETag in `If-Match` was read.",
    428: "`If-Match` is required here.",
}


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Document the problems a route may answer with."""
    schema = {"$ref": "#/components/schemas/Problem"}
    return {
        status: {
            "description": _REFUSALS[status],
            "content": {PROBLEM_MEDIA_TYPE: {"schema": schema}},
        }
        for status in statuses
    }


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
