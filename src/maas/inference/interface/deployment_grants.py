"""Grants: other tenants that may call a deployment."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Path, Response

from maas.audit.public import audited
from maas.inference.domain.deployment import (
    DeploymentGrantNotFoundError,
    DeploymentGrantToSelfError,
    DeploymentNotFoundError,
    DeploymentOfOperatorError,
    TooManyDeploymentGrantsError,
)
from maas.inference.interface.dependencies import DeploymentIdPath, DeploymentReads, Deployments
from maas.inference.interface.deployment_schemas import DeploymentGrantRead
from maas.shared.domain.errors import may_refuse
from maas.shared.domain.ids import TenantId
from maas.shared.interface.pagination import PageRead, Paging
from maas.shared.interface.readers import StrictRoute
from maas.shared.interface.security import Caller, requires

GranteePath = Annotated[UUID, Path(description="The id of the other tenant.")]

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
) -> PageRead[DeploymentGrantRead]:
    found = await queries.list_grants(caller, deployment_id, page)
    return PageRead[DeploymentGrantRead].of(found, DeploymentGrantRead.model_validate)


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
    responses={200: {"model": DeploymentGrantRead, "description": "Granted before."}},
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
) -> DeploymentGrantRead:
    grant, is_new = await deployments.grant(caller, deployment_id, TenantId(tenant_id))
    response.status_code = 201 if is_new else 200
    return DeploymentGrantRead.model_validate(grant)


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
