"""Which settings were given, and where: for `maas up`, which fills in the rest, and for people."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import yaml
from dotenv import dotenv_values
from pydantic import BaseModel, SecretStr

from maas.shared.infrastructure.setting_layers import FLAT_NAMES
from maas.shared.infrastructure.setting_sections import PREFIX
from maas.shared.infrastructure.settings import (
    InvalidSettingsError,
    Settings,
)

MASK: Final = "********"
DOTENV: Final = Path(".env")
YAML: Final = Path("config.yaml")


@dataclass(frozen=True, slots=True)
class SettingLine:
    """One setting: its variable, its value with secrets masked, and its source."""

    variable: str
    value: str
    source: str


@dataclass(frozen=True, slots=True)
class GivenSettings:
    """What was said, source by source, strongest first, before anything is checked."""

    sources: Mapping[str, Mapping[str, str]]

    def find(self, variable: str) -> str | None:
        """Return the value of a variable such as `MAAS_DATABASE__URL`, if one was given."""
        return next((given[variable] for given in self.sources.values() if variable in given), None)

    def source_of(self, variable: str) -> str:
        return next((name for name, given in self.sources.items() if variable in given), "default")


def read_given() -> GivenSettings:
    """Read the environment, `.env` and `config.yaml`; empty values count as not given.

    Raises:
        InvalidSettingsError: a file cannot be read; the message names it.
    """
    try:
        dotenv = dotenv_values(DOTENV)
    except (OSError, UnicodeDecodeError) as exc:
        raise InvalidSettingsError([f"{DOTENV} cannot be read: {exc}"]) from None
    return GivenSettings(
        {
            "environment": _long_names(os.environ),
            ".env": _long_names(dotenv),
            "config.yaml": dict(_flatten_yaml(YAML)),
        }
    )


def explain_settings(settings: Settings, *, borrowed: frozenset[str]) -> list[SettingLine]:
    """List every setting with its value, secrets masked, and its source.

    `borrowed` names the variables that a platform which is up has lent.
    """
    given = read_given()
    return [
        SettingLine(
            variable, _mask(value), "maas up" if variable in borrowed else given.source_of(variable)
        )
        for variable, value in flatten(settings)
    ]


def _long_names(values: Mapping[str, str | None]) -> dict[str, str]:
    upper = {name.upper(): value for name, value in values.items() if value}
    renamed = {FLAT_NAMES[name]: value for name, value in upper.items() if name in FLAT_NAMES}
    return {**renamed, **upper}


def flatten(section: BaseModel, prefix: str = PREFIX) -> Iterator[tuple[str, object]]:
    """List each setting's variable and value."""
    for name in type(section).model_fields:
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            yield from flatten(value, f"{prefix}{name.upper()}__")
        else:
            yield f"{prefix}{name.upper()}", value


def _flatten_yaml(path: Path) -> Iterator[tuple[str, str]]:
    if not path.is_file():
        return
    try:
        document = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as exc:
        raise InvalidSettingsError([f"{path} cannot be read: {exc}"]) from None
    if document is None:
        return
    if not isinstance(document, dict):
        problem = f"{path} must hold names and values, such as `log_level: DEBUG`"
        raise InvalidSettingsError([problem])
    pending: list[tuple[str, object]] = [(PREFIX, document)]
    while pending:
        prefix, node = pending.pop()
        if isinstance(node, dict):
            pending += [(f"{prefix}{key}__".upper(), value) for key, value in node.items()]
        elif node is not None:
            yield prefix.removesuffix("__"), str(node)


def _mask(value: object) -> str:
    if not isinstance(value, SecretStr):
        return "" if value is None else str(value)
    secret = value.get_secret_value()
    if "://" not in secret:
        return MASK
    password = urlsplit(secret).password
    return secret.replace(f":{password}@", f":{MASK}@") if password else secret
