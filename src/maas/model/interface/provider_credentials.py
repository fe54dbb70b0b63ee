"""Suppliers' keys: set and taken away, and never shown."""

from fastapi import APIRouter, Response

from maas.audit.public import audited
from maas.model.domain.provider import (
    CredentialNotSetError,
    InvalidSupplierKeyError,
    ProviderNotFoundError,
    ProviderOfOperatorError,
    SupplierKey,
)
from maas.model.interface.provider_dependencies import ProviderIdPath, Providers
from maas.model.interface.provider_schemas import CredentialPut, ProviderRead
from maas.model.interface.providers import render
from maas.shared.domain.errors import may_refuse
from maas.shared.interface.etags import IfMatch, RequiredIfMatch
from maas.shared.interface.readers import StrictRoute
from maas.shared.interface.security import Caller, requires

router = APIRouter(
    prefix="/providers/{provider_id}/credential", tags=["suppliers"], route_class=StrictRoute
)


@router.put(
    "",
    dependencies=[requires("provider:write")],
    summary="Set a supplier's key",
    description=(
        "It is sealed before it is kept, and shown to nobody; the one before it is gone. "
        "`If-Match` is required, so that the key goes to the address that was read; `*` says that "
        "it may go to whatever address the provider has by now."
    ),
)
@audited("provider.credential_set")
@may_refuse(InvalidSupplierKeyError, ProviderNotFoundError, ProviderOfOperatorError)
async def set_credential(
    provider_id: ProviderIdPath,
    body: CredentialPut,
    caller: Caller,
    providers: Providers,
    if_match: RequiredIfMatch,
    response: Response,
) -> ProviderRead:
    key = SupplierKey(body.api_key.get_secret_value())
    changed = await providers.set_credential(caller, provider_id, key, check=if_match.check)
    return render(changed, response)


@router.delete(
    "",
    dependencies=[requires("provider:write")],
    summary="Take a supplier's key away",
    description="The row it lay in is deleted. Make the key void at the supplier's as well.",
)
@audited("provider.credential_removed")
@may_refuse(CredentialNotSetError, ProviderNotFoundError, ProviderOfOperatorError)
async def remove_credential(
    provider_id: ProviderIdPath,
    caller: Caller,
    providers: Providers,
    if_match: IfMatch,
    response: Response,
) -> ProviderRead:
    return render(
        await providers.remove_credential(caller, provider_id, check=if_match.check), response
    )
