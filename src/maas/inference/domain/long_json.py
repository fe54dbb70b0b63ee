"""Writing long documents piece by piece: a thread that writes one in one go stops all others."""

import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Final

SLICE: Final = 1_000
"""So many values are written in one go, if nothing else is in them."""


def write_members(document: Mapping[str, object]) -> bytes:
    """Write what stands between the braces of an object."""
    return "".join(_members(document)).encode()


def _members(document: Mapping[str, object]) -> Iterator[str]:
    separator = ""
    items = iter(document.items())
    while some := dict(islice(items, SLICE)):
        if _are_plain(some.values()):
            yield separator + _dump(some)[1:-1]
            separator = ","
            continue
        for name, value in some.items():
            yield f"{separator}{_dump(name)}:"
            yield from _pieces(value)
            separator = ","


def _elements(values: list[object]) -> Iterator[str]:
    for start in range(0, len(values), SLICE):
        some = values[start : start + SLICE]
        if _are_plain(some):
            yield ("," if start else "") + _dump(some)[1:-1]
            continue
        for at, value in enumerate(some, start):
            if at:
                yield ","
            yield from _pieces(value)


def _pieces(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        yield "{"
        yield from _members(value)
        yield "}"
    elif isinstance(value, list):
        yield "["
        yield from _elements(value)
        yield "]"
    else:
        yield _dump(value)


def _are_plain(values: Iterable[object]) -> bool:
    return not any(isinstance(value, (dict, list)) for value in values)


def _dump(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
