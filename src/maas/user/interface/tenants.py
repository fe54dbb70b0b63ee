"""All tenants, for who runs the platform."""

from typing import Annotated, Literal, cast

from fastapi import APIRouter, Query, Response

from maas.audit.public import audited
from maas.shared.domain.errors import may_refuse
from maas.shared.domain.ids import AccountId
from maas.shared.interface.etags import IfMatch, etag_of
from maas.shared.interface.idempotency import created, idempotent
from maas.shared.interface.pagination import PageRead, Paging
from maas.shared.interface.readers import StrictRoute
from maas.shared.interface.security import Caller, requires
from maas.shared.interface.types import Search
from maas.user.application.admin_ports import MemberDetails, TenantDetails
from maas.user.application.errors import AccountNotFoundError
from maas.user.application.tenants import TenantChanges
from maas.user.domain.grants import (
    BeyondOwnRightsError,
    LastAdminError,
    LimitedKeyError,
    OwnRolesError,
)
from maas.user.domain.role import RoleNotFoundError
from maas.user.domain.tenant import (
    DefaultTenantError,
    MemberNotFoundError,
    TenantNotFoundError,
    TenantSlugTakenError,
)
from maas.user.interface.admin_dependencies import (
    API,
    Directory,
    TenantIdPath,
    Tenants,
    UserIdPath,
    Wanted,
)
from maas.user.interface.admin_schemas import (
    RolesUpdate,
    TenantCreate,
    TenantRead,
    TenantUpdate,
    UserRead,
)

router = APIRouter(prefix="/admin/tenants", tags=["platform"], route_class=StrictRoute)


def _location(tenant: TenantDetails) -> str:
    return f"{API}/admin/tenants/{tenant.id}"


def _render(tenant: TenantDetails, response: Response) -> TenantRead:
    response.headers["ETag"] = etag_of(tenant.version)
    return TenantRead.model_validate(tenant)


def _render_member(member: MemberDetails, response: Response) -> UserRead:
    response.headers["ETag"] = etag_of(member.version)
    return UserRead.model_validate(member)


@router.get(
    "",
    dependencies=[requires("platform:tenant-read")],
    summary="List tenants",
    description="Newest first, suspended ones included, closed ones not.",
)
async def list_tenants(
    directory: Directory,
    page: Paging,
    q: Annotated[
        Search | None, Query(description="A part of the slug or name, in any case.")
    ] = None,
    status: Literal["active", "suspended"] | None = None,
) -> PageRead[TenantRead]:
    found = await directory.list_tenants(page, search=q, status=status)
    return PageRead[TenantRead].of(found, TenantRead.model_validate)


@router.post(
    "",
    status_code=201,
    dependencies=[requires("platform:tenant-write")],
    summary="Make a tenant, with the built-in roles",
    description=(
        "With `admin_id`, that account becomes its first administrator; else nobody is in it yet."
    ),
)
@audited("tenant.created")
@idempotent(created(TenantRead, location=_location))
@may_refuse(TenantSlugTakenError, AccountNotFoundError)
async def create_tenant(
    body: TenantCreate, caller: Caller, tenants: Tenants, response: Response
) -> TenantRead:
    admin_id = None if body.admin_id is None else AccountId(body.admin_id)
    tenant = await tenants.create(caller, slug=body.slug, name=body.name, admin_id=admin_id)
    response.headers["Location"] = _location(tenant)
    return _render(tenant, response)


@router.get(
    "/{tenant_id}",
    dependencies=[requires("platform:tenant-read")],
    summary="Read a tenant",
    description="A closed tenant is not there any more.",
)
@may_refuse(TenantNotFoundError)
async def get_tenant(
    tenant_id: TenantIdPath, directory: Directory, response: Response
) -> TenantRead:
    return _render(await directory.get_tenant(tenant_id), response)


@router.put(
    "/{tenant_id}",
    dependencies=[requires("platform:tenant-write")],
    summary="Rename, suspend or restore a tenant; nobody acts in a suspended one",
    description=(
        "Only what is sent changes. Suspending ends every session in it; the default tenant "
        "cannot be suspended."
    ),
)
@audited("tenant.updated")
@may_refuse(TenantNotFoundError, DefaultTenantError)
async def update_tenant(
    tenant_id: TenantIdPath,
    body: TenantUpdate,
    tenants: Tenants,
    if_match: IfMatch,
    response: Response,
) -> TenantRead:
    changes = cast("TenantChanges", {name: getattr(body, name) for name in body.model_fields_set})
    return _render(await tenants.revise(tenant_id, check=if_match.check, **changes), response)


@router.delete(
    "/{tenant_id}",
    status_code=204,
    dependencies=[requires("platform:tenant-write")],
    summary="Close a tenant for good; its rows are kept for the trail",
    description=(
        "Every session in it ends, and its slug is never given again. The default tenant stays."
    ),
)
@audited("tenant.deleted")
@may_refuse(TenantNotFoundError, DefaultTenantError)
async def delete_tenant(tenant_id: TenantIdPath, tenants: Tenants, if_match: IfMatch) -> None:
    await tenants.delete(tenant_id, check=if_match.check)


@router.get(
    "/{tenant_id}/members",
    dependencies=[requires("platform:member-read")],
    summary="Find a tenant's people, newest first",
    description="The same list as the tenant's own administrators see, for any tenant.",
)
@may_refuse(TenantNotFoundError)
async def list_members(
    tenant_id: TenantIdPath, directory: Directory, wanted: Wanted, page: Paging
) -> PageRead[UserRead]:
    tenant = await directory.get_tenant(tenant_id)
    found = await directory.list_members(tenant.id, wanted, page)
    return PageRead[UserRead].of(found, UserRead.model_validate)


@router.put(
    "/{tenant_id}/members/{user_id}",
    dependencies=[requires("platform:member-write")],
    summary="Join an account to a tenant, or change a member's roles",
    description=(
        "Replaces all roles of a member at once. Stands in that tenant's own trail. Nobody "
        "changes their own roles, or gives a platform role beyond their own rights."
    ),
)
@audited("tenant.member_put")
@may_refuse(
    TenantNotFoundError,
    AccountNotFoundError,
    MemberNotFoundError,
    RoleNotFoundError,
    OwnRolesError,
    BeyondOwnRightsError,
    LimitedKeyError,
    LastAdminError,
)
async def put_member(
    tenant_id: TenantIdPath,
    user_id: UserIdPath,
    body: RolesUpdate,
    caller: Caller,
    tenants: Tenants,
    if_match: IfMatch,
    response: Response,
) -> UserRead:
    member = await tenants.put_member(caller, tenant_id, user_id, body.roles, check=if_match.check)
    return _render_member(member, response)


@router.delete(
    "/{tenant_id}/members/{user_id}",
    status_code=204,
    dependencies=[requires("platform:member-write")],
    summary="Take a person out of a tenant",
    description=(
        "Stands in that tenant's own trail. An account that is at home there and a member of "
        "no other tenant is deleted."
    ),
)
@audited("tenant.member_removed")
@may_refuse(
    TenantNotFoundError,
    MemberNotFoundError,
    OwnRolesError,
    BeyondOwnRightsError,
    LimitedKeyError,
    LastAdminError,
)
async def remove_member(
    tenant_id: TenantIdPath,
    user_id: UserIdPath,
    caller: Caller,
    tenants: Tenants,
    if_match: IfMatch,
) -> None:
    await tenants.remove_member(caller, tenant_id, user_id, check=if_match.check)
