"""Grants: other tenants that may call a supplier."""

from fastapi import APIRouter, Response

from maas.audit.public import audited
from maas.model.domain.provider import (
    ProviderGrantNotFoundError,
    ProviderGrantsOfOperatorError,
    ProviderGrantToSelfError,
    ProviderNotFoundError,
    ProviderOfOperatorError,
    TooManyProviderGrantsError,
)
from maas.model.interface.provider_dependencies import ProviderIdPath, ProviderReads, Providers
from maas.shared.domain.errors import may_refuse
from maas.shared.domain.ids import TenantId
from maas.shared.interface.grants import GranteePath, GrantRead
from maas.shared.interface.pagination import PageRead, Paging
from maas.shared.interface.readers import StrictRoute
from maas.shared.interface.security import Caller, requires

router = APIRouter(
    prefix="/providers/{provider_id}/grants", tags=["suppliers"], route_class=StrictRoute
)


@router.get(
    "",
    dependencies=[requires("provider:read")],
    summary="List the tenants a supplier is granted to, newest first",
    description="Of the own tenant's suppliers alone: no tenant is told who else has a grant.",
)
@may_refuse(ProviderNotFoundError)
async def list_provider_grants(
    provider_id: ProviderIdPath, caller: Caller, queries: ProviderReads, page: Paging
) -> PageRead[GrantRead]:
    found = await queries.list_grants(caller, provider_id, page)
    return PageRead[GrantRead].of(found, GrantRead.model_validate)


@router.put(
    "/{tenant_id}",
    status_code=201,
    dependencies=[requires("provider:write")],
    summary="Let another tenant call a supplier",
    description=(
        "Wants `platform:suppliers` as well, for the other tenant is not asked. "
        "It sees the supplier's name, type, status and models, not its address or anything of its "
        "key, and changes nothing. Answers 201 for a new grant, 200 for one there was. Whether "
        "there is such a tenant is not told."
    ),
    responses={200: {"model": GrantRead, "description": "Granted before."}},
)
@audited("provider.granted")
@may_refuse(
    ProviderGrantsOfOperatorError,
    ProviderGrantToSelfError,
    ProviderNotFoundError,
    TooManyProviderGrantsError,
)
async def grant_provider(
    provider_id: ProviderIdPath,
    tenant_id: GranteePath,
    caller: Caller,
    providers: Providers,
    response: Response,
) -> GrantRead:
    grant, is_new = await providers.grant(caller, provider_id, TenantId(tenant_id))
    response.status_code = 201 if is_new else 200
    return GrantRead.model_validate(grant)


@router.delete(
    "/{tenant_id}",
    status_code=204,
    dependencies=[requires("provider:write")],
    summary="Let another tenant call a supplier no longer",
    description="From its next request on; calls that are under way end as they would have.",
)
@audited("provider.revoked")
@may_refuse(ProviderGrantNotFoundError, ProviderNotFoundError, ProviderOfOperatorError)
async def revoke_provider(
    provider_id: ProviderIdPath, tenant_id: GranteePath, caller: Caller, providers: Providers
) -> None:
    await providers.revoke(caller, provider_id, TenantId(tenant_id))
