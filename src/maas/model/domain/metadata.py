"""What people note about a model or a version in words of their own, and what they measured."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from maas.shared.domain.errors import InvalidInputError
from maas.shared.domain.text import has_invisible

MAX_ENTRIES = 50
MAX_METRICS = 200
MAX_KEY_CHARS = 100
MAX_VALUE_CHARS = 500
MAX_INTEGER = 2**63 - 1

MetadataValue: TypeAlias = str | int | float | bool


class InvalidMetadataError(InvalidInputError):
    code = "invalid-metadata"
    title = "Not metadata that can be kept"

    def __init__(self) -> None:
        super().__init__(
            f"Metadata has at most {MAX_ENTRIES} keys of 1 to {MAX_KEY_CHARS} characters. A value "
            f"is a text of at most {MAX_VALUE_CHARS} characters, a number of at most 64 bits, true "
            "or false. Neither holds a character that cannot be seen."
        )


class InvalidMetricsError(InvalidInputError):
    code = "invalid-metrics"
    title = "Not metrics that can be kept"

    def __init__(self) -> None:
        super().__init__(
            f"A version has at most {MAX_METRICS} metrics: names of 1 to {MAX_KEY_CHARS} "
            "characters, all of which can be seen, and finite numbers."
        )


@dataclass(frozen=True, slots=True)
class Metadata:
    """Free entries: a key, and a text, a number or a yes or no."""

    entries: Mapping[str, MetadataValue]

    def __post_init__(self) -> None:
        if len(self.entries) > MAX_ENTRIES or not all(
            _is_key(key) and _is_value(value) for key, value in self.entries.items()
        ):
            raise InvalidMetadataError


@dataclass(frozen=True, slots=True)
class Metrics:
    """What was measured of a version, as finite numbers."""

    values: Mapping[str, float]

    def __post_init__(self) -> None:
        if len(self.values) > MAX_METRICS or not all(map(_is_key, self.values)):
            raise InvalidMetricsError
        try:
            numbers = {name: float(value) for name, value in self.values.items()}
        except OverflowError:
            raise InvalidMetricsError from None
        if not all(map(math.isfinite, numbers.values())):
            raise InvalidMetricsError
        object.__setattr__(self, "values", numbers)


def is_same(first: object, second: object) -> bool:
    """Compare values; 1 and true are two, unlike to Python, and 1 and 1.0 one, as in JSON."""
    return first == second and isinstance(first, bool) == isinstance(second, bool)


def are_same(first: Mapping[str, MetadataValue], second: Mapping[str, MetadataValue]) -> bool:
    return first == second and all(is_same(first[key], second[key]) for key in first)


def _is_key(text: str) -> bool:
    return 1 <= len(text) <= MAX_KEY_CHARS and text == text.strip() and not has_invisible(text)


def _is_value(value: MetadataValue) -> bool:
    match value:
        case bool():
            return True
        case str():
            return len(value) <= MAX_VALUE_CHARS and not has_invisible(value)
        case int():
            return -MAX_INTEGER - 1 <= value <= MAX_INTEGER
        case float():
            return math.isfinite(value)
