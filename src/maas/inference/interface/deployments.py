"""Deployments: named, found, changed, let go."""

from typing import Annotated, Final

from fastapi import APIRouter, Depends, Query, Response

from maas.audit.public import audited
from maas.inference.application.deployment_queries import DeploymentDetails, DeploymentFilter
from maas.inference.domain.deployment import (
    DeploymentName,
    DeploymentNameTakenError,
    DeploymentNotFoundError,
    DeploymentOfOperatorError,
    DeploymentStatus,
    InvalidDeploymentNameError,
    TargetMissingError,
    TargetTwiceError,
    TooManyDeploymentsError,
)
from maas.inference.interface.dependencies import DeploymentIdPath, DeploymentReads, Deployments
from maas.inference.interface.deployment_schemas import (
    DeploymentCreate,
    DeploymentRead,
    DeploymentUpdate,
)
from maas.shared.domain.errors import may_refuse
from maas.shared.interface.etags import RequiredIfMatch, etag_of
from maas.shared.interface.idempotency import created_with_etag, idempotent
from maas.shared.interface.pagination import PageRead, Paging
from maas.shared.interface.readers import StrictRoute
from maas.shared.interface.security import Caller, requires

API: Final = "/api/v1"

router = APIRouter(prefix="/deployments", tags=["serving"], route_class=StrictRoute)


def _location(deployment: DeploymentDetails) -> str:
    return f"{API}/deployments/{deployment.id}"


def _render(deployment: DeploymentDetails, response: Response) -> DeploymentRead:
    response.headers["ETag"] = etag_of(deployment.revision)
    return DeploymentRead.model_validate(deployment)


@may_refuse(InvalidDeploymentNameError)
async def _wanted(
    name: Annotated[str | None, Query(description="Those of this very name.")] = None,
    status: Annotated[DeploymentStatus | None, Query(description="Those in one status.")] = None,
) -> DeploymentFilter:
    return DeploymentFilter(name=None if name is None else str(DeploymentName(name)), status=status)


@router.get(
    "",
    dependencies=[requires("deployment:read")],
    summary="List what the tenant may call, newest first",
    description=(
        "Its own deployments, those granted to it, and public ones. Of two with one name the own "
        "one is called, then the one granted first, then the oldest public one."
    ),
)
async def list_deployments(
    caller: Caller,
    queries: DeploymentReads,
    wanted: Annotated[DeploymentFilter, Depends(_wanted)],
    page: Paging,
) -> PageRead[DeploymentRead]:
    found = await queries.list_deployments(caller, wanted, page)
    return PageRead[DeploymentRead].of(found, DeploymentRead.model_validate)


@router.post(
    "",
    status_code=201,
    dependencies=[requires("deployment:write")],
    summary="Give a name to what answers",
    description=(
        "Callers send the name as `model` under `/v1`. Each target is a supplier's model, or a "
        "version of a model of the registry, by its own name or by an alias. `visibility: public` "
        "wants `platform:deployments` as well."
    ),
)
@audited("deployment.created")
@idempotent(created_with_etag(DeploymentRead, location=_location))
@may_refuse(
    DeploymentNameTakenError,
    DeploymentOfOperatorError,
    TargetMissingError,
    TargetTwiceError,
    TooManyDeploymentsError,
)
async def create_deployment(
    body: DeploymentCreate, caller: Caller, deployments: Deployments, response: Response
) -> DeploymentRead:
    deployment = await deployments.create(caller, body.to_domain())
    response.headers["Location"] = _location(deployment)
    return _render(deployment, response)


@router.get(
    "/{deployment_id}",
    dependencies=[requires("deployment:read")],
    summary="Read a deployment",
    description="Another tenant's is found if the caller's may call it, without its targets.",
)
@may_refuse(DeploymentNotFoundError)
async def get_deployment(
    deployment_id: DeploymentIdPath, caller: Caller, queries: DeploymentReads, response: Response
) -> DeploymentRead:
    return _render(await queries.get_deployment(caller, deployment_id), response)


@router.put(
    "/{deployment_id}",
    dependencies=[requires("deployment:write")],
    summary="Change a deployment",
    description=(
        "Only what is sent changes, and calls go by it within a second. `targets` are set all "
        "together; one that leads where one did before is the same target. Another name for one "
        "that other tenants may call wants `platform:deployments`, as does making it public."
    ),
)
@audited("deployment.updated")
@may_refuse(
    DeploymentNameTakenError,
    DeploymentNotFoundError,
    DeploymentOfOperatorError,
    TargetMissingError,
    TargetTwiceError,
)
async def update_deployment(
    deployment_id: DeploymentIdPath,
    body: DeploymentUpdate,
    caller: Caller,
    deployments: Deployments,
    if_match: RequiredIfMatch,
    response: Response,
) -> DeploymentRead:
    changes = body.to_changes()
    revised = await deployments.revise(caller, deployment_id, check=if_match.check, **changes)
    return _render(revised, response)


@router.delete(
    "/{deployment_id}",
    status_code=204,
    dependencies=[requires("deployment:write")],
    summary="Delete a deployment",
    description=(
        "Within a second it is called no longer, and its name is free again. It cannot be "
        "restored; what it was used for stays on record."
    ),
)
@audited("deployment.deleted")
@may_refuse(DeploymentNotFoundError)
async def delete_deployment(
    deployment_id: DeploymentIdPath, deployments: Deployments, if_match: RequiredIfMatch
) -> None:
    await deployments.delete(deployment_id, check=if_match.check)
