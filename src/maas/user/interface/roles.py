"""The roles of one's tenant."""

from typing import cast

from fastapi import APIRouter, Response

from maas.audit.public import audited
from maas.shared.domain.errors import may_refuse
from maas.shared.interface.etags import RequiredIfMatch, etag_of
from maas.shared.interface.idempotency import created, idempotent
from maas.shared.interface.pagination import PageRead
from maas.shared.interface.readers import StrictRoute
from maas.shared.interface.security import Caller, requires
from maas.user.application.admin_ports import RoleDetails
from maas.user.application.roles import RoleChanges
from maas.user.domain.grants import BeyondOwnRightsError, LimitedKeyError, OwnRolesError
from maas.user.domain.role import (
    ProtectedRoleError,
    RoleInUseError,
    RoleNameTakenError,
    RoleNotFoundError,
)
from maas.user.interface.admin_dependencies import (
    API,
    Directory,
    RoleNamePath,
    Roles,
)
from maas.user.interface.admin_schemas import RoleCreate, RoleRead, RoleUpdate

router = APIRouter(prefix="/admin/roles", tags=["admin"], route_class=StrictRoute)


def _location(role: RoleDetails) -> str:
    return f"{API}/admin/roles/{role.name}"


def _render(role: RoleDetails, response: Response) -> RoleRead:
    response.headers["ETag"] = etag_of(role.version)
    return RoleRead.model_validate(role)


@router.get(
    "",
    dependencies=[requires("role:read")],
    summary="List all roles, by name",
    description="All on one page, the built-in ones included: a tenant has few.",
)
async def list_roles(caller: Caller, directory: Directory) -> PageRead[RoleRead]:
    found = await directory.list_roles(caller.tenant_id)
    items = [RoleRead.model_validate(role) for role in found]
    return PageRead[RoleRead](items=items, next_cursor=None, total=None)


@router.post(
    "",
    status_code=201,
    dependencies=[requires("role:write")],
    summary="Make a role within one's own rights",
    description=(
        "A permission is `<resource>:<action>`, with `*` for either part; `*` as resource "
        "never reaches the platform's own. None may allow more than you may do."
    ),
)
@audited("role.created")
@idempotent(created(RoleRead, location=_location))
@may_refuse(RoleNameTakenError, BeyondOwnRightsError, LimitedKeyError)
async def create_role(
    body: RoleCreate, caller: Caller, roles: Roles, response: Response
) -> RoleRead:
    role = await roles.create(
        caller, name=body.name, description=body.description, permissions=body.permissions
    )
    response.headers["Location"] = _location(role)
    return _render(role, response)


@router.get(
    "/{name}",
    dependencies=[requires("role:read")],
    summary="Read a role",
    description="Anybody who may read roles may see what each allows, whether or not they hold it.",
)
@may_refuse(RoleNotFoundError)
async def get_role(
    name: RoleNamePath, caller: Caller, directory: Directory, response: Response
) -> RoleRead:
    return _render(await directory.get_role(caller.tenant_id, name), response)


@router.put(
    "/{name}",
    dependencies=[requires("role:write")],
    summary="Change what a role allows, from its holders' next request on",
    description=(
        "Only what is sent changes. Built-in roles stay as they are, and so does a role you "
        "hold, or one that allows more than you may do."
    ),
)
@audited("role.updated")
@may_refuse(
    RoleNotFoundError, ProtectedRoleError, OwnRolesError, BeyondOwnRightsError, LimitedKeyError
)
async def update_role(
    name: RoleNamePath,
    body: RoleUpdate,
    caller: Caller,
    roles: Roles,
    if_match: RequiredIfMatch,
    response: Response,
) -> RoleRead:
    changes = cast("RoleChanges", {field: getattr(body, field) for field in body.model_fields_set})
    role = await roles.revise(caller, name, check=if_match.check, **changes)
    return _render(role, response)


@router.delete(
    "/{name}",
    status_code=204,
    dependencies=[requires("role:write")],
    summary="Delete a role that nobody holds",
    description=(
        "A role that somebody holds is refused: take it from them first. Its name is free again."
    ),
)
@audited("role.deleted")
@may_refuse(
    RoleNotFoundError, ProtectedRoleError, BeyondOwnRightsError, LimitedKeyError, RoleInUseError
)
async def delete_role(
    name: RoleNamePath, caller: Caller, roles: Roles, if_match: RequiredIfMatch
) -> None:
    await roles.delete(caller, name, check=if_match.check)
