"""Versions of a model: made, found, led through their life."""

from typing import cast

from fastapi import APIRouter, Response

from maas.audit.public import audited
from maas.model.application.queries import VersionDetails
from maas.model.application.versions import NewVersion
from maas.model.domain.alias import VersionAliasedError
from maas.model.domain.model import ModelNotFoundError
from maas.model.domain.resumable import UploadsUnderWayError
from maas.model.domain.source import SourceNotFoundError
from maas.model.domain.version import (
    LineageFrozenError,
    TransitionRefusedError,
    VersionChanges,
    VersionEmptyError,
    VersionInUseError,
    VersionNotFoundError,
    VersionTakenError,
)
from maas.model.interface.answers import API, BYTES_STAY
from maas.model.interface.dependencies import ModelIdPath, Queries, VersionNamePath, Versions
from maas.model.interface.schemas import (
    TransitionRead,
    VersionCreate,
    VersionRead,
    VersionTransition,
    VersionUpdate,
)
from maas.shared.domain.errors import may_refuse
from maas.shared.interface.etags import IfMatch, etag_of
from maas.shared.interface.idempotency import created_with_etag, idempotent
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
    description="Of every status, archived ones included.",
)
@may_refuse(ModelNotFoundError)
async def list_versions(
    model_id: ModelIdPath, caller: Caller, queries: Queries, page: Paging
) -> PageRead[VersionRead]:
    found = await queries.list_versions(caller, model_id, page)
    return PageRead[VersionRead].of(found, VersionRead.model_validate)


@router.post(
    "",
    status_code=201,
    dependencies=[requires("model:write")],
    summary="Make an empty version",
    description=(
        "It begins as `pending`. Its name is the caller's own, unique in the model, and never "
        "changes. A version it is fine-tuned from must be one that the caller reads."
    ),
)
@audited("model_version.created")
@idempotent(created_with_etag(VersionRead, location=_location))
@may_refuse(ModelNotFoundError, VersionTakenError, SourceNotFoundError)
async def create_version(
    model_id: ModelIdPath,
    body: VersionCreate,
    caller: Caller,
    versions: Versions,
    response: Response,
) -> VersionRead:
    new = NewVersion(
        name=body.version,
        description=body.description,
        source=body.source.to_domain(),
        metrics=body.metrics,
        metadata=body.metadata,
    )
    version = await versions.create(caller, model_id, new)
    response.headers["Location"] = _location(version)
    return _render(version, response)


@router.get(
    "/{version}",
    dependencies=[requires("model:read")],
    summary="Read a version",
    description="`size` and `file_count` are those of the files that are there now.",
)
@may_refuse(ModelNotFoundError, VersionNotFoundError)
async def get_version(
    model_id: ModelIdPath,
    version: VersionNamePath,
    caller: Caller,
    queries: Queries,
    response: Response,
) -> VersionRead:
    return _render(await queries.get_version(caller, model_id, version), response)


@router.put(
    "/{version}",
    dependencies=[requires("model:write")],
    summary="Change what is said about a version",
    description=(
        "Description, metrics and metadata in every status: they are no part of what was "
        "published. The source until the version is ready."
    ),
)
@audited("model_version.updated")
@may_refuse(ModelNotFoundError, VersionNotFoundError, LineageFrozenError, SourceNotFoundError)
async def update_version(
    model_id: ModelIdPath,
    version: VersionNamePath,
    body: VersionUpdate,
    versions: Versions,
    if_match: IfMatch,
    response: Response,
) -> VersionRead:
    changes = cast("VersionChanges", {name: getattr(body, name) for name in body.model_fields_set})
    if "source" in changes:
        changes["source"] = body.source.to_domain()
    revised = await versions.revise(model_id, version, check=if_match.check, **changes)
    return _render(revised, response)


@router.delete(
    "/{version}",
    status_code=204,
    dependencies=[requires("model:delete")],
    summary="Delete a version that nobody can rely on",
    description=BYTES_STAY,
)
@audited("model_version.deleted")
@may_refuse(ModelNotFoundError, VersionNotFoundError, VersionInUseError)
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
)
@audited("model_version.transitioned")
@may_refuse(
    ModelNotFoundError,
    VersionNotFoundError,
    TransitionRefusedError,
    VersionEmptyError,
    VersionAliasedError,
    UploadsUnderWayError,
)
async def move_version(
    model_id: ModelIdPath,
    version: VersionNamePath,
    body: VersionTransition,
    caller: Caller,
    versions: Versions,
    if_match: IfMatch,
    response: Response,
) -> VersionRead:
    moved = await versions.move(
        caller, model_id, version, body.status, reason=body.reason, check=if_match.check
    )
    return _render(moved, response)


@router.get(
    "/{version}/transitions",
    dependencies=[requires("model:read")],
    summary="List what a version went through, newest first",
    description="Each status it was led to, with who led it there, when and why.",
)
@may_refuse(ModelNotFoundError, VersionNotFoundError)
async def list_transitions(
    model_id: ModelIdPath, version: VersionNamePath, caller: Caller, queries: Queries, page: Paging
) -> PageRead[TransitionRead]:
    found = await queries.list_transitions(caller, model_id, version, page)
    return PageRead[TransitionRead].of(found, TransitionRead.model_validate)
