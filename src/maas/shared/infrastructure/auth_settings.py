"""The settings of signing in: tokens, their keys, passwords, and who may join."""

from datetime import timedelta
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, SecretStr, ValidationInfo, field_validator, model_validator

from maas.shared.infrastructure.setting_sections import PREFIX, Section
from maas.shared.infrastructure.signing_keys import (
    HOW_TO_MAKE_ONE,
    read_pem_file,
    read_private_pem,
    read_public_pem,
)


def _check_key(pem: str, *, may_be_public: bool) -> None:
    if may_be_public:
        read_public_pem(pem)
    else:
        read_private_pem(pem)


def _pem_of(text: SecretStr | None, path: Path | None) -> str | None:
    if text is not None:
        return text.get_secret_value()
    return None if path is None else read_pem_file(path)


class AuthSettings(Section):
    access_token_expire_minutes: int = Field(10, ge=1, le=60)
    refresh_token_expire_days: int = Field(30, ge=1, le=90)
    refresh_token_idle_days: int = Field(7, ge=1, le=90)
    issuer: str = "maas"
    audience: str = "maas-api"
    previous_secret_key: SecretStr | None = None
    algorithm: Literal["HS256", "ES256"] = "HS256"
    private_key: SecretStr | None = None
    private_key_file: Path | None = None
    previous_key: SecretStr | None = None
    previous_key_file: Path | None = None
    password_min_length: int = Field(12, ge=8, le=256)
    argon2_time_cost: int = Field(2, ge=1)
    argon2_memory_kib: int = Field(19 * 1024, ge=8)
    hashing_threads: int = Field(2, ge=1, le=64)
    hashing_queue: int = Field(50, ge=1)
    registration: Literal["open", "invitation", "closed"] = "closed"
    invitation_days: int = Field(7, ge=1, le=90)
    email_verification_hours: int = Field(24, ge=1, le=168)
    password_reset_minutes: int = Field(30, ge=5, le=1440)
    login_throttle: bool = True
    login_first_wait_seconds: float = Field(4.0, gt=0, le=900)
    login_longest_wait_seconds: float = Field(900.0, gt=0, le=86_400)

    @field_validator("private_key", "previous_key")
    @classmethod
    def _is_key(cls, value: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        if value is not None:
            _check_key(value.get_secret_value(), may_be_public=info.field_name == "previous_key")
        return value

    @field_validator("private_key_file", "previous_key_file")
    @classmethod
    def _holds_key(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        if value is not None:
            text = read_pem_file(value)
            _check_key(text, may_be_public=info.field_name == "previous_key_file")
        return value

    @model_validator(mode="after")
    def _has_one_key(self) -> Self:
        for name in ("private_key", "previous_key"):
            if getattr(self, name) is not None and getattr(self, f"{name}_file") is not None:
                variable = f"{PREFIX}AUTH__{name.upper()}"
                message = f"set {variable} or {variable}_FILE, not both"
                raise ValueError(message)
        if self.algorithm == "ES256" and self.private_pem is None:
            message = (
                f"{PREFIX}AUTH__ALGORITHM=ES256 needs {PREFIX}AUTH__PRIVATE_KEY_FILE or "
                f"{PREFIX}AUTH__PRIVATE_KEY; {HOW_TO_MAKE_ONE}"
            )
            raise ValueError(message)
        return self

    @property
    def private_pem(self) -> str | None:
        """The key that signs with ES256, read from its file if it has one."""
        return _pem_of(self.private_key, self.private_key_file)

    @property
    def previous_pem(self) -> str | None:
        """The key before it, private or public: what it signed is good until it expires."""
        return _pem_of(self.previous_key, self.previous_key_file)

    @property
    def access_token_lifetime(self) -> timedelta:
        return timedelta(minutes=self.access_token_expire_minutes)

    @property
    def invitation_lifetime(self) -> timedelta:
        return timedelta(days=self.invitation_days)

    @property
    def email_verification_lifetime(self) -> timedelta:
        return timedelta(hours=self.email_verification_hours)

    @property
    def password_reset_lifetime(self) -> timedelta:
        return timedelta(minutes=self.password_reset_minutes)

    @property
    def login_first_wait(self) -> timedelta:
        return timedelta(seconds=self.login_first_wait_seconds)

    @property
    def login_longest_wait(self) -> timedelta:
        return timedelta(seconds=self.login_longest_wait_seconds)

    @property
    def refresh_token_lifetime(self) -> timedelta:
        return timedelta(days=self.refresh_token_expire_days)

    @property
    def refresh_token_idle(self) -> timedelta:
        return timedelta(days=self.refresh_token_idle_days)
