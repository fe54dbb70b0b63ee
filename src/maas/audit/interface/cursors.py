"""Cursors of the list of events, each bound to its order and its filters.

A cursor of one list means something else in another, where it would skip or repeat events in
silence; so a few bytes of what was asked go with it, and another question is refused.
"""

import base64
import hashlib
import re
from dataclasses import asdict
from typing import Annotated, Final

from fastapi import Query

from maas.audit.application.queries import EventFilter, Order
from maas.shared.domain.errors import InvalidInputError
from maas.shared.domain.page import Position
from maas.shared.interface.pagination import (
    MAX_CURSOR_CHARS,
    InvalidCursorError,
    decode_cursor,
    encode_cursor,
)

_MARK_BYTES: Final = 6
_MARK_CHARS: Final = 8
_CURSOR: Final = re.compile(r"[A-Za-z0-9_-]{40}")

Cursor = Annotated[
    str | None,
    Query(
        max_length=MAX_CURSOR_CHARS,
        description="`next_cursor` of the page before, with the same order and filters.",
    ),
]


class CursorOfAnotherListError(InvalidInputError):
    code = "cursor-of-another-list"
    title = "The cursor belongs to another order or to other filters"

    def __init__(self) -> None:
        super().__init__(
            "Ask with the order and the filters the cursor came with, or leave the cursor out.",
            loc=("query", "cursor"),
        )


def encode_list_cursor(position: Position, wanted: EventFilter, order: Order) -> str:
    return encode_cursor(position) + _mark(wanted, order)


def decode_list_cursor(cursor: str, wanted: EventFilter, order: Order) -> Position:
    """Read a cursor back.

    Raises:
        InvalidCursorError: it is none of ours.
        CursorOfAnotherListError: it came with another order or other filters.
    """
    if _CURSOR.fullmatch(cursor) is None:
        raise InvalidCursorError
    position = decode_cursor(cursor[:-_MARK_CHARS])
    if cursor[-_MARK_CHARS:] != _mark(wanted, order):
        raise CursorOfAnotherListError
    return position


def _mark(wanted: EventFilter, order: Order) -> str:
    """Tell one question from others; it is no secret, and guards nothing."""
    spelled = repr((order, sorted(asdict(wanted).items())))
    digest = hashlib.sha256(spelled.encode("utf-8", "surrogatepass")).digest()[:_MARK_BYTES]
    return base64.urlsafe_b64encode(digest).decode("ascii")
