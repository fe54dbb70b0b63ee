"""Grants: other tenants that may read a model."""

from fastapi import APIRouter, Response

from maas.audit.public import audited
from maas.model.domain.model import (
    GrantToSelfError,
    ModelGrantNotFoundError,
    ModelNotFoundError,
    NotModelOwnerError,
    TooManyGrantsError,
)
from maas.model.interface.dependencies import ModelIdPath, Models, Queries
from maas.shared.domain.errors import may_refuse
from maas.shared.domain.ids import TenantId
from maas.shared.interface.grants import GranteePath, GrantRead
from maas.shared.interface.pagination import PageRead, Paging
from maas.shared.interface.readers import StrictRoute
from maas.shared.interface.security import Caller, requires

router = APIRouter(prefix="/models/{model_id}/grants", tags=["models"], route_class=StrictRoute)


@router.get(
    "",
    dependencies=[requires("model:read")],
    summary="List the tenants a model is granted to, newest first",
    description="Of the own tenant's models alone: no tenant is told who else has a grant.",
)
@may_refuse(ModelNotFoundError)
async def list_grants(
    model_id: ModelIdPath, caller: Caller, queries: Queries, page: Paging
) -> PageRead[GrantRead]:
    found = await queries.list_grants(caller, model_id, page)
    return PageRead[GrantRead].of(found, GrantRead.model_validate)


@router.put(
    "/{tenant_id}",
    status_code=201,
    dependencies=[requires("model:write")],
    summary="Let another tenant read a model",
    description=(
        "Its accounts read the model, its versions and files, and change nothing. Only the owner "
        "and holders of `model:manage` grant. Answers 201 for a new grant, 200 for one there was. "
        "Whether there is such a tenant is not told. A grant rests while the model is private."
    ),
    responses={200: {"model": GrantRead, "description": "Granted before."}},
)
@audited("model.granted")
@may_refuse(ModelNotFoundError, NotModelOwnerError, GrantToSelfError, TooManyGrantsError)
async def grant_model(
    model_id: ModelIdPath,
    tenant_id: GranteePath,
    caller: Caller,
    models: Models,
    response: Response,
) -> GrantRead:
    grant, is_new = await models.grant(caller, model_id, TenantId(tenant_id))
    response.status_code = 201 if is_new else 200
    return GrantRead.model_validate(grant)


@router.delete(
    "/{tenant_id}",
    status_code=204,
    dependencies=[requires("model:write")],
    summary="Let another tenant read a model no longer",
    description="From its next request on; what it has downloaded it keeps.",
)
@audited("model.revoked")
@may_refuse(ModelNotFoundError, NotModelOwnerError, ModelGrantNotFoundError)
async def revoke_model(
    model_id: ModelIdPath, tenant_id: GranteePath, caller: Caller, models: Models
) -> None:
    await models.revoke(caller, model_id, TenantId(tenant_id))
