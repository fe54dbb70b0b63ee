"""The models of suppliers: added, found, changed, taken out."""

from typing import cast

from fastapi import APIRouter, Response

from maas.audit.public import audited
from maas.model.application.provider_model_queries import ProviderModelDetails
from maas.model.application.provider_models import NewProviderModel
from maas.model.domain.provider import ProviderNotFoundError, ProviderOfOperatorError
from maas.model.domain.provider_model import (
    ProviderModelChanges,
    ProviderModelNotFoundError,
    ProviderModelTakenError,
    TooManyProviderModelsError,
)
from maas.model.interface.answers import API
from maas.model.interface.provider_dependencies import (
    ProviderIdPath,
    ProviderModelIdPath,
    ProviderModelReads,
    ProviderModels,
)
from maas.model.interface.provider_model_schemas import (
    ProviderModelCreate,
    ProviderModelRead,
    ProviderModelUpdate,
)
from maas.shared.domain.errors import may_refuse
from maas.shared.interface.etags import IfMatch, etag_of
from maas.shared.interface.idempotency import created_with_etag, idempotent
from maas.shared.interface.pagination import PageRead, Paging
from maas.shared.interface.readers import StrictRoute
from maas.shared.interface.security import Caller, requires

router = APIRouter(
    prefix="/providers/{provider_id}/models", tags=["suppliers"], route_class=StrictRoute
)


def _location(model: ProviderModelDetails) -> str:
    return f"{API}/providers/{model.provider_id}/models/{model.id}"


def _render(model: ProviderModelDetails, response: Response) -> ProviderModelRead:
    response.headers["ETag"] = etag_of(model.revision)
    return ProviderModelRead.model_validate(model)


@router.get(
    "",
    dependencies=[requires("provider:read")],
    summary="List a supplier's models, newest first",
    description="Those that were added here; what the supplier itself has, discovery tells.",
)
@may_refuse(ProviderNotFoundError)
async def list_provider_models(
    provider_id: ProviderIdPath, caller: Caller, queries: ProviderModelReads, page: Paging
) -> PageRead[ProviderModelRead]:
    found = await queries.list_models(caller, provider_id, page)
    return PageRead[ProviderModelRead].of(found, ProviderModelRead.model_validate)


@router.post(
    "",
    status_code=201,
    dependencies=[requires("provider:write")],
    summary="Add a model of a supplier",
    description="Whether the supplier has it, a connection test with its name tells.",
)
@audited("provider_model.created")
@idempotent(created_with_etag(ProviderModelRead, location=_location))
@may_refuse(
    ProviderModelTakenError,
    ProviderNotFoundError,
    ProviderOfOperatorError,
    TooManyProviderModelsError,
)
async def create_provider_model(
    provider_id: ProviderIdPath,
    body: ProviderModelCreate,
    caller: Caller,
    models: ProviderModels,
    response: Response,
) -> ProviderModelRead:
    new = NewProviderModel(
        name=body.name,
        capabilities=body.capabilities,
        context_length=body.context_length,
        max_output_tokens=body.max_output_tokens,
        status=body.status,
    )
    model = await models.add(caller, provider_id, new)
    response.headers["Location"] = _location(model)
    return _render(model, response)


@router.get(
    "/{model_id}",
    dependencies=[requires("provider:read")],
    summary="Read a model of a supplier",
    description="Another tenant's is found if its provider is granted to the caller's.",
)
@may_refuse(ProviderModelNotFoundError)
async def get_provider_model(
    provider_id: ProviderIdPath,
    model_id: ProviderModelIdPath,
    caller: Caller,
    queries: ProviderModelReads,
    response: Response,
) -> ProviderModelRead:
    return _render(await queries.get_model(caller, provider_id, model_id), response)


@router.put(
    "/{model_id}",
    dependencies=[requires("provider:write")],
    summary="Change a model of a supplier",
    description=(
        "Only what is sent changes. What it costs is set apart, under `/prices`. Its name stays: "
        "add another model under another name."
    ),
)
@audited("provider_model.updated")
@may_refuse(
    ProviderModelNotFoundError,
    ProviderNotFoundError,
    ProviderOfOperatorError,
)
async def update_provider_model(
    provider_id: ProviderIdPath,
    model_id: ProviderModelIdPath,
    body: ProviderModelUpdate,
    caller: Caller,
    models: ProviderModels,
    if_match: IfMatch,
    response: Response,
) -> ProviderModelRead:
    changes = cast(
        "ProviderModelChanges", {name: getattr(body, name) for name in body.model_fields_set}
    )
    revised = await models.revise(caller, provider_id, model_id, check=if_match.check, **changes)
    return _render(revised, response)


@router.delete(
    "/{model_id}",
    status_code=204,
    dependencies=[requires("provider:write")],
    summary="Take a model of a supplier out",
    description="It is called no longer, and its name is free again; its prices stay on record.",
)
@audited("provider_model.deleted")
@may_refuse(ProviderModelNotFoundError, ProviderNotFoundError, ProviderOfOperatorError)
async def delete_provider_model(
    provider_id: ProviderIdPath,
    model_id: ProviderModelIdPath,
    caller: Caller,
    models: ProviderModels,
    if_match: IfMatch,
) -> None:
    await models.delete(caller, provider_id, model_id, check=if_match.check)
