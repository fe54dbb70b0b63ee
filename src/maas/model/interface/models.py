"""Models: made, found, changed, deleted."""

from typing import Annotated, cast
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response

from maas.audit.public import audited
from maas.model.application.models import NewModel
from maas.model.application.queries import ModelDetails, ModelFilter
from maas.model.domain.model import ModelChanges, ModelNameTakenError, ModelNotFoundError
from maas.model.domain.text import MAX_LABEL_CHARS
from maas.model.interface.answers import API, created_with_etag
from maas.model.interface.dependencies import ModelIdPath, Models, Queries, queries_of
from maas.model.interface.schemas import ModelCreate, ModelRead, ModelUpdate
from maas.model.public import Framework, ModelId
from maas.shared.domain.errors import may_refuse
from maas.shared.interface.etags import IfMatch, etag_of
from maas.shared.interface.idempotency import idempotent
from maas.shared.interface.pagination import PageRead, Paging
from maas.shared.interface.readers import StrictRoute
from maas.shared.interface.security import Caller, known_caller, requires
from maas.shared.interface.types import Search

router = APIRouter(prefix="/models", tags=["models"], route_class=StrictRoute)


def _location(model: ModelDetails) -> str:
    return f"{API}/models/{model.id}"


def _render(model: ModelDetails, response: Response) -> ModelRead:
    response.headers["ETag"] = etag_of(model.revision)
    return ModelRead.model_validate(model)


@router.get(
    "",
    dependencies=[requires("model:read")],
    summary="List models, newest first",
    description="The models of the tenant one acts in. Filters add up.",
)
async def list_models(
    caller: Caller,
    queries: Queries,
    page: Paging,
    framework: Framework | None = None,
    task: Annotated[str | None, Query(min_length=1, max_length=MAX_LABEL_CHARS)] = None,
    q: Annotated[
        Search | None,
        Query(description="A part of the name or description, in any case; no wildcards."),
    ] = None,
) -> PageRead[ModelRead]:
    wanted = ModelFilter(framework=framework, task=task, search=q)
    found = await queries.list_models(caller.tenant_id, wanted, page)
    return PageRead[ModelRead].of(found, ModelRead.model_validate)


@router.post(
    "",
    status_code=201,
    dependencies=[requires("model:write")],
    summary="Register a model",
    description=(
        "It has no versions yet. Names are unique among the tenant's models, deleted ones not "
        "counted."
    ),
)
@audited("model.created")
@idempotent(created_with_etag(ModelRead, location=_location))
@may_refuse(ModelNameTakenError)
async def create_model(
    body: ModelCreate, caller: Caller, models: Models, response: Response
) -> ModelRead:
    new = NewModel(
        name=body.name,
        framework=body.framework,
        description=body.description,
        task=body.task,
        licence=body.licence,
    )
    model = await models.register(caller, new)
    response.headers["Location"] = _location(model)
    return _render(model, response)


@router.get(
    "/{model_id}",
    dependencies=[requires("model:read")],
    summary="Read a model",
    description="What is said about it; its versions are a list of their own.",
)
@may_refuse(ModelNotFoundError)
async def get_model(model_id: UUID, request: Request, response: Response) -> ModelRead:
    tenant_id = known_caller().tenant_id
    return _render(await queries_of(request).get_model(tenant_id, ModelId(model_id)), response)


@router.put(
    "/{model_id}",
    dependencies=[requires("model:write")],
    summary="Change what is said about a model",
    description="Only what is sent changes; a new name leaves the id, and so every link, as it is.",
)
@audited("model.updated")
@may_refuse(ModelNotFoundError, ModelNameTakenError)
async def update_model(
    model_id: ModelIdPath, body: ModelUpdate, models: Models, if_match: IfMatch, response: Response
) -> ModelRead:
    changes = cast("ModelChanges", {name: getattr(body, name) for name in body.model_fields_set})
    return _render(await models.revise(model_id, check=if_match.check, **changes), response)


@router.delete(
    "/{model_id}",
    status_code=204,
    dependencies=[requires("model:delete")],
    summary="Delete a model; its name is free again",
    description=(
        "Its versions and files can no longer be read, but the bytes stay in the artifact store."
    ),
)
@audited("model.deleted")
@may_refuse(ModelNotFoundError)
async def delete_model(model_id: ModelIdPath, models: Models, if_match: IfMatch) -> None:
    await models.delete(model_id, check=if_match.check)
