"""Quotas of the tenant's people and programs, and of tenants."""

from fastapi import APIRouter

from maas.audit.public import audited
from maas.shared.domain.errors import may_refuse
from maas.shared.interface.security import Caller, requires
from maas.user.application.quota_ports import QuotaSubject
from maas.user.application.quota_settings import OwnQuotaError
from maas.user.domain.api_key import ApiKeyNotFoundError, Holder
from maas.user.domain.quota import InvalidQuotaError
from maas.user.domain.service_account import ServiceAccountNotFoundError
from maas.user.domain.tenant import MemberNotFoundError, TenantNotFoundError
from maas.user.interface.admin_dependencies import TenantIdPath, UserIdPath
from maas.user.interface.key_dependencies import KeyIdPath, ServiceAccountIdPath
from maas.user.interface.quota_dependencies import SET, SheetReading, SheetRoute, SheetSetting
from maas.user.interface.quota_schemas import QuotaSheetRead, QuotasUpdate

router = APIRouter(prefix="/admin", tags=["admin"], route_class=SheetRoute)
platform_router = APIRouter(prefix="/admin/tenants", tags=["platform"], route_class=SheetRoute)

USER = "/users/{user_id}/quota"
PROGRAM = "/service-accounts/{service_account_id}/quota"
PROGRAM_KEY = "/service-accounts/{service_account_id}/api-keys/{key_id}/quota"
TENANT = "/{tenant_id}/quota"


@router.get(
    "/quota",
    dependencies=[requires("quota:read")],
    summary="Read the quotas of the tenant one acts in",
    description="They bind everybody in it together; who runs the platform sets them.",
)
@may_refuse(TenantNotFoundError)
async def get_quota_of_this_tenant(caller: Caller, reading: SheetReading) -> QuotaSheetRead:
    return await reading.read(QuotaSubject.tenant(caller.tenant_id))


@router.get(
    USER,
    dependencies=[requires("quota:read")],
    summary="Read a person's quotas in this tenant",
    description="Those of the person alone: the tenant's bind everybody, a key's only the key.",
)
@may_refuse(MemberNotFoundError)
async def get_user_quota(user_id: UserIdPath, reading: SheetReading) -> QuotaSheetRead:
    return await reading.read(QuotaSubject.account(user_id))


@router.put(
    USER,
    dependencies=[requires("quota:write")],
    summary="Set what a person may use in this tenant, with all their keys",
    description=f"{SET} Nobody sets their own.",
)
@audited("quota.set")
@may_refuse(MemberNotFoundError, OwnQuotaError, InvalidQuotaError)
async def set_user_quota(
    user_id: UserIdPath,
    body: QuotasUpdate,
    setting: SheetSetting,
) -> QuotaSheetRead:
    return await setting.replace(QuotaSubject.account(user_id), body)


@router.get(
    PROGRAM,
    dependencies=[requires("quota:read")],
    summary="Read a service account's quotas",
    description="Those of the account alone, which all its keys share.",
)
@may_refuse(ServiceAccountNotFoundError)
async def get_service_account_quota(
    service_account_id: ServiceAccountIdPath, reading: SheetReading
) -> QuotaSheetRead:
    return await reading.read(QuotaSubject.service_account(service_account_id))


@router.put(
    PROGRAM,
    dependencies=[requires("quota:write")],
    summary="Set what a service account may use, with all its keys",
    description=f"{SET} A program does not set its own.",
)
@audited("quota.set")
@may_refuse(ServiceAccountNotFoundError, OwnQuotaError, InvalidQuotaError)
async def set_service_account_quota(
    service_account_id: ServiceAccountIdPath,
    body: QuotasUpdate,
    setting: SheetSetting,
) -> QuotaSheetRead:
    return await setting.replace(QuotaSubject.service_account(service_account_id), body)


@router.get(
    PROGRAM_KEY,
    dependencies=[requires("quota:read")],
    summary="Read the quotas of one of a service account's API keys",
    description="Only what binds the key itself: what binds the account binds it as well.",
)
@may_refuse(ApiKeyNotFoundError)
async def get_service_account_key_quota(
    service_account_id: ServiceAccountIdPath,
    key_id: KeyIdPath,
    reading: SheetReading,
) -> QuotaSheetRead:
    subject = QuotaSubject.key(key_id, Holder(service_account_id=service_account_id))
    return await reading.read(subject)


@router.put(
    PROGRAM_KEY,
    dependencies=[requires("quota:write")],
    summary="Bind a service account's API key to quotas, beside those of the account",
    description=f"{SET} No API key does this.",
)
@audited("quota.set")
@may_refuse(ApiKeyNotFoundError, OwnQuotaError, InvalidQuotaError)
async def set_service_account_key_quota(
    service_account_id: ServiceAccountIdPath,
    key_id: KeyIdPath,
    body: QuotasUpdate,
    setting: SheetSetting,
) -> QuotaSheetRead:
    return await setting.replace(
        QuotaSubject.key(key_id, Holder(service_account_id=service_account_id)), body
    )


@platform_router.get(
    TENANT,
    dependencies=[requires("platform:quota-read")],
    summary="Read a tenant's quotas",
    description="They bind everybody in the tenant together, whoever else has quotas there.",
)
@may_refuse(TenantNotFoundError)
async def get_tenant_quota(tenant_id: TenantIdPath, reading: SheetReading) -> QuotaSheetRead:
    return await reading.read(QuotaSubject.tenant(tenant_id), tenant_id=tenant_id)


@platform_router.put(
    TENANT,
    dependencies=[requires("platform:quota-write")],
    summary="Set what a tenant may use, with everybody in it",
    description=f"{SET} It stands in that tenant's own trail.",
)
@audited("quota.set")
@may_refuse(TenantNotFoundError, InvalidQuotaError)
async def set_tenant_quota(
    tenant_id: TenantIdPath,
    body: QuotasUpdate,
    setting: SheetSetting,
) -> QuotaSheetRead:
    return await setting.replace(QuotaSubject.tenant(tenant_id), body)
