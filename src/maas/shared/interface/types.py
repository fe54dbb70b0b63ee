"""Fields as they are on the wire: bounded, strict, and the same in and out."""

import re
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    PlainSerializer,
    StringConstraints,
    WithJsonSchema,
)
from pydantic_core import CoreSchema
from typing_extensions import override

EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)
LATEST = datetime(2200, 1, 1, tzinfo=UTC)
MAX_INT = 2**63 - 1
EXACT_IN_JSON = 2**53
"""Past this, JavaScript and other readers of JSON lose the last digits of a number."""

_RFC_3339 = re.compile(
    r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:[Zz]|[+-]\d\d:\d\d)", re.ASCII
)
_NANO_TEXT = re.compile(r"-?\d{1,19}", re.ASCII)


def _has_rfc_3339_form(value: object) -> object:
    if isinstance(value, datetime):
        return value
    if not isinstance(value, str) or _RFC_3339.fullmatch(value) is None:
        if isinstance(value, str) and _RFC_3339.fullmatch(value.replace(" ", "+")) is not None:
            message = "write the + of a zone as %2B in a URL, where a bare + is a space"
            raise ValueError(message)
        message = "use RFC 3339 with a zone, as in 2026-11-21T08:00:00Z"
        raise ValueError(message)
    return value


def _in_range_and_utc(value: datetime) -> datetime:
    if value.tzinfo is None:
        message = "needs a time zone"
        raise ValueError(message)
    if not EARLIEST <= value < LATEST:
        message = "must lie between 1970 and 2200"
        raise ValueError(message)
    return value.astimezone(UTC)


Instant = Annotated[
    datetime, BeforeValidator(_has_rfc_3339_form), AfterValidator(_in_range_and_utc)
]
"""A moment, RFC 3339 with a zone in, UTC with `Z` out, from 1970 to 2200."""


def _is_printable(value: str) -> str:
    if not value.isprintable():
        message = "must not contain control or invisible characters"
        raise ValueError(message)
    return value


Line = Annotated[str, AfterValidator(_is_printable)]
"""What may be printed in one line of a terminal or a log as it is."""


def _has_no_control_characters(value: str) -> str:
    _is_printable(value)
    if value != value.strip():
        message = "must not start or end with a space"
        raise ValueError(message)
    return value


Name = Annotated[
    str,
    StringConstraints(strict=True, min_length=1, max_length=128),
    AfterValidator(_has_no_control_characters),
]
"""One line for people to read: 1 to 128 characters, Chinese included."""

Text = Annotated[str, StringConstraints(strict=True, max_length=4096)]
"""Prose of up to 4,096 characters; may be empty and have lines."""

Slug = Annotated[
    str,
    StringConstraints(
        strict=True, min_length=1, max_length=64, pattern=r"^[a-z0-9](?:[a-z0-9-]*[a-z0-9])?$"
    ),
]
"""A name for URLs: lower case, digits and inner hyphens, up to 64."""

Search = Annotated[str, StringConstraints(min_length=1, max_length=200)]
"""What a `q` may be."""

Count = Annotated[int, Field(strict=True, ge=0, le=MAX_INT)]
"""A whole number from 0 to what PostgreSQL's bigint holds."""


def _read_nano(value: object) -> object:
    if isinstance(value, str):
        if _NANO_TEXT.fullmatch(value) is None:
            message = "use a whole number of nano-units"
            raise ValueError(message)
        return int(value)
    return value


def _write_nano(value: int) -> int | str:
    return value if -EXACT_IN_JSON <= value <= EXACT_IN_JSON else str(value)


Nano = Annotated[
    int,
    Field(strict=True, ge=-MAX_INT, le=MAX_INT),
    BeforeValidator(_read_nano),
    PlainSerializer(_write_nano, when_used="json"),
    WithJsonSchema(
        {
            "anyOf": [{"type": "integer"}, {"type": "string", "pattern": r"^-?\d{1,19}$"}],
            "description": "Nano-units (10^-9) of the currency; a string past 2^53.",
        }
    ),
]
"""An amount of money in nano-units."""

_STRICT_KINDS = frozenset({"bool", "int", "float", "str"})
_OPAQUE_KEYS = frozenset({"default", "metadata", "serialization", "expected"})


def _be_strict(node: object) -> None:
    if isinstance(node, dict):
        # Of a table of fields, `type` may be one, and is no kind then.
        kind = node.get("type")
        if isinstance(kind, str) and kind in _STRICT_KINDS:
            node.setdefault("strict", True)
        for key, value in node.items():
            if key not in _OPAQUE_KEYS:
                _be_strict(value)
    elif isinstance(node, list | tuple):
        for value in node:
            _be_strict(value)


class StrictModel(BaseModel):
    """A request body: unknown fields refused, nothing coerced into bool, int, float or str.

    Only those four are strict: a wholly strict model would refuse UUIDs, times and enums, which
    JSON writes as strings. Not for query parameters, which are all strings.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    @classmethod
    @override
    def __get_pydantic_core_schema__(
        cls, source: type[Any], handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        schema = handler(source)
        _be_strict(schema)
        return schema


class ReadModel(BaseModel):
    """An answer: fields have no defaults, so that clients may rely on each of them."""

    model_config = ConfigDict(from_attributes=True, frozen=True)
