"""Registering, verifying an e-mail address, and getting back in without the password."""

from typing import Annotated, Literal, cast

from fastapi import APIRouter, Depends, Request, Response
from pydantic import (
    ConfigDict,
    Field,
    SecretStr,
)

from maas.audit.public import audited
from maas.shared.domain.errors import may_refuse
from maas.shared.interface.readers import StrictRoute
from maas.shared.interface.types import ReadModel, StrictModel
from maas.user.application.errors import EmailTakenError, HashingBusyError, UsernameTakenError
from maas.user.application.password_reset import PasswordResetService
from maas.user.application.registration import (
    InvitationRequiredError,
    Registration,
    RegistrationClosedError,
    RegistrationService,
)
from maas.user.domain.invitation import InvalidInvitationError
from maas.user.domain.links import MAX_LINK_CHARS, InvalidLinkError
from maas.user.domain.passwords import WeakPasswordError
from maas.user.interface.schemas import DisplayNameField, EmailField, Password, UsernameField

router = APIRouter(prefix="/auth", tags=["auth"], route_class=StrictRoute)


async def _registrations(request: Request) -> RegistrationService:
    return cast("RegistrationService", request.scope["state"]["registrations"])


async def _resets(request: Request) -> PasswordResetService:
    return cast("PasswordResetService", request.scope["state"]["password_resets"])


Registrations = Annotated[RegistrationService, Depends(_registrations)]
Resets = Annotated[PasswordResetService, Depends(_resets)]


LinkField = Annotated[SecretStr, Field(min_length=1, max_length=MAX_LINK_CHARS)]


class RegistrationRequest(StrictModel):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "username": "ada",
                    "email": "ada@example.com",
                    "password": "correct horse battery staple",
                }
            ]
        }
    )

    username: UsernameField
    email: EmailField
    password: Password
    display_name: DisplayNameField | None = None
    invitation: LinkField | None = Field(
        default=None, description="The token of an invitation's link, made for this e-mail."
    )


class RegistrationRead(ReadModel):
    model_config = ConfigDict(json_schema_extra={"examples": [{"status": "verify-email"}]})

    status: Literal["verify-email", "ready"] = Field(
        description="`verify-email`: open the link in the mail first; `ready`: sign in."
    )


class EmailVerification(StrictModel):
    model_config = ConfigDict(
        json_schema_extra={"examples": [{"token": "Hq3v0sJmXoG1b7r2T4yZ8cLdKfWnPeQa"}]}
    )

    token: LinkField


class ForgottenPassword(StrictModel):
    model_config = ConfigDict(json_schema_extra={"examples": [{"email": "ada@example.com"}]})

    email: EmailField


class ForgottenPasswordReset(StrictModel):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "token": "Hq3v0sJmXoG1b7r2T4yZ8cLdKfWnPeQa",
                    "new_password": "staple of another kind",
                }
            ]
        }
    )

    token: LinkField
    new_password: Password
    revoke_api_keys: bool = Field(
        default=True,
        description="Whether the account's API keys end as well, in every tenant.",
    )


@router.post("/register", status_code=202, summary="Make an account of one's own")
@audited("account.registered")
@may_refuse(
    RegistrationClosedError,
    InvitationRequiredError,
    InvalidInvitationError,
    WeakPasswordError,
    UsernameTakenError,
    EmailTakenError,
    HashingBusyError,
)
async def register(body: RegistrationRequest, registrations: Registrations) -> RegistrationRead:
    """Register, where the platform's registration is open, or with an invitation.

    An e-mail address that has an account already is answered like any other; its owner is told by
    mail.
    """
    invitation = body.invitation
    status = await registrations.register(
        Registration(
            username=body.username,
            email=body.email,
            password=body.password.get_secret_value(),
            display_name=body.display_name,
            invitation=None if invitation is None else invitation.get_secret_value(),
        )
    )
    return RegistrationRead(status=status)


@router.post(
    "/email/verify",
    status_code=204,
    summary="Show by the mailed link that the e-mail is one's own",
    description=(
        "The link is good once and for a while, and only for the address it was sent to. An "
        "account that waited for it can sign in from now on."
    ),
)
@audited("account.email_verified")
@may_refuse(InvalidLinkError)
async def verify_email(body: EmailVerification, registrations: Registrations) -> None:
    await registrations.verify_email(body.token.get_secret_value())


@router.post(
    "/password/forgot",
    status_code=202,
    summary="Ask for a link to set a new password by mail",
    response_class=Response,
)
@audited("password.reset_requested")
async def forget_password(body: ForgottenPassword, resets: Resets) -> Response:
    """Answer 202 for every address, whether or not it has an account."""
    await resets.ask(body.email)
    return Response(status_code=202)


@router.post(
    "/password/reset",
    status_code=204,
    summary="Set a new password with the mailed link; all sessions and API keys end",
    description=(
        "Whoever knew the old password may have made API keys, so they end as well unless "
        "`revoke_api_keys` is false. "
        "A password that will not do leaves the link good for another try. The owner is told "
        "by mail."
    ),
)
@audited("password.reset")
@may_refuse(InvalidLinkError, WeakPasswordError, HashingBusyError)
async def reset_password(body: ForgottenPasswordReset, resets: Resets) -> None:
    await resets.reset(
        body.token.get_secret_value(),
        body.new_password.get_secret_value(),
        revoke_api_keys=body.revoke_api_keys,
    )
