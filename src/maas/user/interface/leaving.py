"""Leaving, by the owner of an account, and coming back, by an administrator."""

from typing import Annotated, cast

from fastapi import APIRouter, Depends, Request
from pydantic import ConfigDict

from maas.audit.public import audited
from maas.shared.domain.errors import may_refuse
from maas.shared.interface.readers import StrictRoute
from maas.shared.interface.security import Caller, requires
from maas.shared.interface.types import StrictModel
from maas.user.application.admin_acts import AccountElsewhereError
from maas.user.application.errors import (
    AccountNotFoundError,
    HashingBusyError,
    WrongPasswordError,
)
from maas.user.application.own_account import JoinedMeanwhileError, OwnAccountService
from maas.user.application.throttle import TooManyLoginsError
from maas.user.domain.grants import BeyondOwnRightsError, LastAdminError, OwnRolesError
from maas.user.domain.tenant import MemberNotFoundError
from maas.user.interface.admin_dependencies import Members, UserIdPath
from maas.user.interface.schemas import Password

self_router = APIRouter(prefix="/users", tags=["self"], route_class=StrictRoute)
admin_router = APIRouter(prefix="/admin/users", tags=["admin"], route_class=StrictRoute)


async def _own_account(request: Request) -> OwnAccountService:
    return cast("OwnAccountService", request.scope["state"]["own_account"])


OwnAccount = Annotated[OwnAccountService, Depends(_own_account)]


class PasswordConfirmation(StrictModel):
    model_config = ConfigDict(
        json_schema_extra={"examples": [{"current_password": "correct horse battery"}]}
    )

    current_password: Password


@self_router.post(
    "/deactivation",
    status_code=204,
    dependencies=[requires("self:write")],
    summary="Deactivate one's own account; all its sessions end",
    description=(
        "Nobody signs in to it any more, in any tenant, until an administrator reactivates it. "
        "Refused while a tenant or the platform would have no administrator left."
    ),
)
@audited("account.deactivated")
@may_refuse(
    AccountNotFoundError, WrongPasswordError, LastAdminError, TooManyLoginsError, HashingBusyError
)
async def deactivate_self(
    body: PasswordConfirmation, caller: Caller, own_account: OwnAccount
) -> None:
    await own_account.deactivate(caller, current_password=body.current_password.get_secret_value())


@self_router.post(
    "/deletion",
    status_code=204,
    dependencies=[requires("self:write")],
    summary="Delete one's own account for good; personal data goes, the trail stays valid",
    description=(
        "Ends all sessions and memberships. What one did stays in the audit trail, without one's "
        "name, address or e-mail. Refused while a tenant or the platform would have no "
        "administrator left."
    ),
)
@audited("account.deleted")
@may_refuse(
    AccountNotFoundError,
    WrongPasswordError,
    LastAdminError,
    JoinedMeanwhileError,
    TooManyLoginsError,
    HashingBusyError,
)
async def delete_self(body: PasswordConfirmation, caller: Caller, own_account: OwnAccount) -> None:
    await own_account.delete(caller, current_password=body.current_password.get_secret_value())


@admin_router.delete(
    "/{user_id}/deactivation",
    status_code=204,
    dependencies=[requires("user:write")],
    summary="Reactivate an account that its owner deactivated",
    description=(
        "An act on the account: for the administrators of its home tenant if it belongs to no "
        "other, else for the platform's. An account that is not deactivated stays as it is."
    ),
)
@audited("account.reactivated")
@may_refuse(MemberNotFoundError, OwnRolesError, AccountElsewhereError, BeyondOwnRightsError)
async def reactivate_user(user_id: UserIdPath, caller: Caller, members: Members) -> None:
    await members.reactivate(caller, user_id)
