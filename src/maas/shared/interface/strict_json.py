"""JSON that every reader would read the same way: the rest is refused before it is parsed."""

import json
import math
import re
from collections.abc import Callable
from itertools import accumulate
from typing import Any

from maas.shared.domain.errors import InvalidInputError

MAX_INT = 2**63 - 1
MIN_INT = -(2**63)
MAX_INT_CHARS = 20
MAX_NUMBER_CHARS = 64
MAX_MEMBERS = 1_000
MAX_ELEMENTS = 10_000

_BOM = b"\xef\xbb\xbf"
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_STEPS = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}

# The closing quote may be missing: else each quote of a torn string would be tried in turn, and
# the scan would be quadratic.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)
_RISKY_ESCAPE = re.compile(rb"\\u(?:0000|[dD][89a-fA-F])")


class InvalidJsonError(InvalidInputError):
    code = "invalid-json"
    title = "The body is not JSON we take"

    def __init__(self, detail: str) -> None:
        super().__init__(detail, loc=("body",))


class NestedTooDeepError(InvalidJsonError):
    code = "json-too-deep"
    title = "The body is nested too deep"


class TooWideError(InvalidJsonError):
    code = "json-too-wide"
    title = "An object or array of the body has too many values"


class InvalidTextError(InvalidInputError):
    code = "invalid-characters"
    title = "A text holds characters we do not take"

    def __init__(self, detail: str) -> None:
        super().__init__(detail, loc=("body",))


def parse_json(body: bytes, *, max_depth: int) -> Any:
    """Parse one JSON document (RFC 8259 with the refusals of RFC 7493).

    Raises:
        InvalidJsonError: not UTF-8 or not JSON; a byte-order mark, a duplicate key, NaN, Infinity,
            a number past 64 bits.
        NestedTooDeepError: more than `max_depth` arrays and objects inside one another.
        TooWideError: more than 1,000 members in an object, or 10,000 values in an array; validation
            would tell of each.
        InvalidTextError: a NUL or a lone surrogate in a string or key.
    """
    value = _decode(body, _DECODER, max_depth)
    if body.count(b",") >= MAX_ELEMENTS:
        _check_widths(value)
    if _RISKY_ESCAPE.search(body) is not None:
        _check_texts(value, check_text)
    return value


def parse_passing_json(body: bytes, *, max_depth: int) -> Any:
    """Parse a document that is passed on: strict like the rest, but of any width, and with NULs.

    Raises:
        InvalidJsonError: not UTF-8 or not JSON; a byte-order mark, a duplicate key, NaN, Infinity,
            a number past 64 bits.
        NestedTooDeepError: more than `max_depth` arrays and objects inside one another.
        InvalidTextError: a lone surrogate in a string or key.
    """
    value = _decode(body, _PASSING_DECODER, max_depth)
    if _RISKY_ESCAPE.search(body) is not None:
        _check_texts(value, _check_encodable)
    return value


def _decode(body: bytes, decoder: json.JSONDecoder, max_depth: int) -> Any:
    if body.startswith(_BOM):
        raise InvalidJsonError("Send it without a byte-order mark.")
    _check_depth(body, max_depth)
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        raise InvalidJsonError("It is not UTF-8.") from None
    try:
        return decoder.decode(text)
    except json.JSONDecodeError as exc:
        raise InvalidJsonError(f"Line {exc.lineno}, column {exc.colno}: {exc.msg}.") from None


def _check_depth(body: bytes, max_depth: int) -> None:
    """Bound the nesting by a scan of the bytes: the parser behind it recurses."""
    if body.count(b"[") + body.count(b"{") <= max_depth:
        return
    brackets = _STRING.sub(b"", body).translate(None, _NOT_BRACKETS)
    for depth in accumulate(map(_STEPS.__getitem__, brackets)):
        if depth > max_depth:
            raise NestedTooDeepError(f"Arrays and objects may be nested {max_depth} deep.")


def _check_widths(value: Any) -> None:
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, list) and len(item) > MAX_ELEMENTS:
            raise TooWideError(f"An array may have {MAX_ELEMENTS} values.")
        values = item.values() if isinstance(item, dict) else item
        waiting.extend(inner for inner in values if isinstance(inner, dict | list))


def _check_texts(value: Any, check: Callable[[str], None]) -> None:
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            check(item)
        elif isinstance(item, dict):
            waiting.extend(item.keys())
            waiting.extend(item.values())
        elif isinstance(item, list):
            waiting.extend(item)


def check_text(text: str) -> None:
    """Refuse what PostgreSQL cannot store and UTF-8 cannot say.

    Raises:
        InvalidTextError: a NUL or a lone surrogate.
    """
    if "\0" in text:
        raise InvalidTextError("Leave out NUL characters.")
    _check_encodable(text)


def _check_encodable(text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise InvalidTextError("Leave out lone surrogates.") from None


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(pairs) > MAX_MEMBERS:
        raise TooWideError(f"An object may have {MAX_MEMBERS} members.")
    return _distinct_of_any_number(pairs)


def _distinct_of_any_number(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise InvalidJsonError("An object has the same key twice.")
    return members


def _bounded_int(digits: str) -> int:
    # The length comes first: Python refuses to read thousands of digits, in its own words.
    if len(digits) > MAX_INT_CHARS or not MIN_INT <= (number := int(digits)) <= MAX_INT:
        raise InvalidJsonError("A whole number is past 64 bits.")
    return number


def _finite_float(digits: str) -> float:
    if len(digits) > MAX_NUMBER_CHARS or not math.isfinite(number := float(digits)):
        raise InvalidJsonError("A number is too large or has too many digits.")
    return number


def _no_constant(_name: str) -> float:
    raise InvalidJsonError("NaN and Infinity are not JSON.")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_distinct,
    parse_int=_bounded_int,
    parse_float=_finite_float,
    parse_constant=_no_constant,
)
_PASSING_DECODER = json.JSONDecoder(
    object_pairs_hook=_distinct_of_any_number,
    parse_int=_bounded_int,
    parse_float=_finite_float,
    parse_constant=_no_constant,
)
