"""How a deployment is doing."""

from typing import Annotated, cast

from fastapi import APIRouter, Depends, Request

from maas.inference.application.deployment_metrics import DeploymentMetricsService
from maas.inference.domain.deployment import DeploymentNotFoundError
from maas.inference.interface.dependencies import DeploymentIdPath
from maas.inference.interface.deployment_metrics_schemas import DeploymentMetricsRead
from maas.shared.domain.errors import may_refuse
from maas.shared.interface.readers import StrictRoute
from maas.shared.interface.security import Caller, requires

router = APIRouter(
    prefix="/deployments/{deployment_id}/metrics", tags=["serving"], route_class=StrictRoute
)


async def _metrics(request: Request) -> DeploymentMetricsService:
    return cast("DeploymentMetricsService", request.scope["state"]["deployment_metrics"])


@router.get(
    "",
    dependencies=[requires("deployment:read")],
    summary="See how a deployment is doing",
    description=(
        "Its calls of the last hour, of whatever tenant, and its targets at this moment. Of the "
        "own tenant's deployments alone. What each tenant used is in the usage report."
    ),
)
@may_refuse(DeploymentNotFoundError)
async def get_deployment_metrics(
    deployment_id: DeploymentIdPath,
    caller: Caller,
    metrics: Annotated[DeploymentMetricsService, Depends(_metrics)],
) -> DeploymentMetricsRead:
    return DeploymentMetricsRead.of(await metrics.get(caller, deployment_id))
