"""Where each setting in force came from, for people who wonder."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import yaml
from dotenv import dotenv_values
from pydantic import BaseModel, SecretStr

from maas.shared.infrastructure.settings import FLAT_NAMES, PREFIX, Settings

MASK = "********"


@dataclass(frozen=True, slots=True)
class SettingLine:
    """One setting: its variable, its value with secrets masked, and its source."""

    variable: str
    value: str
    source: str


def explain_settings(settings: Settings) -> list[SettingLine]:
    """List every setting with its value, secrets masked, and its source."""
    in_environment = _long_names(os.environ)
    in_dotenv = _long_names(dotenv_values(".env"))
    in_yaml = set(_flatten_yaml(Path("config.yaml")))
    lines = []
    for variable, value in _flatten(settings, PREFIX):
        if variable in in_environment:
            source = "environment"
        elif variable in in_dotenv:
            source = ".env"
        elif variable in in_yaml:
            source = "config.yaml"
        else:
            source = "default"
        lines.append(SettingLine(variable, _mask(value), source))
    return lines


def _long_names(names: Iterable[str]) -> set[str]:
    upper = {name.upper() for name in names}
    return upper | {FLAT_NAMES[name] for name in upper if name in FLAT_NAMES}


def _flatten(section: BaseModel, prefix: str) -> Iterator[tuple[str, object]]:
    for name in type(section).model_fields:
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            yield from _flatten(value, f"{prefix}{name.upper()}__")
        else:
            yield f"{prefix}{name.upper()}", value


def _flatten_yaml(path: Path) -> Iterator[str]:
    if not path.is_file():
        return
    pending: list[tuple[str, object]] = [(PREFIX, yaml.safe_load(path.read_text("utf-8")))]
    while pending:
        prefix, node = pending.pop()
        if isinstance(node, dict):
            pending += [(f"{prefix}{key}__".upper(), value) for key, value in node.items()]
        else:
            yield prefix.removesuffix("__")


def _mask(value: object) -> str:
    if not isinstance(value, SecretStr):
        return "" if value is None else str(value)
    secret = value.get_secret_value()
    if "://" not in secret:
        return MASK
    password = urlsplit(secret).password
    return secret.replace(f":{password}@", f":{MASK}@") if password else secret
