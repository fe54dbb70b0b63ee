"""What the routes of deployments, receipts and captures ask for."""

from typing import Annotated, cast
from uuid import UUID

from fastapi import Depends, Path, Request

from maas.inference.application.captures import CaptureService
from maas.inference.application.deployment_queries import DeploymentQueries
from maas.inference.application.deployments import DeploymentService
from maas.inference.application.receipts import ReceiptService
from maas.inference.public import DeploymentId


async def _deployments(request: Request) -> DeploymentService:
    return cast("DeploymentService", request.scope["state"]["deployments"])


async def _deployment_queries(request: Request) -> DeploymentQueries:
    return cast("DeploymentQueries", request.scope["state"]["deployment_queries"])


async def _receipts(request: Request) -> ReceiptService:
    return cast("ReceiptService", request.scope["state"]["receipts"])


async def _captures(request: Request) -> CaptureService:
    return cast("CaptureService", request.scope["state"]["captures"])


async def _deployment_id(
    deployment_id: Annotated[UUID, Path(description="The deployment's id, not its name.")],
) -> DeploymentId:
    return DeploymentId(deployment_id)


Deployments = Annotated[DeploymentService, Depends(_deployments)]
DeploymentReads = Annotated[DeploymentQueries, Depends(_deployment_queries)]
DeploymentIdPath = Annotated[DeploymentId, Depends(_deployment_id)]
Receipts = Annotated[ReceiptService, Depends(_receipts)]
Captures = Annotated[CaptureService, Depends(_captures)]
RequestIdPath = Annotated[
    str,
    Path(pattern="^[A-Za-z0-9._-]{1,128}$", description="The call's `X-Request-ID`."),
]
