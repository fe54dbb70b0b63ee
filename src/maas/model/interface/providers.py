"""Suppliers: connected, found, changed, let go."""

from typing import Annotated, cast

from fastapi import APIRouter, Depends, Query, Response

from maas.audit.public import audited
from maas.model.application.provider_queries import ProviderDetails, ProviderFilter
from maas.model.application.providers import NewProvider
from maas.model.application.providers import ProviderUpdate as Changes
from maas.model.domain.provider import (
    ApiVersionNotUsedError,
    BaseUrlMissingError,
    ProviderNameTakenError,
    ProviderNotFoundError,
    ProviderOfOperatorError,
    TargetRefusedError,
    TooManyProvidersError,
)
from maas.model.domain.provider_types import PROVIDER_TYPES
from maas.model.interface.answers import API
from maas.model.interface.provider_dependencies import ProviderIdPath, ProviderReads, Providers
from maas.model.interface.provider_schemas import (
    ProviderCreate,
    ProviderRead,
    ProviderTypeRead,
    ProviderUpdate,
)
from maas.model.public import ProviderKind, ProviderStatus
from maas.shared.domain.errors import may_refuse
from maas.shared.interface.etags import RequiredIfMatch, etag_of
from maas.shared.interface.idempotency import created_with_etag, idempotent
from maas.shared.interface.pagination import PageRead, Paging
from maas.shared.interface.readers import StrictRoute
from maas.shared.interface.security import Caller, requires

router = APIRouter(tags=["suppliers"], route_class=StrictRoute)


def _location(provider: ProviderDetails) -> str:
    return f"{API}/providers/{provider.id}"


def render(provider: ProviderDetails, response: Response) -> ProviderRead:
    """Show a provider, with its ETag."""
    response.headers["ETag"] = etag_of(provider.revision)
    return ProviderRead.model_validate(provider)


@router.get(
    "/provider-types",
    dependencies=[requires("provider:read")],
    summary="List the types of suppliers there are",
    description=(
        "All on one page: what each speaks, where it is if it is in one place, and where people "
        "make keys for it. They come with the platform's version."
    ),
)
async def list_provider_types() -> PageRead[ProviderTypeRead]:
    items = [ProviderTypeRead.model_validate(each) for each in PROVIDER_TYPES.values()]
    return PageRead[ProviderTypeRead](items=items, next_cursor=None, total=None)


async def _wanted(
    type: Annotated[ProviderKind | None, Query(description="Those of one type.")] = None,  # noqa: A002  its name on the wire
    status: Annotated[ProviderStatus | None, Query(description="Those in one status.")] = None,
) -> ProviderFilter:
    return ProviderFilter(type=type, status=status)


@router.get(
    "/providers",
    dependencies=[requires("provider:read")],
    summary="List the tenant's suppliers, newest first",
    description="Its own, and those of other tenants that are granted to it.",
)
async def list_providers(
    caller: Caller,
    queries: ProviderReads,
    wanted: Annotated[ProviderFilter, Depends(_wanted)],
    page: Paging,
) -> PageRead[ProviderRead]:
    found = await queries.list_providers(caller, wanted, page)
    return PageRead[ProviderRead].of(found, ProviderRead.model_validate)


@router.post(
    "/providers",
    status_code=201,
    dependencies=[requires("provider:write")],
    summary="Connect a supplier",
    description=(
        "An account at one address. Its key is set apart, by `PUT /providers/{id}/credential`. "
        "Names are unique among the tenant's providers, deleted ones not counted."
    ),
)
@audited("provider.created")
@idempotent(created_with_etag(ProviderRead, location=_location))
@may_refuse(
    ApiVersionNotUsedError,
    BaseUrlMissingError,
    ProviderNameTakenError,
    TargetRefusedError,
    TooManyProvidersError,
)
async def create_provider(
    body: ProviderCreate, caller: Caller, providers: Providers, response: Response
) -> ProviderRead:
    new = NewProvider(
        name=body.name,
        type=body.type,
        base_url=body.base_url,
        api_version=body.api_version,
        description=body.description,
        status=body.status,
    )
    provider = await providers.create(caller, new)
    response.headers["Location"] = _location(provider)
    return render(provider, response)


@router.get(
    "/providers/{provider_id}",
    dependencies=[requires("provider:read")],
    summary="Read a supplier",
    description=(
        "Everything about it but its key. Another tenant's is found if it is granted to the "
        "caller's, without its address."
    ),
)
@may_refuse(ProviderNotFoundError)
async def get_provider(
    provider_id: ProviderIdPath, caller: Caller, queries: ProviderReads, response: Response
) -> ProviderRead:
    return render(await queries.get_provider(caller, provider_id), response)


@router.put(
    "/providers/{provider_id}",
    dependencies=[requires("provider:write")],
    summary="Change a supplier",
    description=(
        "Only what is sent changes. With another type or base URL, were it another path "
        "alone, the credential is deleted, for it was given for the old address: "
        "`credential_set_at` is null then, and the key is to be set again. Another type without "
        "`base_url` goes to the type's own."
    ),
)
@audited("provider.updated")
@may_refuse(
    ApiVersionNotUsedError,
    BaseUrlMissingError,
    ProviderNameTakenError,
    ProviderNotFoundError,
    ProviderOfOperatorError,
    TargetRefusedError,
)
async def update_provider(
    provider_id: ProviderIdPath,
    body: ProviderUpdate,
    caller: Caller,
    providers: Providers,
    if_match: RequiredIfMatch,
    response: Response,
) -> ProviderRead:
    changes = cast("Changes", {name: getattr(body, name) for name in body.model_fields_set})
    revised = await providers.revise(caller, provider_id, check=if_match.check, **changes)
    return render(revised, response)


@router.delete(
    "/providers/{provider_id}",
    status_code=204,
    dependencies=[requires("provider:write")],
    summary="Delete a supplier, and its credential at once",
    description=(
        "It is called no longer, by nobody it was granted to either, and its name is free again. "
        "It cannot be restored; what it was used for stays on record."
    ),
)
@audited("provider.deleted")
@may_refuse(ProviderNotFoundError, ProviderOfOperatorError)
async def delete_provider(
    provider_id: ProviderIdPath, caller: Caller, providers: Providers, if_match: RequiredIfMatch
) -> None:
    await providers.delete(caller, provider_id, check=if_match.check)
