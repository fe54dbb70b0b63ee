"""What the identity routes take and give."""

from typing import Annotated, Literal
from uuid import UUID

from pydantic import ConfigDict, Field, SecretStr

from maas.shared.interface.types import Instant, ReadModel, StrictModel
from maas.shared.interface.values import value_text
from maas.user.domain.account import (
    MAX_DISPLAY_NAME_CHARS,
    MAX_EMAIL_CHARS,
    DisplayName,
    EmailAddress,
    Username,
)
from maas.user.domain.passwords import MAX_PASSWORD_CHARS

MAX_LOGIN_CHARS = 254

UsernameField = Annotated[
    Username,
    value_text(Username, 64, pattern="^[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9])?$"),
]
EmailField = Annotated[EmailAddress, value_text(EmailAddress, MAX_EMAIL_CHARS, format="email")]
DisplayNameField = Annotated[DisplayName, value_text(DisplayName, MAX_DISPLAY_NAME_CHARS)]

Password = Annotated[SecretStr, Field(min_length=1, max_length=MAX_PASSWORD_CHARS)]
RefreshTokenField = Annotated[SecretStr, Field(min_length=1, max_length=512)]


class SignInRequest(StrictModel):
    model_config = ConfigDict(
        json_schema_extra={"examples": [{"username": "ada", "password": "correct horse battery"}]}
    )

    username: Annotated[str, Field(min_length=1, max_length=MAX_LOGIN_CHARS)] = Field(
        description="User name or e-mail address."
    )
    password: Password
    tenant: Annotated[str, Field(min_length=1, max_length=64)] | None = Field(
        default=None,
        description="The tenant to act in, by slug; else the last used, the only, or `default`.",
    )


class RefreshRequest(StrictModel):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"refresh_token": "mrt_01935d2e00007000_1_b7r2T4yZ8cLdKfWnPeQa"}]
        }
    )

    refresh_token: RefreshTokenField


class PasswordChange(StrictModel):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "current_password": "correct horse battery",
                    "new_password": "staple of another kind",
                }
            ]
        }
    )

    current_password: Password
    new_password: Password
    revoke_api_keys: bool = Field(
        default=False, description="Whether one's own API keys end as well, in every tenant."
    )


class TokenPairRead(ReadModel):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "access_token": "eyJhbGciOiJFZERTQSJ9.eyJzaWQiOiIwMTkzIn0.c2ln",
                    "refresh_token": "mrt_01935d2e00007000_1_b7r2T4yZ8cLdKfWnPeQa",
                    "token_type": "bearer",
                    "expires_in": 900,
                }
            ]
        }
    )

    access_token: str
    refresh_token: str
    token_type: Literal["bearer"]
    expires_in: int = Field(description="Seconds until the access token expires.")


class ProfileRead(ReadModel):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "01935d2e-0000-7000-8000-000000000002",
                    "username": "ada",
                    "email": "ada@example.com",
                    "email_verified": True,
                    "display_name": "Ada Lovelace",
                    "tenant_id": "01900000-0000-7000-8000-000000000001",
                    "tenant": "default",
                    "password_change_required": False,
                    "created_at": "2026-11-01T08:00:00Z",
                    "updated_at": "2026-11-21T08:00:00Z",
                }
            ]
        }
    )

    id: UUID
    username: str
    email: str
    email_verified: bool
    display_name: str | None
    tenant_id: UUID
    tenant: str
    password_change_required: bool
    created_at: Instant
    updated_at: Instant


class ProfileUpdate(StrictModel):
    """Fields that are absent stay as they are; `null` clears."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"display_name": "Ada Lovelace"}]})

    display_name: DisplayNameField | None = None
