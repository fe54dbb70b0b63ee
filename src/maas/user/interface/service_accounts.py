"""The service accounts of one's tenant."""

from typing import cast

from fastapi import APIRouter, Response

from maas.audit.public import audited
from maas.shared.domain.errors import may_refuse
from maas.shared.interface.etags import IfMatch, etag_of
from maas.shared.interface.idempotency import created, idempotent
from maas.shared.interface.pagination import PageRead, Paging
from maas.shared.interface.readers import StrictRoute
from maas.shared.interface.security import Caller, requires
from maas.user.application.key_ports import ServiceAccountDetails
from maas.user.application.service_accounts import ServiceAccountChanges
from maas.user.domain.grants import BeyondOwnRightsError, LimitedKeyError, OwnRolesError
from maas.user.domain.role import RoleNotFoundError
from maas.user.domain.service_account import (
    ServiceAccountNameTakenError,
    ServiceAccountNotFoundError,
    TooManyServiceAccountsError,
)
from maas.user.interface.admin_dependencies import API
from maas.user.interface.key_dependencies import Queries, ServiceAccountIdPath, ServiceAccounts
from maas.user.interface.key_schemas import (
    ServiceAccountCreate,
    ServiceAccountRead,
    ServiceAccountUpdate,
)

router = APIRouter(prefix="/admin/service-accounts", tags=["admin"], route_class=StrictRoute)


def _location(account: ServiceAccountDetails) -> str:
    return f"{API}/admin/service-accounts/{account.id}"


def _render(account: ServiceAccountDetails, response: Response) -> ServiceAccountRead:
    response.headers["ETag"] = etag_of(account.version)
    return ServiceAccountRead.model_validate(account)


@router.get(
    "",
    dependencies=[requires("service_account:read")],
    summary="List the tenant's service accounts, newest first",
    description="They are programs with roles of their own; nobody signs in as one.",
)
async def list_service_accounts(
    caller: Caller, queries: Queries, paging: Paging
) -> PageRead[ServiceAccountRead]:
    page = await queries.list_service_accounts(caller.tenant_id, paging)
    return PageRead[ServiceAccountRead].of(page, ServiceAccountRead.model_validate)


@router.post(
    "",
    status_code=201,
    dependencies=[requires("service_account:write")],
    summary="Make a service account, with roles within one's own rights",
    description="It belongs to the tenant and stays, with its keys, when its maker leaves.",
)
@audited("service_account.created")
@idempotent(created(ServiceAccountRead, location=_location))
@may_refuse(
    ServiceAccountNameTakenError,
    TooManyServiceAccountsError,
    RoleNotFoundError,
    OwnRolesError,
    BeyondOwnRightsError,
    LimitedKeyError,
)
async def create_service_account(
    body: ServiceAccountCreate, caller: Caller, accounts: ServiceAccounts, response: Response
) -> ServiceAccountRead:
    account = await accounts.create(
        caller, name=body.name, description=body.description, roles=body.roles
    )
    response.headers["Location"] = _location(account)
    return _render(account, response)


@router.get(
    "/{service_account_id}",
    dependencies=[requires("service_account:read")],
    summary="Read a service account",
    description="Its keys are listed under `/api-keys`.",
)
@may_refuse(ServiceAccountNotFoundError)
async def get_service_account(
    service_account_id: ServiceAccountIdPath, caller: Caller, queries: Queries, response: Response
) -> ServiceAccountRead:
    account = await queries.get_service_account(caller.tenant_id, service_account_id)
    return _render(account, response)


@router.put(
    "/{service_account_id}",
    dependencies=[requires("service_account:write")],
    summary="Change a service account; its keys feel it at their next request",
    description=(
        "Only what is sent changes. Roles are given and taken within your own rights, and the rest "
        "is changed by those who may do all it may. A program never changes itself, nor gives a "
        "role that it holds."
    ),
)
@audited("service_account.updated")
@may_refuse(
    ServiceAccountNotFoundError,
    ServiceAccountNameTakenError,
    RoleNotFoundError,
    OwnRolesError,
    BeyondOwnRightsError,
    LimitedKeyError,
)
async def update_service_account(
    service_account_id: ServiceAccountIdPath,
    body: ServiceAccountUpdate,
    caller: Caller,
    accounts: ServiceAccounts,
    if_match: IfMatch,
    response: Response,
) -> ServiceAccountRead:
    changes = cast(
        "ServiceAccountChanges", {field: getattr(body, field) for field in body.model_fields_set}
    )
    account = await accounts.revise(caller, service_account_id, check=if_match.check, **changes)
    return _render(account, response)


@router.delete(
    "/{service_account_id}",
    status_code=204,
    dependencies=[requires("service_account:write")],
    summary="Delete a service account and its keys",
    description="Nothing brings them back. What it did stays in the trail.",
)
@audited("service_account.deleted")
@may_refuse(ServiceAccountNotFoundError, OwnRolesError, BeyondOwnRightsError, LimitedKeyError)
async def delete_service_account(
    service_account_id: ServiceAccountIdPath,
    caller: Caller,
    accounts: ServiceAccounts,
    if_match: IfMatch,
) -> None:
    await accounts.delete(caller, service_account_id, check=if_match.check)
