"""Registering, verifying an e-mail address, and getting back in without the password."""

from typing import Annotated, Literal, cast

from fastapi import APIRouter, Depends, Request
from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    SecretStr,
    WithJsonSchema,
)

from maas.audit.public import audited
from maas.shared.interface.readers import StrictRoute
from maas.shared.interface.types import ReadModel, StrictModel
from maas.user.application.password_reset import PasswordResetService
from maas.user.application.registration import Registration, RegistrationService
from maas.user.domain.account import MAX_EMAIL_CHARS, EmailAddress, Username
from maas.user.domain.links import MAX_LINK_CHARS
from maas.user.interface.schemas import DisplayNameField, Password

router = APIRouter(prefix="/auth", tags=["auth"], route_class=StrictRoute)


async def _registrations(request: Request) -> RegistrationService:
    return cast("RegistrationService", request.scope["state"]["registrations"])


async def _resets(request: Request) -> PasswordResetService:
    return cast("PasswordResetService", request.scope["state"]["password_resets"])


Registrations = Annotated[RegistrationService, Depends(_registrations)]
Resets = Annotated[PasswordResetService, Depends(_resets)]


def _to_username(value: object) -> object:
    return Username(value) if isinstance(value, str) else value


def _to_email(value: object) -> object:
    return EmailAddress(value) if isinstance(value, str) else value


UsernameField = Annotated[
    Username,
    BeforeValidator(_to_username),
    PlainSerializer(str),
    WithJsonSchema({"type": "string", "minLength": 1, "maxLength": 64}),
]
EmailField = Annotated[
    EmailAddress,
    BeforeValidator(_to_email),
    PlainSerializer(str),
    WithJsonSchema({"type": "string", "format": "email", "maxLength": MAX_EMAIL_CHARS}),
]
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
    token: LinkField


class ForgottenPassword(StrictModel):
    model_config = ConfigDict(json_schema_extra={"examples": [{"email": "ada@example.com"}]})

    email: EmailField


class PasswordReset(StrictModel):
    token: LinkField
    new_password: Password


@router.post("/register", status_code=202, summary="Make an account of one's own")
@audited("account.registered")
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
    "/email/verify", status_code=204, summary="Show by the mailed link that the e-mail is one's own"
)
@audited("account.email_verified")
async def verify_email(body: EmailVerification, registrations: Registrations) -> None:
    await registrations.verify_email(body.token.get_secret_value())


@router.post(
    "/password/forgot", status_code=202, summary="Ask for a link to set a new password by mail"
)
@audited("password.reset_requested")
async def forget_password(body: ForgottenPassword, resets: Resets) -> None:
    """Answer 202 for every address, whether or not it has an account."""
    await resets.ask(body.email)


@router.post(
    "/password/reset",
    status_code=204,
    summary="Set a new password with the mailed link; all sessions end",
)
@audited("password.reset")
async def reset_password(body: PasswordReset, resets: Resets) -> None:
    await resets.reset(body.token.get_secret_value(), body.new_password.get_secret_value())
