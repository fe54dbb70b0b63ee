"""The API keys of one's tenant's service accounts."""

from datetime import timedelta

from fastapi import APIRouter, Request, Response

from maas.audit.public import audited
from maas.shared.domain.errors import may_refuse
from maas.shared.domain.ids import ServiceAccountId
from maas.shared.interface.etags import IfMatch
from maas.shared.interface.idempotency import idempotent
from maas.shared.interface.pagination import PageRead, Paging
from maas.shared.interface.readers import StrictRoute
from maas.shared.interface.security import Caller, requires
from maas.user.domain.api_key import ApiKeyNotFoundError, Holder
from maas.user.domain.service_account import ServiceAccountNotFoundError
from maas.user.interface.key_dependencies import (
    CHANGING,
    ENDING,
    MAKING,
    ROTATED,
    ROTATING,
    KeyIdPath,
    Keys,
    Queries,
    ServiceAccountIdPath,
    changes_of,
    issued_with,
    render_issued,
    render_key,
    wish_of,
)
from maas.user.interface.key_schemas import (
    ApiKeyCreate,
    ApiKeyIssuedRead,
    ApiKeyRead,
    ApiKeyRotate,
    ApiKeyUpdate,
)
from maas.user.interface.permissions import check_scopes

router = APIRouter(prefix="/admin/service-accounts", tags=["admin"], route_class=StrictRoute)

KEYS = "/{service_account_id}/api-keys"


def _held_by(service_account_id: ServiceAccountId) -> Holder:
    return Holder(service_account_id=service_account_id)


@router.get(
    KEYS,
    dependencies=[requires("service_account:read")],
    summary="List a service account's API keys, newest first",
    description="Expired ones stay listed until they are deleted.",
)
@may_refuse(ServiceAccountNotFoundError)
async def list_service_account_keys(
    service_account_id: ServiceAccountIdPath, caller: Caller, queries: Queries, paging: Paging
) -> PageRead[ApiKeyRead]:
    page = await queries.list_keys(caller.tenant_id, _held_by(service_account_id), paging)
    return PageRead[ApiKeyRead].of(page, ApiKeyRead.model_validate)


@router.post(
    KEYS,
    status_code=201,
    dependencies=[requires("service_account:write")],
    summary="Make an API key for a service account; its text is told this once",
    description=(
        "The key acts for the service account, within its scopes and what the account's roles "
        "allow at the time. None may allow more than you may do. It stays when you leave."
    ),
)
@audited("api_key.created")
@idempotent(issued_with(201))
@may_refuse(ServiceAccountNotFoundError, *MAKING)
async def create_service_account_key(
    service_account_id: ServiceAccountIdPath,
    body: ApiKeyCreate,
    request: Request,
    caller: Caller,
    keys: Keys,
    response: Response,
) -> ApiKeyIssuedRead:
    check_scopes(request, body.scopes)
    return render_issued(
        await keys.create(caller, _held_by(service_account_id), wish_of(body)), response
    )


@router.get(
    f"{KEYS}/{{key_id}}",
    dependencies=[requires("service_account:read")],
    summary="Read one of a service account's API keys",
    description="All about it but its text, which was told when it was made.",
)
@may_refuse(ApiKeyNotFoundError)
async def get_service_account_key(
    service_account_id: ServiceAccountIdPath,
    key_id: KeyIdPath,
    caller: Caller,
    queries: Queries,
    response: Response,
) -> ApiKeyRead:
    return render_key(
        await queries.get_key(caller.tenant_id, _held_by(service_account_id), key_id), response
    )


@router.put(
    f"{KEYS}/{{key_id}}",
    dependencies=[requires("service_account:write")],
    summary="Change what a service account's API key may do, from its next request on",
    description="Only what is sent changes; `null` takes a limit away.",
)
@audited("api_key.updated")
@may_refuse(ServiceAccountNotFoundError, *CHANGING)
async def update_service_account_key(
    service_account_id: ServiceAccountIdPath,
    key_id: KeyIdPath,
    body: ApiKeyUpdate,
    request: Request,
    caller: Caller,
    keys: Keys,
    if_match: IfMatch,
    response: Response,
) -> ApiKeyRead:
    if "scopes" in body.model_fields_set:
        check_scopes(request, body.scopes)
    details = await keys.revise(
        caller, _held_by(service_account_id), key_id, check=if_match.check, **changes_of(body)
    )
    return render_key(details, response)


@router.delete(
    f"{KEYS}/{{key_id}}",
    status_code=204,
    dependencies=[requires("service_account:write")],
    summary="Delete a service account's API key: no request with it is accepted from now on",
    description="Both secrets end, that of before a rotation too. It cannot be brought back.",
)
@audited("api_key.revoked")
@may_refuse(ServiceAccountNotFoundError, *ENDING)
async def delete_service_account_key(
    service_account_id: ServiceAccountIdPath,
    key_id: KeyIdPath,
    caller: Caller,
    keys: Keys,
    if_match: IfMatch,
) -> None:
    await keys.revoke(caller, _held_by(service_account_id), key_id, check=if_match.check)


@router.post(
    f"{KEYS}/{{key_id}}/rotate",
    dependencies=[requires("service_account:write")],
    summary="Give a service account's API key a new secret; that of before is good for a while",
    description=ROTATED,
)
@audited("api_key.rotated")
@idempotent(issued_with(200))
@may_refuse(ServiceAccountNotFoundError, *ROTATING)
async def rotate_service_account_key(
    service_account_id: ServiceAccountIdPath,
    key_id: KeyIdPath,
    body: ApiKeyRotate,
    caller: Caller,
    keys: Keys,
    if_match: IfMatch,
    response: Response,
) -> ApiKeyIssuedRead:
    issued = await keys.rotate(
        caller,
        _held_by(service_account_id),
        key_id,
        grace=timedelta(seconds=body.grace_seconds),
        check=if_match.check,
    )
    return render_issued(issued, response)
