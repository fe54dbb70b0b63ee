"""One's own account."""

from fastapi import APIRouter, Request, Response

from maas.audit.public import audited
from maas.shared.domain.errors import may_refuse
from maas.shared.interface.etags import IfMatch, etag_of
from maas.shared.interface.readers import StrictRoute
from maas.shared.interface.security import Caller, known_caller, requires
from maas.user.application.errors import (
    AccountNotFoundError,
    HashingBusyError,
    SamePasswordError,
    WrongPasswordError,
)
from maas.user.application.ports import Profile
from maas.user.application.throttle import TooManyLoginsError
from maas.user.domain.passwords import WeakPasswordError
from maas.user.interface.dependencies import Accounts, Queries, queries_of
from maas.user.interface.schemas import PasswordChange, ProfileRead, ProfileUpdate

router = APIRouter(prefix="/users", tags=["self"], route_class=StrictRoute)


def _render(profile: Profile, response: Response) -> ProfileRead:
    response.headers["ETag"] = etag_of(profile.version)
    return ProfileRead.model_validate(profile)


@router.get(
    "/profile",
    dependencies=[requires("self:read")],
    summary="Read one's own profile",
    description=(
        "Tells also in which tenant the credential acts, and whether the password must be changed."
    ),
)
@may_refuse(AccountNotFoundError)
async def get_profile(request: Request, response: Response) -> ProfileRead:
    caller = known_caller()
    profile = await queries_of(request).get_profile(caller.account_id, caller.tenant_id)
    return _render(profile, response)


@router.put(
    "/profile",
    dependencies=[requires("self:write")],
    summary="Change one's own profile",
    description=(
        "Only what is sent changes; `null` clears; the same again leaves the version. The user "
        "name and the e-mail address are not the owner's to change: a tenant's administrators do."
    ),
)
@audited("profile.updated")
@may_refuse(AccountNotFoundError)
async def update_profile(
    body: ProfileUpdate,
    caller: Caller,
    accounts: Accounts,
    queries: Queries,
    if_match: IfMatch,
    response: Response,
) -> ProfileRead:
    if "display_name" in body.model_fields_set:
        profile = await accounts.rename_self(caller, body.display_name, check=if_match.check)
    else:
        profile = await queries.get_profile(caller.account_id, caller.tenant_id)
    return _render(profile, response)


@router.post(
    "/password",
    status_code=204,
    dependencies=[requires("self:write")],
    summary="Change one's own password; every other session and mailed link ends",
    description=(
        "The session that asks goes on. The owner is not told by mail. API keys go on too, unless "
        "`revoke_api_keys` says that those of every tenant end."
    ),
)
@audited("password.changed")
@may_refuse(
    AccountNotFoundError,
    WrongPasswordError,
    SamePasswordError,
    WeakPasswordError,
    HashingBusyError,
    TooManyLoginsError,
)
async def change_password(body: PasswordChange, caller: Caller, accounts: Accounts) -> None:
    await accounts.change_own_password(
        caller,
        current_password=body.current_password.get_secret_value(),
        new_password=body.new_password.get_secret_value(),
        revoke_api_keys=body.revoke_api_keys,
    )
