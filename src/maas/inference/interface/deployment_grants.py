"""Grants: other tenants that may call a deployment."""

from fastapi import APIRouter, Response

from maas.audit.public import audited
from maas.inference.domain.deployment import (
    DeploymentGrantNotFoundError,
    DeploymentGrantToSelfError,
    DeploymentNotFoundError,
    DeploymentOfOperatorError,
    TooManyDeploymentGrantsError,
)
from maas.inference.interface.dependencies import DeploymentIdPath, DeploymentReads, Deployments
from maas.shared.domain.errors import may_refuse
from maas.shared.domain.ids import TenantId
from maas.shared.interface.grants import GranteePath, GrantRead
from maas.shared.interface.pagination import PageRead, Paging
from maas.shared.interface.readers import StrictRoute
from maas.shared.interface.security import Caller, requires

router = APIRouter(
    prefix="/deployments/{deployment_id}/grants", tags=["serving"], route_class=StrictRoute
)


@router.get(
    "",
    dependencies=[requires("deployment:read")],
    summary="List the tenants a deployment is granted to, newest first",
    description="Of the own tenant's deployments alone: no tenant is told who else has a grant.",
)
@may_refuse(DeploymentNotFoundError)
async def list_deployment_grants(
    deployment_id: DeploymentIdPath, caller: Caller, queries: DeploymentReads, page: Paging
) -> PageRead[GrantRead]:
    found = await queries.list_grants(caller, deployment_id, page)
    return PageRead[GrantRead].of(found, GrantRead.model_validate)


@router.put(
    "/{tenant_id}",
    status_code=201,
    dependencies=[requires("deployment:write")],
    summary="Let another tenant call a deployment",
    description=(
        "Wants `platform:deployments` as well, for the other tenant is not asked. It calls by the "
        "rights of the deployment's own tenant to its targets, pays itself, and is not told what "
        "answers. Answers 201 for a new grant, 200 for one there was. Whether there is such a "
        "tenant is not told."
    ),
    responses={200: {"model": GrantRead, "description": "Granted before."}},
)
@audited("deployment.granted")
@may_refuse(
    DeploymentGrantToSelfError,
    DeploymentNotFoundError,
    DeploymentOfOperatorError,
    TooManyDeploymentGrantsError,
)
async def grant_deployment(
    deployment_id: DeploymentIdPath,
    tenant_id: GranteePath,
    caller: Caller,
    deployments: Deployments,
    response: Response,
) -> GrantRead:
    grant, is_new = await deployments.grant(caller, deployment_id, TenantId(tenant_id))
    response.status_code = 201 if is_new else 200
    return GrantRead.model_validate(grant)


@router.delete(
    "/{tenant_id}",
    status_code=204,
    dependencies=[requires("deployment:write")],
    summary="Let another tenant call a deployment no longer",
    description="Within a second; calls that are under way end as they would have.",
)
@audited("deployment.revoked")
@may_refuse(DeploymentGrantNotFoundError, DeploymentNotFoundError)
async def revoke_deployment(
    deployment_id: DeploymentIdPath, tenant_id: GranteePath, deployments: Deployments
) -> None:
    await deployments.revoke(deployment_id, TenantId(tenant_id))
