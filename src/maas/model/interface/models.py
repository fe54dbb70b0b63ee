"""Models: made, found, changed, deleted."""

from typing import cast
from uuid import UUID

from fastapi import APIRouter, Request, Response

from maas.audit.public import audited
from maas.model.application.models import NewModel
from maas.model.application.queries import ModelDetails
from maas.model.domain.model import (
    ModelChanges,
    ModelNameTakenError,
    ModelNotFoundError,
    ModelTagNotFoundError,
    NotModelOwnerError,
    OwnerNotMemberError,
    TooManyTagsError,
)
from maas.model.interface.answers import API
from maas.model.interface.dependencies import ModelIdPath, Models, TagPath, models_of, queries_of
from maas.model.interface.schemas import ModelCreate, ModelRead, ModelUpdate
from maas.model.public import ModelId
from maas.shared.domain.errors import may_refuse
from maas.shared.interface.etags import IfMatch, etag_of
from maas.shared.interface.idempotency import created_with_etag, idempotent
from maas.shared.interface.readers import StrictRoute
from maas.shared.interface.security import Caller, known_caller, requires

router = APIRouter(prefix="/models", tags=["models"], route_class=StrictRoute)


def _location(model: ModelDetails) -> str:
    return f"{API}/models/{model.id}"


def _render(model: ModelDetails, response: Response) -> ModelRead:
    response.headers["ETag"] = etag_of(model.revision)
    return ModelRead.model_validate(model)


@router.post(
    "",
    status_code=201,
    dependencies=[requires("model:write")],
    summary="Register a model",
    description=(
        "It has no versions yet, and belongs to the caller. Names are unique among the tenant's "
        "models, deleted ones not counted."
    ),
)
@audited("model.created")
@idempotent(created_with_etag(ModelRead, location=_location))
@may_refuse(ModelNameTakenError)
async def create_model(body: ModelCreate, request: Request, response: Response) -> ModelRead:
    new = NewModel(
        name=body.name,
        framework=body.framework,
        description=body.description,
        task=body.task,
        licence=body.licence,
        card=body.card,
        visibility=body.visibility,
        tags=body.tags,
        metadata=body.metadata,
    )
    model = await models_of(request).register(known_caller(), new)
    response.headers["Location"] = _location(model)
    return _render(model, response)


@router.get(
    "/{model_id}",
    dependencies=[requires("model:read")],
    summary="Read a model",
    description=(
        "What is said about it; its versions are a list of their own. Another tenant's is found if "
        "it is public or granted to the caller's."
    ),
)
@may_refuse(ModelNotFoundError)
async def get_model(model_id: UUID, request: Request, response: Response) -> ModelRead:
    found = await queries_of(request).get_model(known_caller(), ModelId(model_id))
    return _render(found, response)


@router.put(
    "/{model_id}",
    dependencies=[requires("model:write")],
    summary="Change what is said about a model",
    description=(
        "Only what is sent changes; a new name leaves the id, and so every link, as it is. Owner "
        "and visibility are for the owner to set, or for holders of `model:manage`; the "
        "new owner is an active member or service account of the tenant."
    ),
)
@audited("model.updated")
@may_refuse(ModelNotFoundError, ModelNameTakenError, NotModelOwnerError, OwnerNotMemberError)
async def update_model(
    model_id: ModelIdPath,
    body: ModelUpdate,
    caller: Caller,
    models: Models,
    if_match: IfMatch,
    response: Response,
) -> ModelRead:
    changes = cast("ModelChanges", {name: getattr(body, name) for name in body.model_fields_set})
    revised = await models.revise(caller, model_id, check=if_match.check, **changes)
    return _render(revised, response)


@router.delete(
    "/{model_id}",
    status_code=204,
    dependencies=[requires("model:delete")],
    summary="Delete a model; its name is free again",
    description=(
        "Its versions and files can no longer be read, but stay for some time, so that it can be "
        "restored."
    ),
)
@audited("model.deleted")
@may_refuse(ModelNotFoundError)
async def delete_model(model_id: ModelIdPath, models: Models, if_match: IfMatch) -> None:
    await models.delete(model_id, check=if_match.check)


@router.post(
    "/{model_id}/restore",
    dependencies=[requires("model:delete")],
    summary="Bring a deleted model back",
    description=(
        "As it was, versions and files included. If another model has its name by now, rename or "
        "delete that one first. One that is not deleted is left as it is."
    ),
)
@audited("model.restored")
@may_refuse(ModelNotFoundError, ModelNameTakenError)
async def restore_model(
    model_id: ModelIdPath, models: Models, if_match: IfMatch, response: Response
) -> ModelRead:
    return _render(await models.restore(model_id, check=if_match.check), response)


@router.put(
    "/{model_id}/tags/{tag}",
    status_code=204,
    dependencies=[requires("model:write")],
    summary="Tag a model",
    description="A second time changes nothing.",
)
@audited("model.tagged")
@may_refuse(ModelNotFoundError, TooManyTagsError)
async def tag_model(model_id: ModelIdPath, tag: TagPath, models: Models, if_match: IfMatch) -> None:
    await models.tag(model_id, tag, check=if_match.check)


@router.delete(
    "/{model_id}/tags/{tag}",
    status_code=204,
    dependencies=[requires("model:write")],
    summary="Take a tag off a model",
    description="It is found by this tag no longer.",
)
@audited("model.untagged")
@may_refuse(ModelNotFoundError, ModelTagNotFoundError)
async def untag_model(
    model_id: ModelIdPath, tag: TagPath, models: Models, if_match: IfMatch
) -> None:
    await models.untag(model_id, tag, check=if_match.check)
