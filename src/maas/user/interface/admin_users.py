"""The people of one's tenant."""

from typing import cast

from fastapi import APIRouter, Response

from maas.audit.public import audited
from maas.shared.domain.errors import may_refuse
from maas.shared.domain.ids import AccountId
from maas.shared.interface.etags import IfMatch, RequiredIfMatch, etag_of
from maas.shared.interface.idempotency import created, idempotent
from maas.shared.interface.pagination import PageRead, Paging
from maas.shared.interface.readers import StrictRoute
from maas.shared.interface.security import Caller, requires
from maas.user.application.admin_acts import AccountElsewhereError, NewMember
from maas.user.application.admin_bulk import (
    BulkAssign,
    BulkRefusedError,
    BulkRemove,
    BulkRestore,
    BulkRow,
    BulkSuspend,
)
from maas.user.application.admin_ports import MemberDetails
from maas.user.application.errors import EmailTakenError, HashingBusyError, UsernameTakenError
from maas.user.application.members import MemberChanges, NotAHomeError, PlatformOnlyError
from maas.user.domain.grants import (
    BeyondOwnRightsError,
    LastAdminError,
    LimitedKeyError,
    OwnRolesError,
)
from maas.user.domain.passwords import WeakPasswordError
from maas.user.domain.role import RoleNotFoundError
from maas.user.domain.tenant import MemberNotFoundError
from maas.user.interface.admin_dependencies import (
    API,
    Bulk,
    Directory,
    Members,
    UserIdPath,
    Wanted,
)
from maas.user.interface.admin_export import EXPORTED, answer_export
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


@router.get(
    "",
    dependencies=[requires("user:read")],
    summary="Find people, newest first",
    description="Members of the tenant one acts in, suspended ones included. Filters add up.",
)
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
    description=(
        "The person gets the roles named, none of which may allow more than you may do, and "
        "is asked to change the password: `password_change_required` says so until then. A "
        "generated one is shown in this answer only."
    ),
)
@audited("user.created")
@idempotent(created(UserCreatedRead, location=_location))
@may_refuse(
    UsernameTakenError,
    EmailTakenError,
    WeakPasswordError,
    RoleNotFoundError,
    BeyondOwnRightsError,
    LimitedKeyError,
    HashingBusyError,
)
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
    description=(
        "Takes the filters of the list and has no pages: rows stream as they are read, newest "
        "first. Values that a spreadsheet would take for a formula begin with an apostrophe."
    ),
    response_class=Response,
    responses={200: {"content": {"text/csv": EXPORTED}}},
)
@audited("user.exported")
async def export_users(caller: Caller, directory: Directory, wanted: Wanted) -> Response:
    return await answer_export(directory, caller.tenant_id, wanted)


@router.post(
    "/bulk",
    dependencies=[requires("user:write")],
    summary="Do many acts on people: all or nothing, or each with a report",
    description=(
        "Rows are done in their order, and each leaves an event of its own. With `all-or- "
        "nothing` the first refusal undoes everything and is the answer; with `each` the "
        "answer is 200 and says what became of every row. Each kind of row needs the "
        "permission of its single route."
    ),
)
@audited("user.bulk")
@may_refuse(BulkRefusedError, HashingBusyError)
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
    description=(
        "The status is that of the membership; `account_status` is that of the account, everywhere."
    ),
)
@may_refuse(MemberNotFoundError)
async def get_user(
    user_id: UserIdPath, caller: Caller, directory: Directory, response: Response
) -> UserRead:
    return _render(await directory.get_member(caller.tenant_id, user_id), response)


@router.put(
    "/{user_id}",
    dependencies=[requires("user:write")],
    summary="Change a person's own data",
    description=(
        "Changes the account itself, so it must be at home in this tenant and a member of no "
        "other; else only the platform's administrators may. Only what is sent changes."
    ),
)
@audited("user.updated")
@may_refuse(
    MemberNotFoundError,
    AccountElsewhereError,
    BeyondOwnRightsError,
    LimitedKeyError,
    EmailTakenError,
    PlatformOnlyError,
    NotAHomeError,
)
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
    description=(
        "Their sessions in this tenant end. An account that belongs elsewhere too goes on there."
    ),
)
@audited("user.removed")
@may_refuse(
    MemberNotFoundError, OwnRolesError, BeyondOwnRightsError, LimitedKeyError, LastAdminError
)
async def remove_user(
    user_id: UserIdPath, caller: Caller, members: Members, if_match: IfMatch
) -> None:
    await members.remove(caller, user_id, check=if_match.check)


@router.put(
    "/{user_id}/suspension",
    dependencies=[requires("user:write")],
    summary="Keep a person out of this tenant; their sessions in it end",
    description=(
        "Felt at the person's next request. Other tenants are not touched; suspending again "
        "changes the reason."
    ),
)
@audited("user.suspended")
@may_refuse(
    MemberNotFoundError, OwnRolesError, BeyondOwnRightsError, LimitedKeyError, LastAdminError
)
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
    description=(
        "Somebody who is not suspended stays as they are. Sessions that ended do not come back."
    ),
)
@audited("user.restored")
@may_refuse(MemberNotFoundError, OwnRolesError, BeyondOwnRightsError, LimitedKeyError)
async def restore_user(
    user_id: UserIdPath, caller: Caller, members: Members, if_match: IfMatch
) -> None:
    await members.restore(caller, user_id, check=if_match.check)


@router.put(
    "/{user_id}/roles",
    dependencies=[requires("role:grant")],
    summary="Have a person hold exactly these roles, from their next request on",
    description=(
        "Replaces all roles at once; sessions go on with the new rights. Nobody changes their "
        "own, gives or takes more than they hold, or removes the last administrator."
    ),
)
@audited("user.roles_changed")
@may_refuse(
    MemberNotFoundError,
    RoleNotFoundError,
    OwnRolesError,
    BeyondOwnRightsError,
    LimitedKeyError,
    LastAdminError,
)
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
    description=(
        "Ends all sessions of the account, so the same rule holds as for changing its data. A "
        "generated password is shown in this answer only."
    ),
)
@audited("user.password_reset")
@may_refuse(
    MemberNotFoundError,
    OwnRolesError,
    AccountElsewhereError,
    BeyondOwnRightsError,
    LimitedKeyError,
    WeakPasswordError,
    HashingBusyError,
)
async def reset_password(
    user_id: UserIdPath, body: PasswordReset, caller: Caller, members: Members
) -> PasswordResetRead:
    given = None if body.password is None else body.password.get_secret_value()
    chosen = await members.reset_password(
        caller, user_id, given, revoke_api_keys=body.revoke_api_keys
    )
    return PasswordResetRead(initial_password=chosen)
