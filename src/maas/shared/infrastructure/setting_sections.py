"""What every section of the settings is, and kinds of values that several of them have."""

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict
from pydantic_settings import NoDecode

PREFIX = "MAAS_"
MAX_PORT = 65_535


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def _split_commas(value: object) -> object:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


CommaList = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split_commas)]


def is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and 1 <= int(text[:6]) <= MAX_PORT


def name_a_port(targets: tuple[str, ...]) -> tuple[str, ...]:
    """Take exact targets.

    Raises:
        ValueError: one of them is not `host:port`.
    """
    for target in targets:
        host, _, port = target.rpartition(":")
        if not host or "/" in target or "@" in target or not is_port(port):
            message = "use exact targets, host:port, with commas between them"
            raise ValueError(message)
    return targets
