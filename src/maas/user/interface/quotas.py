"""The quotas that bind oneself, and those that one binds one's own keys with."""

from fastapi import APIRouter

from maas.audit.public import audited
from maas.shared.domain.errors import may_refuse
from maas.shared.interface.security import Caller, requires
from maas.user.application.api_keys import holder_of
from maas.user.application.quota_ports import QuotaSubject
from maas.user.application.quota_settings import OwnQuotaError
from maas.user.domain.api_key import ApiKeyNotFoundError
from maas.user.domain.quota import InvalidQuotaError
from maas.user.interface.key_dependencies import KeyIdPath
from maas.user.interface.quota_dependencies import (
    SET,
    Queries,
    SheetReading,
    SheetRoute,
    SheetSetting,
)
from maas.user.interface.quota_schemas import QuotaSheetRead, QuotasUpdate
from maas.user.public import Payer

router = APIRouter(prefix="/users", tags=["self"], route_class=SheetRoute)

KEY_QUOTA = "/api-keys/{key_id}/quota"


@router.get(
    "/quota",
    dependencies=[requires("self:read")],
    summary="Read every quota that binds oneself",
    description=(
        "The tenant's, one's own, and with an API key the key's. A call is granted where each of "
        "them covers it: the least that remains is what counts."
    ),
)
async def get_own_quota(caller: Caller, queries: Queries) -> QuotaSheetRead:
    return QuotaSheetRead.model_validate(await queries.get_binding(Payer.of(caller)))


@router.get(
    KEY_QUOTA,
    dependencies=[requires("api_key:read")],
    summary="Read the quotas of one of one's own API keys",
    description="Only what binds the key itself: what binds its holder binds it as well.",
)
@may_refuse(ApiKeyNotFoundError)
async def get_key_quota(key_id: KeyIdPath, caller: Caller, reading: SheetReading) -> QuotaSheetRead:
    return await reading.read(QuotaSubject.key(key_id, holder_of(caller)))


@router.put(
    KEY_QUOTA,
    dependencies=[requires("api_key:write")],
    summary="Bind one of one's own API keys to quotas, beside what binds oneself",
    description=f"{SET} No API key does this.",
)
@audited("quota.set")
@may_refuse(ApiKeyNotFoundError, OwnQuotaError, InvalidQuotaError)
async def set_key_quota(
    key_id: KeyIdPath,
    body: QuotasUpdate,
    caller: Caller,
    setting: SheetSetting,
) -> QuotaSheetRead:
    return await setting.replace(QuotaSubject.key(key_id, holder_of(caller)), body)
