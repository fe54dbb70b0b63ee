"""Keyset paging: a page is found by where the last one ended, so added rows never shift it."""

from dataclasses import dataclass
from datetime import datetime
from typing import Generic
from uuid import UUID

from typing_extensions import TypeVar


@dataclass(frozen=True, slots=True)
class Position:
    """Where a page ended: the sort time and the id of its last row, newest first."""

    at: datetime
    id: UUID


@dataclass(frozen=True, slots=True)
class TextPosition:
    """Where a page ended, of a list that is sorted by a text and in which no two are equal."""

    text: str


T = TypeVar("T")
P = TypeVar("P", bound=Position | TextPosition, default=Position)


@dataclass(frozen=True, slots=True, kw_only=True)
class PageRequest:
    """Which page is wanted; `limit` is 1 to 200."""

    limit: int = 50
    after: Position | None = None
    include_total: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TextPageRequest:
    """Which page of a list sorted by a text is wanted; `limit` is 1 to 200."""

    limit: int = 50
    after: TextPosition | None = None
    include_total: bool = False


# No slots: Python 3.11 cannot call `Page[str](...)` on a frozen generic that has them.
@dataclass(frozen=True, kw_only=True)
class Page(Generic[T, P]):
    items: list[T]
    next: P | None
    total: int | None = None
