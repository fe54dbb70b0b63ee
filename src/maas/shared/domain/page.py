"""Keyset paging: a page is found by where the last one ended, so added rows never shift it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, Protocol
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

    @property
    def keyset(self) -> tuple[datetime | None, UUID | None]:
        """Time and id of the row that the page comes after, as SQL takes them; first page: None."""
        return (None, None) if self.after is None else (self.after.at, self.after.id)


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


class Dated(Protocol):
    @property
    def id(self) -> UUID: ...

    @property
    def created_at(self) -> datetime: ...


def position_of(item: Dated) -> Position:
    """Tell where a page ends that ends with this, in a list that is sorted by when it was made."""
    return Position(at=item.created_at, id=item.id)


def cut_page(
    items: Sequence[T], limit: int, total: int | None, position: Callable[[T], P]
) -> Page[T, P]:
    """Cut off the one item that was read to see whether more follow."""
    shown = list(items[:limit])
    return Page(items=shown, next=position(shown[-1]) if len(items) > limit else None, total=total)
