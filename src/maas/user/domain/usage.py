"""What was used, and how a question about it is brought into a form the rollups answer exactly."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Final, Literal, TypeAlias
from uuid import UUID

from maas.shared.domain.errors import InvalidInputError
from maas.shared.domain.page import TextPosition

Group: TypeAlias = Literal["day", "model", "key", "user", "currency"]

GROUPS: Final[tuple[Group, ...]] = ("day", "model", "key", "user", "currency")
"""In the order by which rows of an answer are sorted."""

MAX_DAYS: Final = 366

_DAY: Final = timedelta(days=1)
_EPOCH: Final = date(1970, 1, 1)


class UsageNotCountedError(InvalidInputError):
    code = "usage-not-counted"
    title = "Usage is not counted in this way"


class UsageCursorError(InvalidInputError):
    code = "cursor-of-other-groups"
    title = "The cursor is of another question"

    def __init__(self) -> None:
        super().__init__(
            "Use `next_cursor` with the `group_by` it was answered for.", loc=("query", "cursor")
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupKey:
    """What the calls of one row have in common, as far as they were grouped by it.

    A call without an API key was made by somebody signed in; one without a currency was free.
    """

    day: date | None = None
    model: str | None = None
    api_key_id: UUID | None = None
    account_id: UUID | None = None
    actor_kind: str | None = None
    currency: str | None = None


FIELDS: Final[Mapping[Group, Sequence[str]]] = {
    "day": ("day",),
    "model": ("model",),
    "key": ("api_key_id",),
    "user": ("account_id", "actor_kind"),
    "currency": ("currency",),
}
"""The fields of a key that belong to each group."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageFilter:
    model: str | None = None
    api_key_id: UUID | None = None
    account_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a span that is whole days, weeks from Monday on, or months."""

    of: Literal["day", "week", "month"]
    since: date
    until: date


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageQuestion:
    """A question that the rollups answer exactly: of whole days, in UTC, `until` not among them."""

    since: date
    until: date
    groups: tuple[Group, ...]
    wanted: UsageFilter
    limit: int
    after: GroupKey | None
    include_total: bool

    @property
    def is_of_whole_tenant(self) -> bool:
        """Whether nobody is told apart by key or user among the calls that are counted."""
        return self.wanted.api_key_id is None and self.wanted.account_id is None

    @property
    def is_by_caller(self) -> bool:
        return "key" in self.groups or "user" in self.groups

    def pieces(self) -> list[Piece]:
        """Cut the span into whole months, whole weeks around them, and the days that are left."""
        first = _first_of_month(self.since)
        if first < self.since:
            first = _next_month(first)
        last = _first_of_month(self.until)
        if first >= last:
            return _weeks_and_days(self.since, self.until)
        return [
            *_weeks_and_days(self.since, first),
            Piece("month", first, last),
            *_weeks_and_days(last, self.until),
        ]


def _weeks_and_days(since: date, until: date) -> list[Piece]:
    first = since + timedelta(days=-since.weekday() % 7)
    last = until - timedelta(days=until.weekday())
    pieces = [Piece("day", since, until)]
    if first < last:
        pieces = [Piece("day", since, first), Piece("week", first, last), Piece("day", last, until)]
    return [piece for piece in pieces if piece.since < piece.until]


def plan(
    *,
    now: datetime,
    group_by: Sequence[Group],
    since: datetime | None,
    until: datetime | None,
    wanted: UsageFilter,
    limit: int,
    after: TextPosition | None,
    include_total: bool,
) -> UsageQuestion:
    """Widen the span to whole days of UTC; not told which, take this month's.

    Raises:
        UsageNotCountedError: the span is empty or too long, or a group is named twice.
        UsageCursorError: the page before was of other groups.
    """
    if len(set(group_by)) != len(group_by):
        raise UsageNotCountedError("Name each group once.", loc=("query", "group_by"))
    last = _next_month(now.astimezone(UTC).date()) if until is None else _day_after(until)
    first = _first_of_month(last - _DAY) if since is None else since.astimezone(UTC).date()
    if first >= last:
        raise UsageNotCountedError(
            "`since` must be before `until`, which is the end of this month if left out.",
            loc=("query", "since"),
        )
    if (last - first).days > MAX_DAYS:
        raise UsageNotCountedError(
            f"The span has {(last - first).days:,} days, and {MAX_DAYS} are the most.",
            loc=("query", "since"),
        )
    groups = tuple(group for group in GROUPS if group in group_by)
    return UsageQuestion(
        since=max(first, _EPOCH),
        until=last,
        groups=groups,
        wanted=wanted,
        limit=limit,
        after=None if after is None else read_position(after, groups),
        include_total=include_total,
    )


def _first_of_month(day: date) -> date:
    return day.replace(day=1)


def _next_month(day: date) -> date:
    return _first_of_month(_first_of_month(day) + timedelta(days=31))


def _day_after(until: datetime) -> date:
    """Tell the first day that is not counted: that of `until`, unless some of it is before then."""
    moment = until.astimezone(UTC)
    return moment.date() if moment.time() == time() else moment.date() + _DAY


def fields_of(groups: Sequence[Group]) -> list[str]:
    return [field for group in groups for field in FIELDS[group]]


def write_position(key: GroupKey, groups: Sequence[Group]) -> TextPosition:
    """Tell where a page ended, in a form that only a question by the same groups takes."""
    values = [getattr(key, field) for field in fields_of(groups)]
    spelt = [None if value is None else str(value) for value in values]
    return TextPosition(json.dumps([[*groups], spelt], ensure_ascii=False, separators=(",", ":")))


_READ: Final[Mapping[str, Callable[[str], Any]]] = {
    "day": date.fromisoformat,
    "model": str,
    "api_key_id": UUID,
    "account_id": UUID,
    "actor_kind": str,
    "currency": str,
}
_ALWAYS_THERE: Final = frozenset({"day", "model", "actor_kind"})


def read_position(position: TextPosition, groups: Sequence[Group]) -> GroupKey:
    """Read back what `write_position` wrote for these groups.

    Raises:
        UsageCursorError: anything else.
    """
    fields = fields_of(groups)
    try:
        of_groups, spelt = json.loads(position.text)
        if of_groups != [*groups] or len(spelt) != len(fields):
            raise UsageCursorError
        values = {field: _read(field, text) for field, text in zip(fields, spelt, strict=True)}
    except (ValueError, TypeError, RecursionError):
        raise UsageCursorError from None
    key = GroupKey(**values)
    if write_position(key, groups) != position:
        raise UsageCursorError
    return key


def _read(field: str, text: object) -> Any:
    if text is None and field not in _ALWAYS_THERE:
        return None
    if not isinstance(text, str):
        raise UsageCursorError
    return _READ[field](text)
