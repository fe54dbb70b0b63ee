"""What suppliers' models cost: set from a moment on, and never changed after."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response

from maas.audit.public import audited
from maas.model.application.provider_model_queries import PriceDetails, PriceFilter
from maas.model.application.provider_models import NewPrice
from maas.model.domain.provider import ProviderNotFoundError, ProviderOfOperatorError
from maas.model.domain.provider_model import (
    PriceInThePastError,
    PriceNotFoundError,
    ProviderModelNotFoundError,
    TooManyCurrenciesError,
    TooManyPricesError,
)
from maas.model.interface.answers import API
from maas.model.interface.provider_dependencies import (
    PriceIdPath,
    ProviderIdPath,
    ProviderModelIdPath,
    ProviderModelReads,
    ProviderModels,
)
from maas.model.interface.provider_model_schemas import PriceCreate, PriceRead
from maas.shared.domain.errors import may_refuse
from maas.shared.interface.idempotency import created, idempotent
from maas.shared.interface.pagination import PageRead, Paging
from maas.shared.interface.readers import StrictRoute
from maas.shared.interface.security import Caller, requires
from maas.shared.interface.types import Instant

router = APIRouter(
    prefix="/providers/{provider_id}/models/{model_id}/prices",
    tags=["suppliers"],
    route_class=StrictRoute,
)


def _location(price: PriceDetails) -> str:
    return f"{API}/providers/{price.provider_id}/models/{price.model_id}/prices/{price.id}"


async def _wanted(
    currency: Annotated[
        str | None,
        Query(description="Those in one currency.", pattern="^[A-Z]{3}$", examples=["USD"]),
    ] = None,
    at: Annotated[
        Instant | None, Query(description="What held at this moment: one of each currency.")
    ] = None,
) -> PriceFilter:
    return PriceFilter(currency=currency, at=at)


@router.get(
    "",
    dependencies=[requires("provider:read")],
    summary="List what a model costs and did cost",
    description="All prices there were and will be; those that hold from latest on come first.",
)
@may_refuse(ProviderModelNotFoundError)
async def list_prices(
    provider_id: ProviderIdPath,
    model_id: ProviderModelIdPath,
    caller: Caller,
    queries: ProviderModelReads,
    wanted: Annotated[PriceFilter, Depends(_wanted)],
    page: Paging,
) -> PageRead[PriceRead]:
    found = await queries.list_prices(caller, provider_id, model_id, wanted, page)
    return PageRead[PriceRead].of(found, PriceRead.model_validate)


@router.get(
    "/{price_id}",
    dependencies=[requires("provider:read")],
    summary="Read one price of a model",
    description="As it was set, whether it holds by now or not any more: a price never changes.",
)
@may_refuse(PriceNotFoundError, ProviderModelNotFoundError)
async def get_price(
    provider_id: ProviderIdPath,
    model_id: ProviderModelIdPath,
    price_id: PriceIdPath,
    caller: Caller,
    queries: ProviderModelReads,
) -> PriceRead:
    price = await queries.get_price(caller, provider_id, model_id, price_id)
    return PriceRead.model_validate(price)


@router.post(
    "",
    status_code=201,
    dependencies=[requires("provider:write")],
    summary="Set what a model costs",
    description=(
        "Prices are decimals for a million tokens, as strings. A price holds from `valid_from` on "
        "until another one of its currency does; of two from the same moment the one set later. "
        "Nothing changes a price once it is set, so bills stay as they are."
    ),
)
@audited("provider_model.priced")
@idempotent(created(PriceRead, location=_location))
@may_refuse(
    PriceInThePastError,
    ProviderModelNotFoundError,
    ProviderNotFoundError,
    ProviderOfOperatorError,
    TooManyCurrenciesError,
    TooManyPricesError,
)
async def create_price(
    provider_id: ProviderIdPath,
    model_id: ProviderModelIdPath,
    body: PriceCreate,
    caller: Caller,
    models: ProviderModels,
    response: Response,
) -> PriceRead:
    new = NewPrice(
        currency=body.currency,
        input=body.input,
        output=body.output,
        cached=body.cached,
        reasoning=body.reasoning,
        request=body.request,
        valid_from=body.valid_from,
    )
    price = await models.set_price(caller, provider_id, model_id, new)
    response.headers["Location"] = _location(price)
    return PriceRead.model_validate(price)
