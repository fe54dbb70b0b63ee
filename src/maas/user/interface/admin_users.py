"""The people of one's tenant."""

from typing import cast

from fastapi import APIRouter, Response

from maas.audit.public import audited
from maas.shared.domain.ids import AccountId
from maas.shared.interface.etags import IfMatch, RequiredIfMatch, etag_of
from maas.shared.interface.idempotency import created, idempotent
from maas.shared.interface.pagination import PageRead, Paging
from maas.shared.interface.readers import StrictRoute
from maas.shared.interface.security import Caller, requires
from maas.user.application.admin_acts import NewMember
from maas.user.application.admin_bulk import (
    BulkAssign,
    BulkRemove,
    BulkRestore,
    BulkRow,
    BulkSuspend,
)
from maas.user.application.admin_ports import MemberDetails
from maas.user.application.members import MemberChanges
from maas.user.interface.admin_dependencies import (
    API,
    Bulk,
    Directory,
    Members,
    UserIdPath,
    Wanted,
    refusals,
)
from maas.user.interface.admin_export import answer_export
from maas.user.interface.admin_schemas import (
    BulkCreateRow,
    BulkOutcomeRead,
    BulkRead,
    BulkRequest,
    BulkRestoreRow,
    BulkRolesRow,
    BulkRowField,
    BulkSuspendRow,
    PasswordReset,
    PasswordResetRead,
    RolesUpdate,
    Suspension,
    UserCreate,
    UserCreatedRead,
    UserRead,
    UserUpdate,
)

router = APIRouter(prefix="/admin/users", tags=["admin"], route_class=StrictRoute)


def _location(member: MemberDetails) -> str:
    return f"{API}/admin/users/{member.id}"


def _render(member: MemberDetails, response: Response) -> UserRead:
    response.headers["ETag"] = etag_of(member.version)
    return UserRead.model_validate(member)


def _new(body: UserCreate) -> NewMember:
    return NewMember(
        username=body.username,
        email=body.email,
        display_name=body.display_name,
        password=None if body.password is None else body.password.get_secret_value(),
        roles=frozenset(body.roles),
    )


@router.get("", dependencies=[requires("user:read")], summary="Find people, newest first")
async def list_users(
    caller: Caller, directory: Directory, wanted: Wanted, page: Paging
) -> PageRead[UserRead]:
    found = await directory.list_members(caller.tenant_id, wanted, page)
    return PageRead[UserRead].of(found, UserRead.model_validate)


@router.post(
    "",
    status_code=201,
    dependencies=[requires("user:write")],
    summary="Make an account at home in this tenant",
    responses=refusals(403, 404, 409),
)
@audited("user.created")
@idempotent(created(UserCreatedRead, location=_location))
async def create_user(
    body: UserCreate, caller: Caller, members: Members, response: Response
) -> UserCreatedRead:
    member = await members.create(caller, _new(body))
    response.headers["Location"] = _location(member)
    response.headers["ETag"] = etag_of(member.version)
    return UserCreatedRead.model_validate(member)


@router.get(
    "/export",
    dependencies=[requires("user:read")],
    summary="Download people as CSV",
    response_class=Response,
    responses={200: {"content": {"text/csv": {"schema": {"type": "string"}}}}},
)
@audited("user.exported")
async def export_users(caller: Caller, directory: Directory, wanted: Wanted) -> Response:
    return await answer_export(directory, caller.tenant_id, wanted)


@router.post(
    "/bulk",
    dependencies=[requires("user:write")],
    summary="Do many acts on people: all or nothing, or each with a report",
    responses=refusals(403, 409),
)
@audited("user.bulk")
async def change_many(body: BulkRequest, caller: Caller, bulk: Bulk) -> BulkRead:
    outcomes = await bulk.run(caller, [_row(row) for row in body.rows], body.mode)
    rows = [BulkOutcomeRead.model_validate(outcome) for outcome in outcomes]
    done = sum(row.outcome == "done" for row in rows)
    return BulkRead(done=done, refused=len(rows) - done, rows=rows)


def _row(row: BulkRowField) -> BulkRow:
    match row:
        case BulkCreateRow():
            return _new(row)
        case BulkSuspendRow():
            return BulkSuspend(AccountId(row.id), row.reason)
        case BulkRestoreRow():
            return BulkRestore(AccountId(row.id))
        case BulkRolesRow():
            return BulkAssign(AccountId(row.id), frozenset(row.roles))
        case _:
            return BulkRemove(AccountId(row.id))


@router.get(
    "/{user_id}",
    dependencies=[requires("user:read")],
    summary="Read a person",
    responses=refusals(404),
)
async def get_user(
    user_id: UserIdPath, caller: Caller, directory: Directory, response: Response
) -> UserRead:
    return _render(await directory.get_member(caller.tenant_id, user_id), response)


@router.put(
    "/{user_id}",
    dependencies=[requires("user:write")],
    summary="Change a person's own data",
    responses=refusals(403, 404, 409, 412),
)
@audited("user.updated")
async def update_user(
    user_id: UserIdPath,
    body: UserUpdate,
    caller: Caller,
    members: Members,
    if_match: IfMatch,
    response: Response,
) -> UserRead:
    changes = cast("MemberChanges", {name: getattr(body, name) for name in body.model_fields_set})
    member = await members.revise(caller, user_id, check=if_match.check, **changes)
    return _render(member, response)


@router.delete(
    "/{user_id}",
    status_code=204,
    dependencies=[requires("user:delete")],
    summary="Remove a person; an account at home here and nowhere else is deleted",
    responses=refusals(403, 404, 409, 412),
)
@audited("user.removed")
async def remove_user(
    user_id: UserIdPath, caller: Caller, members: Members, if_match: IfMatch
) -> None:
    await members.remove(caller, user_id, check=if_match.check)


@router.put(
    "/{user_id}/suspension",
    dependencies=[requires("user:write")],
    summary="Keep a person out of this tenant; their sessions in it end",
    responses=refusals(403, 404, 409, 412),
)
@audited("user.suspended")
async def suspend_user(
    user_id: UserIdPath,
    body: Suspension,
    caller: Caller,
    members: Members,
    if_match: IfMatch,
    response: Response,
) -> UserRead:
    member = await members.suspend(caller, user_id, body.reason, check=if_match.check)
    return _render(member, response)


@router.delete(
    "/{user_id}/suspension",
    status_code=204,
    dependencies=[requires("user:write")],
    summary="Let a suspended person sign in again",
    responses=refusals(403, 404, 412),
)
@audited("user.restored")
async def restore_user(
    user_id: UserIdPath, caller: Caller, members: Members, if_match: IfMatch
) -> None:
    await members.restore(caller, user_id, check=if_match.check)


@router.put(
    "/{user_id}/roles",
    dependencies=[requires("role:grant")],
    summary="Have a person hold exactly these roles, from their next request on",
    responses=refusals(403, 404, 409, 412, 428),
)
@audited("user.roles_changed")
async def assign_roles(
    user_id: UserIdPath,
    body: RolesUpdate,
    caller: Caller,
    members: Members,
    if_match: RequiredIfMatch,
    response: Response,
) -> UserRead:
    member = await members.assign(caller, user_id, body.roles, check=if_match.check)
    return _render(member, response)


@router.post(
    "/{user_id}/password-reset",
    dependencies=[requires("user:write")],
    summary="Give a person a new password, to be changed at once; their sessions end",
    responses=refusals(403, 404),
)
@audited("user.password_reset")
async def reset_password(
    user_id: UserIdPath, body: PasswordReset, caller: Caller, members: Members
) -> PasswordResetRead:
    given = None if body.password is None else body.password.get_secret_value()
    return PasswordResetRead(initial_password=await members.reset_password(caller, user_id, given))
