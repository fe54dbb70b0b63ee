"""Versions of a model: made, found, led through their life."""

from typing import cast

from fastapi import APIRouter, Response

from maas.audit.public import audited
from maas.model.application.queries import VersionDetails
from maas.model.domain.version import VersionChanges
from maas.model.interface.answers import API, BYTES_STAY, created_with_etag, refusals
from maas.model.interface.dependencies import ModelIdPath, Queries, VersionNamePath, Versions
from maas.model.interface.schemas import (
    VersionCreate,
    VersionRead,
    VersionTransition,
    VersionUpdate,
)
from maas.shared.interface.etags import IfMatch, etag_of
from maas.shared.interface.idempotency import idempotent
from maas.shared.interface.pagination import PageRead, Paging
from maas.shared.interface.readers import StrictRoute
from maas.shared.interface.security import Caller, requires

router = APIRouter(prefix="/models/{model_id}/versions", tags=["models"], route_class=StrictRoute)


def _location(version: VersionDetails) -> str:
    return f"{API}/models/{version.model_id}/versions/{version.version}"


def _render(version: VersionDetails, response: Response) -> VersionRead:
    response.headers["ETag"] = etag_of(version.revision)
    return VersionRead.model_validate(version)


@router.get(
    "",
    dependencies=[requires("model:read")],
    summary="List a model's versions, newest first",
    responses=refusals(404),
)
async def list_versions(
    model_id: ModelIdPath, caller: Caller, queries: Queries, page: Paging
) -> PageRead[VersionRead]:
    found = await queries.list_versions(caller.tenant_id, model_id, page)
    return PageRead[VersionRead].of(found, VersionRead.model_validate)


@router.post(
    "",
    status_code=201,
    dependencies=[requires("model:write")],
    summary="Make an empty version",
    responses=refusals(404, 409),
)
@audited("model_version.created")
@idempotent(created_with_etag(VersionRead, location=_location))
async def create_version(
    model_id: ModelIdPath,
    body: VersionCreate,
    caller: Caller,
    versions: Versions,
    response: Response,
) -> VersionRead:
    version = await versions.create(caller, model_id, body.version, description=body.description)
    response.headers["Location"] = _location(version)
    return _render(version, response)


@router.get(
    "/{version}",
    dependencies=[requires("model:read")],
    summary="Read a version",
    responses=refusals(404),
)
async def get_version(
    model_id: ModelIdPath,
    version: VersionNamePath,
    caller: Caller,
    queries: Queries,
    response: Response,
) -> VersionRead:
    return _render(await queries.get_version(caller.tenant_id, model_id, version), response)


@router.put(
    "/{version}",
    dependencies=[requires("model:write")],
    summary="Change a version's description",
    responses=refusals(404, 412),
)
@audited("model_version.updated")
async def update_version(
    model_id: ModelIdPath,
    version: VersionNamePath,
    body: VersionUpdate,
    versions: Versions,
    if_match: IfMatch,
    response: Response,
) -> VersionRead:
    changes = cast("VersionChanges", {name: getattr(body, name) for name in body.model_fields_set})
    revised = await versions.revise(model_id, version, check=if_match.check, **changes)
    return _render(revised, response)


@router.delete(
    "/{version}",
    status_code=204,
    dependencies=[requires("model:delete")],
    summary="Delete a version that nobody can rely on",
    description=BYTES_STAY,
    responses=refusals(404, 409, 412),
)
@audited("model_version.deleted")
async def delete_version(
    model_id: ModelIdPath, version: VersionNamePath, versions: Versions, if_match: IfMatch
) -> None:
    await versions.delete(model_id, version, check=if_match.check)


@router.post(
    "/{version}/transition",
    dependencies=[requires("model:write")],
    summary="Lead a version to its next status",
    description=(
        "`pending` becomes `uploading` with the first file; then `validating`, `ready`, "
        "`deprecated`, `archived`; before `ready` also `failed`, and from there `uploading` again. "
        "From `ready` on the files never change."
    ),
    responses=refusals(404, 409, 412),
)
@audited("model_version.transitioned")
async def move_version(
    model_id: ModelIdPath,
    version: VersionNamePath,
    body: VersionTransition,
    versions: Versions,
    if_match: IfMatch,
    response: Response,
) -> VersionRead:
    moved = await versions.move(
        model_id, version, body.status, reason=body.reason, check=if_match.check
    )
    return _render(moved, response)
