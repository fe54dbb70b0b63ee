"""One's own API keys."""

from datetime import timedelta

from fastapi import APIRouter, Request, Response

from maas.audit.public import audited
from maas.shared.domain.errors import may_refuse
from maas.shared.interface.etags import IfMatch
from maas.shared.interface.idempotency import idempotent
from maas.shared.interface.pagination import PageRead, Paging
from maas.shared.interface.readers import StrictRoute
from maas.shared.interface.security import Caller, requires
from maas.user.application.api_keys import holder_of
from maas.user.domain.api_key import ApiKeyNotFoundError
from maas.user.interface.key_dependencies import (
    CHANGING,
    ENDING,
    MAKING,
    ROTATED,
    ROTATING,
    KeyIdPath,
    Keys,
    Queries,
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

router = APIRouter(prefix="/users/api-keys", tags=["self"], route_class=StrictRoute)


@router.get(
    "",
    dependencies=[requires("api_key:read")],
    summary="List one's own API keys of this tenant, newest first",
    description="Expired ones stay listed until they are deleted.",
)
async def list_api_keys(caller: Caller, queries: Queries, paging: Paging) -> PageRead[ApiKeyRead]:
    page = await queries.list_keys(caller.tenant_id, holder_of(caller), paging)
    return PageRead[ApiKeyRead].of(page, ApiKeyRead.model_validate)


@router.post(
    "",
    status_code=201,
    dependencies=[requires("api_key:write")],
    summary="Make an API key; its text is told this once",
    description=(
        "The key acts in this tenant, for you, within its scopes and what you may do at the time. "
        "It ends when you leave the tenant."
    ),
)
@audited("api_key.created")
@idempotent(issued_with(201))
@may_refuse(*MAKING)
async def create_api_key(
    body: ApiKeyCreate, request: Request, caller: Caller, keys: Keys, response: Response
) -> ApiKeyIssuedRead:
    check_scopes(request, body.scopes)
    return render_issued(await keys.create(caller, holder_of(caller), wish_of(body)), response)


@router.get(
    "/{key_id}",
    dependencies=[requires("api_key:read")],
    summary="Read one of one's own API keys",
    description="All about it but its text, which was told when it was made.",
)
@may_refuse(ApiKeyNotFoundError)
async def get_api_key(
    key_id: KeyIdPath, caller: Caller, queries: Queries, response: Response
) -> ApiKeyRead:
    return render_key(await queries.get_key(caller.tenant_id, holder_of(caller), key_id), response)


@router.put(
    "/{key_id}",
    dependencies=[requires("api_key:write")],
    summary="Change what an API key may do, from its next request on",
    description="Only what is sent changes; `null` takes a limit away.",
)
@audited("api_key.updated")
@may_refuse(*CHANGING)
async def update_api_key(
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
        caller, holder_of(caller), key_id, check=if_match.check, **changes_of(body)
    )
    return render_key(details, response)


@router.delete(
    "/{key_id}",
    status_code=204,
    dependencies=[requires("api_key:write")],
    summary="Delete an API key: no request with it is accepted from now on",
    description="Both secrets end, that of before a rotation too. It cannot be brought back.",
)
@audited("api_key.revoked")
@may_refuse(*ENDING)
async def delete_api_key(key_id: KeyIdPath, caller: Caller, keys: Keys, if_match: IfMatch) -> None:
    await keys.revoke(caller, holder_of(caller), key_id, check=if_match.check)


@router.post(
    "/{key_id}/rotate",
    dependencies=[requires("api_key:write")],
    summary="Give an API key a new secret; that of before is good for a while",
    description=ROTATED,
)
@audited("api_key.rotated")
@idempotent(issued_with(200))
@may_refuse(*ROTATING)
async def rotate_api_key(
    key_id: KeyIdPath,
    body: ApiKeyRotate,
    caller: Caller,
    keys: Keys,
    if_match: IfMatch,
    response: Response,
) -> ApiKeyIssuedRead:
    issued = await keys.rotate(
        caller,
        holder_of(caller),
        key_id,
        grace=timedelta(seconds=body.grace_seconds),
        check=if_match.check,
    )
    return render_issued(issued, response)
