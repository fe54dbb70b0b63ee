"""Asking suppliers now: whether they answer, and which models they have."""

from fastapi import APIRouter

from maas.audit.public import audited
from maas.model.domain.provider import ProviderNotFoundError
from maas.model.domain.provider_check import DiscoveryFailedError, ProviderUnderTestError
from maas.model.interface.provider_check_schemas import (
    DiscoveredModelRead,
    ProviderTest,
    ProviderTestRead,
)
from maas.model.interface.provider_dependencies import ProviderChecks, ProviderIdPath
from maas.shared.domain.errors import may_refuse
from maas.shared.interface.pagination import PageRead
from maas.shared.interface.readers import StrictRoute
from maas.shared.interface.security import Caller, requires

router = APIRouter(prefix="/providers/{provider_id}", tags=["suppliers"], route_class=StrictRoute)


@router.post(
    "/test",
    dependencies=[requires("provider:write")],
    summary="Test the connection to a supplier, now",
    description=(
        "Asks for the list of models with the key that is set, and tells what is the matter and "
        "what to do. It is 200 whatever came of it: see `outcome`. Disabled providers are tested "
        "as well, another tenant's are not found. It takes up to 15 s, and 30 s with a model. One "
        "at a time for a provider, a few for a tenant."
    ),
)
@audited("provider.tested")
@may_refuse(ProviderNotFoundError, ProviderUnderTestError)
async def test_provider(
    provider_id: ProviderIdPath, body: ProviderTest, caller: Caller, checks: ProviderChecks
) -> ProviderTestRead:
    return ProviderTestRead.model_validate(await checks.test(caller, provider_id, body.model))


@router.get(
    "/discovery",
    dependencies=[requires("provider:write")],
    summary="List the models a supplier says it has",
    description=(
        "Asks the supplier now; all on one page, by name, 5000 at most. `model_id` tells which are "
        "added here. Where a connection test would fail it is 409 with the test's `outcome`."
    ),
)
@may_refuse(DiscoveryFailedError, ProviderNotFoundError, ProviderUnderTestError)
async def discover_models(
    provider_id: ProviderIdPath, caller: Caller, checks: ProviderChecks
) -> PageRead[DiscoveredModelRead]:
    found = await checks.discover(caller, provider_id)
    items = [DiscoveredModelRead.model_validate(each) for each in found]
    return PageRead[DiscoveredModelRead](items=items, next_cursor=None, total=None)
