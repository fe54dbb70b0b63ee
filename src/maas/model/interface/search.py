"""Finding models and versions, by what is said of them and what was read in their files."""

import unicodedata
from dataclasses import replace
from typing import Annotated, cast
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request

from maas.model.application.search import Order, RegistryFilter, RegistrySearch
from maas.model.domain.text import MAX_LABEL_CHARS, MAX_TAG_CHARS
from maas.model.interface.schemas import ModelSummaryRead
from maas.model.interface.search_schemas import FacetsRead, FoundVersionRead
from maas.model.public import Framework, VersionStatus, Visibility
from maas.shared.domain.ids import AccountId
from maas.shared.interface.pagination import PageRead, Paging
from maas.shared.interface.readers import StrictRoute
from maas.shared.interface.security import Caller, require, requires
from maas.shared.interface.types import MAX_INT, Search

MAX_TAGS = 20
MAX_ALIAS_CHARS = 64

_FILTERS = (
    "Filters add up, in whatever combination. `status`, `alias`, sizes and what was read in the "
    "files hold of one version together: a model is found if it has one of which all of it is "
    "true. Where few of very many fit and no index tells which, a page may be short, or empty, and "
    "still have a `next_cursor`: go on with it."
)

_Label = Annotated[str, Query(min_length=1, max_length=MAX_LABEL_CHARS)]
_Amount = Annotated[int, Query(ge=0, le=MAX_INT)]


async def _wanted(
    q: Annotated[
        Search | None,
        Query(
            description=(
                "A part of a model's name or description, in any case; no wildcards. Of versions: "
                "of the model's name or the version's."
            )
        ),
    ] = None,
    tag: Annotated[
        list[Annotated[str, Query(min_length=1, max_length=MAX_TAG_CHARS)]] | None,
        Query(max_length=MAX_TAGS, description="May be repeated: the model has all of them."),
    ] = None,
    framework: Framework | None = None,
    task: _Label | None = None,
    licence: _Label | None = None,
    visibility: Visibility | None = None,
    owner_id: Annotated[UUID | None, Query(description="Whose the model is.")] = None,
    status: Annotated[VersionStatus | None, Query(description="A version's status.")] = None,
    alias: Annotated[
        str | None,
        Query(min_length=1, max_length=MAX_ALIAS_CHARS, description="Points at the version now."),
    ] = None,
    architecture: Annotated[_Label | None, Query(description="Read in the files.")] = None,
    quantisation: Annotated[_Label | None, Query(description="Read in the files.")] = None,
    dtype: Annotated[_Label | None, Query(description="Read in the files.")] = None,
    min_size: Annotated[_Amount | None, Query(description="Bytes of all files.")] = None,
    max_size: Annotated[_Amount | None, Query(description="Bytes of all files.")] = None,
    min_parameters: _Amount | None = None,
    max_parameters: _Amount | None = None,
    min_context_length: _Amount | None = None,
) -> RegistryFilter:
    return RegistryFilter(
        search=q,
        tags=tuple(dict.fromkeys(tag or ())),
        framework=framework,
        task=task,
        licence=licence,
        visibility=visibility,
        owner_id=None if owner_id is None else AccountId(owner_id),
        status=status,
        alias=alias,
        architecture=architecture,
        quantisation=quantisation,
        dtype=dtype,
        min_size=min_size,
        max_size=max_size,
        min_parameters=min_parameters,
        max_parameters=max_parameters,
        min_context_length=min_context_length,
    )


Wanted = Annotated[RegistryFilter, Depends(_wanted)]


async def _wanted_models(
    request: Request,
    wanted: Wanted,
    *,
    name: Annotated[
        Search | None,
        Query(
            description=(
                "All of a model's name, case included. One's own tenant has one such model at "
                "most, others that share theirs may have several."
            )
        ),
    ] = None,
    shared: Annotated[
        bool,
        Query(
            description=(
                "Other tenants' models instead: public, or granted to this tenant. They are found "
                "by what is said of the model alone, not by their versions."
            )
        ),
    ] = False,
    deleted: Annotated[
        bool, Query(description="Deleted models instead; needs `model:delete`.")
    ] = False,
) -> RegistryFilter:
    if deleted:
        await require(request, "model:delete")
    exact = None if name is None else unicodedata.normalize("NFC", name)
    return replace(wanted, name=exact, is_shared=shared, is_deleted=deleted)


async def _search(request: Request) -> RegistrySearch:
    return cast("RegistrySearch", request.scope["state"]["model_search"])


WantedModels = Annotated[RegistryFilter, Depends(_wanted_models)]
Registry = Annotated[RegistrySearch, Depends(_search)]
Sorted = Annotated[Order, Query(description="By when it was made.")]

router = APIRouter(tags=["models"], route_class=StrictRoute)


@router.get(
    "/models",
    dependencies=[requires("model:read")],
    summary="Find models, newest or oldest first",
    description=f"The models of the tenant one acts in. {_FILTERS}",
)
async def list_models(
    caller: Caller,
    registry: Registry,
    wanted: WantedModels,
    page: Paging,
    order: Sorted = "newest",
) -> PageRead[ModelSummaryRead]:
    found = await registry.find_models(caller, wanted, page, order)
    return PageRead[ModelSummaryRead].of(found, ModelSummaryRead.model_validate)


@router.get(
    "/models/facets",
    dependencies=[requires("model:read")],
    summary="Count what is found, by its values",
    description=(
        "Of the newest 2,000 models and the newest 2,000 versions that the filters find, or of "
        "fewer where finding them takes too long: how many have which value, the 50 most frequent "
        "of each. The answer says how many were counted, and whether those are all. Framework, "
        "task, tag and licence count models, the others versions. Where filters are about versions "
        f"and there is no text, the models counted are those of the versions counted. {_FILTERS}"
    ),
)
async def count_facets(caller: Caller, registry: Registry, wanted: Wanted) -> FacetsRead:
    return FacetsRead.of(await registry.count_facets(caller, wanted))


@router.get(
    "/model-versions",
    dependencies=[requires("model:read")],
    summary="Find versions of all models, newest or oldest first",
    description=f"Of every model of the tenant one acts in. {_FILTERS}",
)
async def find_versions(
    caller: Caller,
    registry: Registry,
    wanted: Wanted,
    page: Paging,
    order: Sorted = "newest",
) -> PageRead[FoundVersionRead]:
    found = await registry.find_versions(caller, wanted, page, order)
    return PageRead[FoundVersionRead].of(found, FoundVersionRead.model_validate)
