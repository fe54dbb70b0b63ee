"""Where settings come from, strongest first, and the short names that some have."""

from collections.abc import Mapping

from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    YamlConfigSettingsSource,
)
from typing_extensions import override

from maas.shared.infrastructure.setting_sections import PREFIX

FLAT_NAMES: Mapping[str, str] = {
    "MAAS_DATABASE_URL": "MAAS_DATABASE__URL",
    "MAAS_REDIS_URL": "MAAS_REDIS__URL",
    "MAAS_ACCESS_TOKEN_EXPIRE_MINUTES": "MAAS_AUTH__ACCESS_TOKEN_EXPIRE_MINUTES",
    "MAAS_REFRESH_TOKEN_EXPIRE_DAYS": "MAAS_AUTH__REFRESH_TOKEN_EXPIRE_DAYS",
    "MAAS_AUDIT_BATCH_SIZE": "MAAS_AUDIT__BATCH_SIZE",
    "MAAS_AUDIT_FLUSH_INTERVAL": "MAAS_AUDIT__FLUSH_INTERVAL",
    "MAAS_HOST": "MAAS_SERVER__HOST",
    "MAAS_PORT": "MAAS_SERVER__PORT",
    "MAAS_CORS_ORIGINS": "MAAS_SERVER__CORS_ORIGINS",
}
"""Short names people expect, and the nested ones they stand for; the nested one wins."""


def _with_flat_names(values: Mapping[str, str | None]) -> Mapping[str, str | None]:
    flat = {old.lower(): new.lower() for old, new in FLAT_NAMES.items()}
    renamed = {flat[name]: value for name, value in values.items() if name in flat}
    return {**renamed, **values}


class _FlatEnvSource(EnvSettingsSource):
    @override
    def _load_env_vars(self) -> Mapping[str, str | None]:
        return _with_flat_names(super()._load_env_vars())


class _FlatDotEnvSource(DotEnvSettingsSource):
    @override
    def _load_env_vars(self) -> Mapping[str, str | None]:
        return _with_flat_names(super()._load_env_vars())


class LayeredSettings(BaseSettings):
    """Arguments, environment (`MAAS_...`, nested with `__`), `.env`, `config.yaml`, defaults."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        env_file=".env",
        yaml_file="config.yaml",
        frozen=True,
        extra="ignore",
    )

    @classmethod
    @override
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (
            init_settings,
            _FlatEnvSource(settings_cls),
            _FlatDotEnvSource(settings_cls),
            YamlConfigSettingsSource(settings_cls),
            file_secret_settings,
        )
