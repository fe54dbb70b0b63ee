"""Pages on the wire: `limit` and an opaque `cursor` in, `items` and `next_cursor` out."""

import base64
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Annotated, Generic, Self, TypeVar, get_args
from uuid import UUID

from fastapi import Depends, Query
from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

from maas.shared.domain.errors import InvalidInputError, may_refuse
from maas.shared.domain.page import Page, PageRequest, Position, TextPageRequest, TextPosition

MAX_LIMIT = 200
DEFAULT_LIMIT = 50
MAX_CURSOR_CHARS = 64
MAX_TEXT_CURSOR_CHARS = 3072

T = TypeVar("T")
S = TypeVar("S")
P = TypeVar("P", bound=Position | TextPosition)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LAST = datetime(2200, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_TIME_BYTES = 8

# 24 bytes are 32 characters without padding, so each position has one spelling.
_CURSOR = re.compile(r"[A-Za-z0-9_-]{32}")
_TEXT_CURSOR = re.compile(r"[A-Za-z0-9_-]+")


class InvalidCursorError(InvalidInputError):
    code = "invalid-cursor"
    title = "The cursor is not one of ours"

    def __init__(self) -> None:
        super().__init__(
            "Use `next_cursor` of the page before as it is, or leave the cursor out.",
            loc=("query", "cursor"),
        )


def encode_cursor(position: Position | TextPosition) -> str:
    if isinstance(position, TextPosition):
        return _to_base64(position.text.encode())
    micros = (position.at - _EPOCH) // _MICROSECOND
    raw = micros.to_bytes(_TIME_BYTES, "big") + position.id.bytes
    return _to_base64(raw)


def _to_base64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode("ascii").rstrip("=")


def decode_cursor(cursor: str) -> Position:
    """Read a cursor back; only the exact text `encode_cursor` made is taken.

    Raises:
        InvalidCursorError: anything else.
    """
    if _CURSOR.fullmatch(cursor) is None:
        raise InvalidCursorError
    raw = base64.urlsafe_b64decode(cursor)
    try:
        at = _EPOCH + int.from_bytes(raw[:_TIME_BYTES], "big") * _MICROSECOND
    except OverflowError:
        raise InvalidCursorError from None
    if at >= _LAST:
        raise InvalidCursorError
    return Position(at=at, id=UUID(bytes=raw[_TIME_BYTES:]))


def decode_text_cursor(cursor: str) -> TextPosition:
    """Read the cursor of a list sorted by a text, in its only spelling.

    Raises:
        InvalidCursorError: anything else; a NUL, which PostgreSQL has not, and which the cursors
            of the other lists all have.
    """
    if _TEXT_CURSOR.fullmatch(cursor) is None:
        raise InvalidCursorError
    try:
        raw = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        text = raw.decode("utf-8")
    except ValueError:
        raise InvalidCursorError from None
    if "\0" in text or _to_base64(raw) != cursor:
        raise InvalidCursorError
    return TextPosition(text)


_Limit = Annotated[int, Query(ge=1, le=MAX_LIMIT, description="How many items a page has.")]
_IncludeTotal = Annotated[bool, Query(description="Count all items; costs a query.")]
_CURSOR_IS = "`next_cursor` of the page before."


@may_refuse(InvalidCursorError)
async def _paging(
    limit: _Limit = DEFAULT_LIMIT,
    cursor: Annotated[
        str | None, Query(max_length=MAX_CURSOR_CHARS, description=_CURSOR_IS)
    ] = None,
    *,
    include_total: _IncludeTotal = False,
) -> PageRequest:
    after = None if cursor is None else decode_cursor(cursor)
    return PageRequest(limit=limit, after=after, include_total=include_total)


@may_refuse(InvalidCursorError)
async def _text_paging(
    limit: _Limit = DEFAULT_LIMIT,
    cursor: Annotated[
        str | None, Query(max_length=MAX_TEXT_CURSOR_CHARS, description=_CURSOR_IS)
    ] = None,
    *,
    include_total: _IncludeTotal = False,
) -> TextPageRequest:
    after = None if cursor is None else decode_text_cursor(cursor)
    return TextPageRequest(limit=limit, after=after, include_total=include_total)


Paging = Annotated[PageRequest, Depends(_paging)]
"""The page a request asks for."""

TextPaging = Annotated[TextPageRequest, Depends(_text_paging)]
"""The page a request asks for, of a list that is sorted by a text."""


def _show_one_item(schema: JsonDict, page: type[BaseModel]) -> None:
    """Give a page the example of its items, so that nobody writes each twice."""
    for item in get_args(page.model_fields["items"].annotation):
        of_item = getattr(item, "model_config", {}).get("json_schema_extra", {})
        if "examples" in of_item:
            schema["examples"] = [{"items": of_item["examples"], "next_cursor": None}]


class PageRead(BaseModel, Generic[T]):
    """One page; `total` is there only when it was asked for."""

    model_config = ConfigDict(
        json_schema_serialization_defaults_required=True, json_schema_extra=_show_one_item
    )

    items: list[T]
    next_cursor: str | None = Field(description="Pass it as `cursor`; null on the last page.")
    total: int | None = Field(
        exclude_if=lambda total: total is None,
        description="All items there are; only with `include_total=true`.",
    )

    @classmethod
    def of(cls, page: Page[S, P], render: Callable[[S], T]) -> Self:
        """Render a page: `PageRead[ModelRead].of(page, ModelRead.model_validate)`."""
        return cls(
            items=[render(item) for item in page.items],
            next_cursor=None if page.next is None else encode_cursor(page.next),
            total=page.total,
        )
