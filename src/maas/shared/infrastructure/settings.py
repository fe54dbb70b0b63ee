"""Every setting, read once at start, frozen, and checked with messages that name the variable."""

import ipaddress
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import SettingsError
from yaml import YAMLError

from maas.shared.infrastructure.auth_settings import AuthSettings
from maas.shared.infrastructure.inference_settings import InferenceSettings
from maas.shared.infrastructure.rate_limit_settings import RateLimitSettings
from maas.shared.infrastructure.runtime_settings import RuntimeSettings
from maas.shared.infrastructure.sealing_settings import SealingSettings
from maas.shared.infrastructure.setting_layers import LayeredSettings
from maas.shared.infrastructure.setting_sections import (
    PREFIX,
    CommaList,
    Section,
    is_port,
    name_a_port,
)
from maas.shared.infrastructure.tracing_settings import TracingSettings

DEFAULT_DATA_DIR = Path("data")

_STORES = ("file:///", "s3://", "gs://", "az://")

MIN_SECRET_CHARS = 32
MIN_SECRET_DISTINCT = 12


def _has_good_port(rest: str) -> bool:
    try:
        urlsplit(f"//{rest}").port  # noqa: B018  reading it is what checks it
    except ValueError:
        return False
    return True


class ServerSettings(Section):
    host: str = "127.0.0.1"
    port: int = Field(8000, ge=1, le=65535)
    workers: int = Field(1, ge=1, le=256)
    cors_origins: CommaList = ()
    trusted_proxies: CommaList = ()
    max_in_flight: int = Field(256, ge=1)
    drain_timeout_seconds: float = Field(10, gt=0, le=60)
    max_body_bytes: int = Field(1024 * 1024, ge=1024)
    docs: bool | None = None
    slow_request_ms: int = Field(1000, ge=1)

    @field_validator("trusted_proxies")
    @classmethod
    def _are_networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for network in value:
            ipaddress.ip_network(network)
        return value


class DatabaseSettings(Section):
    url: SecretStr = Field(description="postgresql+asyncpg://user:password@host:5432/database")
    owner_url: SecretStr | None = None
    system_url: SecretStr | None = None
    pool_size: int = Field(5, ge=1, le=500)
    pool_timeout_seconds: float = Field(2, gt=0)
    read_pool_size: int = Field(10, ge=1, le=500)
    statement_timeout_seconds: float = Field(5, gt=0)
    lock_timeout_seconds: float = Field(2, gt=0)
    prepared_statements: bool = True

    @field_validator("url", "owner_url", "system_url")
    @classmethod
    def _is_postgres(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None:
            return None
        scheme, separator, rest = value.get_secret_value().partition("://")
        is_known = scheme in {"postgresql", "postgres", "postgresql+asyncpg"}
        if not separator or not is_known or not _has_good_port(rest):
            message = "use postgresql+asyncpg://user:password@host:5432/database"
            raise ValueError(message)
        return SecretStr(f"postgresql+asyncpg://{rest}")


class RedisSettings(Section):
    url: SecretStr = Field(description="redis://:password@host:6379/0")
    broker_url: SecretStr | None = None
    cache_url: SecretStr | None = None
    timeout_ms: int = Field(250, ge=10)
    pool_size: int = Field(256, ge=1, le=10_000)
    allow_everysec: bool = False

    @field_validator("url", "broker_url", "cache_url")
    @classmethod
    def _is_redis(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None:
            return None
        scheme, separator, rest = value.get_secret_value().partition("://")
        if not separator or scheme not in {"redis", "rediss", "unix"} or not _has_good_port(rest):
            message = "use redis://:password@host:6379/0, rediss://... or unix:///path/to/socket"
            raise ValueError(message)
        return value

    @property
    def for_cache(self) -> Self:
        """The same, to where what can be lost is kept: its own server, if there is one."""
        return self.model_copy(update={"url": self.cache_url or self.url})


class MailSettings(Section):
    smtp_host: str | None = None
    smtp_port: int = Field(587, ge=1, le=65535)
    smtp_security: Literal["starttls", "tls", "none"] = "starttls"
    smtp_username: str | None = None
    smtp_password: SecretStr | None = None
    smtp_ca_file: Path | None = None
    smtp_timeout_seconds: float = Field(10.0, gt=0, le=30)
    sender: str = "maas@localhost"
    link_base: str = Field("http://127.0.0.1:8000", pattern=r"^https?://")


class AuditSettings(Section):
    enabled: bool = True
    batch_size: int = Field(5000, ge=1, le=10_000)
    flush_interval: float = Field(1.0, gt=0, le=60, description="seconds")
    kick_at: int = Field(500, ge=1)
    spool_max_bytes: int = Field(64 * 1024**2, ge=1024**2)
    high_water: int = Field(100_000, ge=1)
    retention_days: int | None = Field(None, ge=30, le=36_500)
    retention_days_security: int | None = Field(None, ge=30, le=36_500)
    retention_days_operations: int | None = Field(None, ge=30, le=36_500)
    retention_days_usage: int | None = Field(None, ge=30, le=36_500)
    # From the root on: the worker and whoever calls a command stand in different folders.
    archive_dir: str | None = Field(None, pattern=r"^(-$|/)")
    signing_key: SecretStr | None = None
    signing_key_file: Path | None = None
    head_file: str | None = Field(None, min_length=1)
    exports_at_once: int = Field(4, ge=1, le=100)


class OutgoingSettings(Section):
    allowed_private_targets: CommaList = ()
    allowed_webhook_targets: CommaList = ()
    allowed_ports: CommaList = ()
    ca_file: Path | None = None

    @field_validator("ca_file")
    @classmethod
    def _holds_certificates(cls, value: Path | None) -> Path | None:
        if value is None:
            return None
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(value)
        except (OSError, ssl.SSLError) as exc:
            message = "use a readable file with certificates in PEM form"
            raise ValueError(message) from exc
        return value

    @field_validator("allowed_private_targets", "allowed_webhook_targets")
    @classmethod
    def _name_a_port(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return name_a_port(value)

    @field_validator("allowed_ports")
    @classmethod
    def _are_ports(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not all(is_port(port) for port in value):
            message = "use ports, 1 to 65535, with commas between them"
            raise ValueError(message)
        return value


class SupplierSettings(Section):
    check_seconds: int = Field(60, ge=0, le=86_400)
    """How often each active supplier is asked whether it answers; 0: never."""


class StorageSettings(Section):
    url: str | None = None
    s3_endpoint: str | None = Field(None, pattern=r"^https?://[^/@]+/?$")
    s3_region: str | None = Field(None, min_length=1)
    s3_access_key_id: SecretStr | None = None
    s3_secret_access_key: SecretStr | None = None
    max_file_bytes: int = Field(64 * 1024**3, ge=1)
    part_bytes: int = Field(12 * 1024**2, ge=64 * 1024, le=64 * 1024**2)
    unused_grace_minutes: int = Field(60, ge=0, le=43_200)
    keep_deleted_days: int = Field(30, ge=0, le=36_500)

    @field_validator("url")
    @classmethod
    def _is_a_store(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(_STORES):
            message = f"use a URL that begins with one of {', '.join(_STORES)}"
            raise ValueError(message)
        return value

    @model_validator(mode="after")
    def _both_keys_or_none(self) -> Self:
        if (self.s3_access_key_id is None) != (self.s3_secret_access_key is None):
            message = "set s3_access_key_id and s3_secret_access_key together, or neither"
            raise ValueError(message)
        return self


class BootstrapSettings(Section):
    admin_username: str | None = None
    admin_email: str | None = None
    admin_password: SecretStr | None = None

    @model_validator(mode="after")
    def _all_or_none(self) -> Self:
        given = [self.admin_username, self.admin_email, self.admin_password]
        if any(given) and not all(given):
            message = "set admin_username, admin_email and admin_password together, or none"
            raise ValueError(message)
        return self


class _DatabaseOnly(LayeredSettings):
    database: DatabaseSettings


class Settings(LayeredSettings):
    """The whole configuration; pass sections of it down, never the whole."""

    environment: Literal["development", "test", "production"] = "development"
    debug: bool = False
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_format: Literal["auto", "json", "console"] = "auto"
    data_dir: Path | None = None
    secret_key: SecretStr
    server: ServerSettings = ServerSettings()
    database: DatabaseSettings
    redis: RedisSettings
    auth: AuthSettings = AuthSettings()
    mail: MailSettings = MailSettings()
    audit: AuditSettings = AuditSettings()
    storage: StorageSettings = StorageSettings()
    outgoing: OutgoingSettings = OutgoingSettings()
    suppliers: SupplierSettings = SupplierSettings()
    inference: InferenceSettings = InferenceSettings()
    runtime: RuntimeSettings = RuntimeSettings()
    sealing: SealingSettings = SealingSettings()
    rate_limits: RateLimitSettings = RateLimitSettings()
    tracing: TracingSettings = TracingSettings()
    bootstrap: BootstrapSettings = BootstrapSettings()

    @property
    def effective_log_level(self) -> str:
        """The level in force: `debug` lowers it to DEBUG."""
        return "DEBUG" if self.debug else self.log_level

    @property
    def docs_enabled(self) -> bool:
        """Whether `/docs` is served: as set, else everywhere but in production."""
        if self.server.docs is not None:
            return self.server.docs
        return self.environment != "production"

    @field_validator("secret_key")
    @classmethod
    def _is_strong(cls, value: SecretStr) -> SecretStr:
        secret = value.get_secret_value()
        if len(secret) < MIN_SECRET_CHARS or len(set(secret)) < MIN_SECRET_DISTINCT:
            message = (
                f"needs at least {MIN_SECRET_CHARS} random characters; make one with "
                "`python -c 'import secrets; print(secrets.token_urlsafe(48))'`"
            )
            raise ValueError(message)
        return value

    @model_validator(mode="after")
    def _is_fit_for_production(self) -> Self:
        if self.environment != "production":
            return self
        if self.debug:
            message = "MAAS_DEBUG must be false in production"
            raise ValueError(message)
        if "*" in self.server.cors_origins:
            message = "MAAS_SERVER__CORS_ORIGINS must name its origins in production, not `*`"
            raise ValueError(message)
        if not self.audit.enabled:
            message = "MAAS_AUDIT__ENABLED must be true in production"
            raise ValueError(message)
        return self


class InvalidSettingsError(Exception):
    """The configuration cannot be used; `problems` has one line per variable."""

    code: ClassVar[str] = "invalid-settings"

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))


def load_settings(**overrides: Any) -> Settings:
    """Read the settings from all sources.

    Raises:
        InvalidSettingsError: with one line per wrong or missing variable, none showing its value.
    """
    with _explained():
        return Settings(**overrides)


def load_database_settings() -> DatabaseSettings:
    """Read only what a migration needs, so that CI can migrate with one variable set.

    Raises:
        InvalidSettingsError: as `load_settings` does.
    """
    with _explained():
        return _DatabaseOnly().database


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except ValidationError as exc:
        raise InvalidSettingsError([_explain(error) for error in exc.errors()]) from None
    except (SettingsError, YAMLError, OSError, ValueError, TypeError) as exc:
        # pydantic-settings lets a file it cannot read out as whatever that raised.
        raise InvalidSettingsError([f"`.env` or `config.yaml` cannot be read: {exc}"]) from None


def _explain(error: Mapping[str, Any]) -> str:
    location = [str(part) for part in error["loc"]]
    message = str(error["msg"]).removeprefix("Value error, ")
    if not location:
        return message
    if location in (["database"], ["redis"]):
        location.append("url")
    name = PREFIX + "__".join(location).upper()
    if error["type"] == "missing":
        return (
            f"{name} is not set (see .env.template, or run `maas up`, which needs no settings; "
            "MAAS_DATA_DIR names its folder where that is not the usual one)"
        )
    if error["type"] == "extra_forbidden":
        return f"{name} is not a setting: is it misspelt? (see .env.template)"
    return f"{name}: {message}"
