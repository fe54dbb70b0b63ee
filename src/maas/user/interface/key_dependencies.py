"""What the routes of one's own keys and of service accounts' have in common."""

from typing import Annotated, Final, cast
from uuid import UUID

from fastapi import Depends, Path, Request, Response

from maas.shared.domain.idempotency import Answer
from maas.shared.domain.ids import ApiKeyId, ServiceAccountId
from maas.shared.interface.etags import etag_of
from maas.shared.interface.idempotency import Render
from maas.user.application.api_keys import ApiKeyService, KeyChanges, KeyWish
from maas.user.application.key_ports import ApiKeyDetails, IssuedKey, KeyQueries
from maas.user.application.service_accounts import ServiceAccountService
from maas.user.domain.api_key import (
    ApiKeyNotFoundError,
    Holder,
    InvalidExpiryError,
    OutlivesCallerError,
    RotationUnderWayError,
    ScopesBeyondHolderError,
    SupersededKeyError,
    TooManyKeysError,
)
from maas.user.domain.grants import BeyondOwnRightsError, LimitedKeyError
from maas.user.interface.admin_dependencies import API
from maas.user.interface.key_schemas import (
    ApiKeyCreate,
    ApiKeyIssuedRead,
    ApiKeyRead,
    ApiKeyUpdate,
)
from maas.user.interface.permissions import UnknownScopesError

ENDING: Final = (
    ApiKeyNotFoundError,
    BeyondOwnRightsError,
    LimitedKeyError,
    SupersededKeyError,
)
"""Why a key is not ended, whosever it is; those below say the same of other acts."""

ROTATING: Final = (*ENDING, RotationUnderWayError)
CHANGING: Final = (
    *ENDING,
    ScopesBeyondHolderError,
    UnknownScopesError,
    InvalidExpiryError,
    OutlivesCallerError,
)
MAKING: Final = (
    BeyondOwnRightsError,
    ScopesBeyondHolderError,
    LimitedKeyError,
    SupersededKeyError,
    UnknownScopesError,
    InvalidExpiryError,
    OutlivesCallerError,
    TooManyKeysError,
)

ROTATED: Final = (
    "Repeat it with the same `Idempotency-Key` if the answer was lost. Without one, rotate "
    "again, but not with the secret of before: a new one that nobody has used yet is "
    "replaced, and the grace of the one before ends no later than it would have."
)
"""What the rotation of a key does, whosever it is."""


async def _keys(request: Request) -> ApiKeyService:
    return cast("ApiKeyService", request.scope["state"]["api_keys"])


async def _queries(request: Request) -> KeyQueries:
    return cast("KeyQueries", request.scope["state"]["key_queries"])


async def _service_accounts(request: Request) -> ServiceAccountService:
    return cast("ServiceAccountService", request.scope["state"]["service_accounts"])


async def _key_id(key_id: Annotated[UUID, Path(description="The key's id.")]) -> ApiKeyId:
    return ApiKeyId(key_id)


async def _service_account_id(
    service_account_id: Annotated[UUID, Path(description="The service account's id.")],
) -> ServiceAccountId:
    return ServiceAccountId(service_account_id)


Keys = Annotated[ApiKeyService, Depends(_keys)]
Queries = Annotated[KeyQueries, Depends(_queries)]
ServiceAccounts = Annotated[ServiceAccountService, Depends(_service_accounts)]
KeyIdPath = Annotated[ApiKeyId, Depends(_key_id)]
ServiceAccountIdPath = Annotated[ServiceAccountId, Depends(_service_account_id)]


def wish_of(body: ApiKeyCreate) -> KeyWish:
    return KeyWish(
        name=body.name,
        scopes=body.scopes,
        expires_at=body.expires_at,
        allowed_networks=body.allowed_networks,
        allowed_models=body.allowed_models,
        requests_per_minute=body.requests_per_minute,
    )


def changes_of(body: ApiKeyUpdate) -> KeyChanges:
    return cast("KeyChanges", {field: getattr(body, field) for field in body.model_fields_set})


def location_of(details: ApiKeyDetails, holder: Holder) -> str:
    if holder.service_account_id is None:
        return f"{API}/users/api-keys/{details.id}"
    return f"{API}/admin/service-accounts/{holder.service_account_id}/api-keys/{details.id}"


def render_key(details: ApiKeyDetails, response: Response) -> ApiKeyRead:
    response.headers["ETag"] = etag_of(details.version)
    return ApiKeyRead.model_validate(details)


def render_issued(issued: IssuedKey, response: Response) -> ApiKeyIssuedRead:
    response.headers["Location"] = location_of(issued.details, issued.holder)
    response.headers["ETag"] = etag_of(issued.version)
    return ApiKeyIssuedRead.of(issued)


def issued_with(status: int) -> Render:
    """Render a key with its text for a repeated call: the kept answer is sealed."""

    def render(issued: IssuedKey) -> Answer:
        return Answer(
            status=status,
            headers={
                "Location": location_of(issued.details, issued.holder),
                "Content-Type": "application/json",
                "ETag": etag_of(issued.version),
            },
            body=ApiKeyIssuedRead.of(issued).model_dump_json().encode(),
        )

    return render
