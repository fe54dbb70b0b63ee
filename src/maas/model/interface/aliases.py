"""Aliases of a model: pointed at versions, and asked where they pointed."""

from typing import Annotated

from fastapi import APIRouter, Query, Response

from maas.audit.public import audited
from maas.model.application.aliases import AliasDetails
from maas.model.domain.alias import (
    AliasNotFoundError,
    AliasNotThenError,
    TooManyAliasesError,
    VersionNotReadyError,
)
from maas.model.domain.model import ModelNotFoundError
from maas.model.domain.version import VersionNotFoundError
from maas.model.interface.alias_dependencies import Aliases, AliasNamePath, AliasReads
from maas.model.interface.alias_schemas import AliasMoveRead, AliasPut, AliasRead
from maas.model.interface.answers import API
from maas.model.interface.dependencies import ModelIdPath
from maas.shared.domain.errors import may_refuse
from maas.shared.domain.page import Page
from maas.shared.interface.etags import WritePreconditions, etag_of
from maas.shared.interface.pagination import PageRead, Paging, TextPaging
from maas.shared.interface.readers import StrictRoute
from maas.shared.interface.security import Caller, requires
from maas.shared.interface.types import Instant

router = APIRouter(prefix="/models/{model_id}/aliases", tags=["models"], route_class=StrictRoute)


def _render(alias: AliasDetails, response: Response) -> AliasRead:
    response.headers["ETag"] = etag_of(alias.sequence)
    return AliasRead.model_validate(alias)


@router.get(
    "",
    dependencies=[requires("model:read")],
    summary="List a model's aliases, by name",
    description="Those that point at a version; deleted ones are known by their history alone.",
)
@may_refuse(ModelNotFoundError)
async def list_aliases(
    model_id: ModelIdPath, caller: Caller, queries: AliasReads, page: TextPaging
) -> PageRead[AliasRead]:
    found = await queries.list_aliases(caller, model_id, page)
    return PageRead[AliasRead].of(found, AliasRead.model_validate)


@router.get(
    "/{alias}",
    dependencies=[requires("model:read")],
    summary="Read where an alias points",
    description="The version it points at now, since when and why; the ETag is its last move's.",
)
@may_refuse(ModelNotFoundError, AliasNotFoundError)
async def get_alias(
    model_id: ModelIdPath,
    alias: AliasNamePath,
    caller: Caller,
    queries: AliasReads,
    response: Response,
) -> AliasRead:
    return _render(await queries.get_alias(caller, model_id, alias), response)


@router.put(
    "/{alias}",
    dependencies=[requires("model:write")],
    summary="Point an alias at a version",
    description=(
        "The version is ready or deprecated, and is not archived while an alias points at it. "
        "Answers 201 for an alias that pointed nowhere, 200 for one that moved. Each move is kept "
        "with its time and reason; pointing where the alias points already is none. `If-Match` "
        "wants the alias as it was read, `If-None-Match: *` one that points nowhere yet."
    ),
    status_code=201,
    responses={200: {"model": AliasRead, "description": "Moved, or where it pointed already."}},
)
@audited("model_alias.moved")
@may_refuse(ModelNotFoundError, VersionNotFoundError, VersionNotReadyError, TooManyAliasesError)
async def put_alias(
    model_id: ModelIdPath,
    alias: AliasNamePath,
    body: AliasPut,
    caller: Caller,
    aliases: Aliases,
    conditions: WritePreconditions,
    response: Response,
) -> AliasRead:
    pointed = await aliases.point(
        caller, model_id, alias, body.version, reason=body.reason, check=conditions.check
    )
    response.status_code = 201 if pointed.is_new else 200
    response.headers["Location"] = f"{API}/models/{model_id}/aliases/{alias}"
    return _render(pointed.alias, response)


@router.delete(
    "/{alias}",
    status_code=204,
    dependencies=[requires("model:write")],
    summary="Delete an alias; its history stays",
    description="A move to nowhere: the alias can be pointed again, and goes on counting.",
)
@audited("model_alias.deleted")
@may_refuse(ModelNotFoundError, AliasNotFoundError)
async def delete_alias(
    model_id: ModelIdPath,
    alias: AliasNamePath,
    caller: Caller,
    aliases: Aliases,
    conditions: WritePreconditions,
) -> None:
    await aliases.delete(caller, model_id, alias, check=conditions.check)


@router.get(
    "/{alias}/history",
    dependencies=[requires("model:read")],
    summary="List where an alias pointed, the newest move first",
    description=(
        "Every move since the first, of a deleted alias too; `sequence` has no gaps, `at` only "
        "grows, and `version` is null where the alias was deleted. With `at`, the one move that "
        "held at that time, 404 if the first came later."
    ),
)
@may_refuse(ModelNotFoundError, AliasNotFoundError, AliasNotThenError)
async def list_alias_moves(
    model_id: ModelIdPath,
    alias: AliasNamePath,
    caller: Caller,
    queries: AliasReads,
    page: Paging,
    at: Annotated[Instant | None, Query(description="Where did it point at that time?")] = None,
) -> PageRead[AliasMoveRead]:
    if at is None:
        found = await queries.list_moves(caller, model_id, alias, page)
    else:
        move = await queries.get_move_at(caller, model_id, alias, at)
        found = Page(items=[move], next=None, total=1 if page.include_total else None)
    return PageRead[AliasMoveRead].of(found, AliasMoveRead.model_validate)
