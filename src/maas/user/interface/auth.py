"""Signing in, refreshing, signing out."""

from typing import Annotated, Literal

from fastapi import APIRouter, Form

from maas.audit.public import audited
from maas.shared.domain.errors import may_refuse
from maas.shared.interface.readers import FORM_MEDIA_TYPE, StrictRoute
from maas.shared.interface.security import Caller, requires
from maas.user.application.errors import (
    HashingBusyError,
    InvalidCredentialsError,
    InvalidRefreshTokenError,
    NoMembershipError,
    RefreshTokenReusedError,
)
from maas.user.application.sessions import SessionRequiredError
from maas.user.application.throttle import TooManyLoginsError
from maas.user.application.token_pairs import TokenPair
from maas.user.domain.passwords import MAX_PASSWORD_CHARS
from maas.user.interface.dependencies import SignIns
from maas.user.interface.schemas import (
    MAX_LOGIN_CHARS,
    RefreshRequest,
    SignInRequest,
    TokenPairRead,
)

router = APIRouter(prefix="/auth", tags=["auth"], route_class=StrictRoute)


def render_pair(pair: TokenPair) -> TokenPairRead:
    return TokenPairRead(
        access_token=pair.access_token,
        refresh_token=pair.refresh_token,
        token_type="bearer",  # noqa: S106  the scheme's name, not a secret
        expires_in=int(pair.expires_in.total_seconds()),
    )


@router.post(
    "/login",
    summary="Sign in",
    description=(
        "Takes as long for an unknown name as for a wrong password, and answers both alike. "
        "Failures are counted by name and by address, and make the next try wait."
    ),
)
@audited("auth.login")
@may_refuse(InvalidCredentialsError, NoMembershipError, TooManyLoginsError, HashingBusyError)
async def login(body: SignInRequest, sign_ins: SignIns) -> TokenPairRead:
    pair = await sign_ins.sign_in(
        login=body.username, password=body.password.get_secret_value(), tenant=body.tenant
    )
    return render_pair(pair)


_TOKEN_FORM = {"grant_type": "password", "username": "ada", "password": "correct horse battery"}


@router.post(
    "/token",
    summary="Sign in with an OAuth2 form, as the docs' Authorize button does",
    openapi_extra={
        "requestBody": {
            "content": {FORM_MEDIA_TYPE: {"examples": {"password": {"value": _TOKEN_FORM}}}}
        }
    },
)
@audited("auth.login")
@may_refuse(InvalidCredentialsError, NoMembershipError, TooManyLoginsError, HashingBusyError)
async def token(
    username: Annotated[str, Form(min_length=1, max_length=MAX_LOGIN_CHARS)],
    password: Annotated[str, Form(min_length=1, max_length=MAX_PASSWORD_CHARS)],
    sign_ins: SignIns,
    grant_type: Annotated[Literal["password"], Form()] = "password",  # noqa: ARG001  only its value matters
) -> TokenPairRead:
    """Take the password grant of OAuth2 (RFC 6749, 4.3), and no other."""
    return render_pair(await sign_ins.sign_in(login=username, password=password, tenant=None))


@router.post(
    "/refresh",
    summary="Exchange a refresh token for the next pair",
    description=(
        "A refresh token is good once. Within ten seconds it brings the same successor again, "
        "so that a lost answer does no harm; used later, it ends the session, in case it was "
        "stolen."
    ),
)
@audited("auth.refresh")
@may_refuse(InvalidRefreshTokenError, RefreshTokenReusedError)
async def refresh(body: RefreshRequest, sign_ins: SignIns) -> TokenPairRead:
    return render_pair(await sign_ins.refresh(body.refresh_token.get_secret_value()))


@router.post(
    "/logout",
    status_code=204,
    dependencies=[requires("self:write")],
    summary="End this session; none of its tokens is accepted from now on",
    description=(
        "The access token, the refresh token and all that came before them are worth nothing "
        "once this is answered. Other sessions go on. An API key has no session to end: 403."
    ),
)
@audited("auth.logout")
@may_refuse(SessionRequiredError)
async def logout(caller: Caller, sign_ins: SignIns) -> None:
    await sign_ins.sign_out(caller)
