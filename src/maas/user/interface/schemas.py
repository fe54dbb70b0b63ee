"""What the identity routes take and give."""

from typing import Annotated, Literal
from uuid import UUID

from pydantic import ConfigDict, Field, SecretStr

from maas.shared.interface.types import Instant, ReadModel, StrictModel
from maas.shared.interface.values import value_text
from maas.user.domain.account import MAX_DISPLAY_NAME_CHARS, DisplayName
from maas.user.domain.passwords import MAX_PASSWORD_CHARS

MAX_LOGIN_CHARS = 254

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
    refresh_token: RefreshTokenField


class PasswordChange(StrictModel):
    current_password: Password
    new_password: Password


class TokenPairRead(ReadModel):
    access_token: str
    refresh_token: str
    token_type: Literal["bearer"]
    expires_in: int = Field(description="Seconds until the access token expires.")


class ProfileRead(ReadModel):
    id: UUID
    username: str
    email: str
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
