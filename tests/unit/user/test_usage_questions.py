"""Questions about usage: of whole days, this month's unless told, and page by page."""

from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maas.shared.domain.page import TextPosition
from maas.user.domain.usage import (
    GROUPS,
    MAX_DAYS,
    Group,
    GroupKey,
    UsageCursorError,
    UsageFilter,
    UsageNotCountedError,
    UsageQuestion,
    fields_of,
    plan,
    read_position,
    write_position,
)

NOW = datetime(2026, 11, 22, 9, 30, tzinfo=UTC)
TOKYO = "+09:00"


def ask(since: str | None = None, until: str | None = None, **other: Any) -> UsageQuestion:
    return plan(
        now=other.pop("now", NOW),
        group_by=other.pop("group_by", ["day"]),
        since=None if since is None else datetime.fromisoformat(since),
        until=None if until is None else datetime.fromisoformat(until),
        wanted=UsageFilter(),
        limit=50,
        after=other.pop("after", None),
        include_total=False,
    )


class TestSpan:
    @pytest.mark.parametrize(
        ("since", "until", "first", "last"),
        [
            (None, None, "2026-11-01", "2026-12-01"),
            ("2026-11-05T00:00Z", None, "2026-11-05", "2026-12-01"),
            ("2026-01-31T23:59Z", None, "2026-01-31", "2026-12-01"),
            (None, "2026-03-01T00:00Z", "2026-02-01", "2026-03-01"),
            (None, "2026-03-01T00:00:01Z", "2026-03-01", "2026-03-02"),
            ("2026-02-03T04:05Z", "2026-02-03T04:06Z", "2026-02-03", "2026-02-04"),
            ("2026-02-04T08:59" + TOKYO, "2026-02-04T09:00" + TOKYO, "2026-02-03", "2026-02-04"),
            ("2026-02-04T09:00" + TOKYO, "2026-02-05T09:00" + TOKYO, "2026-02-04", "2026-02-05"),
        ],
    )
    def test_it_is_widened_to_whole_days_of_utc_and_is_this_month_if_left_out(
        self, since: str | None, until: str | None, first: str, last: str
    ) -> None:
        question = ask(since, until)

        assert (str(question.since), str(question.until)) == (first, last)

    def test_the_month_is_that_of_utc(self) -> None:
        question = ask(now=datetime.fromisoformat("2027-01-01T03:00+09:00"))

        assert (str(question.since), str(question.until)) == ("2026-12-01", "2027-01-01")

    @pytest.mark.parametrize(
        ("since", "until"),
        [
            ("2026-02-04T00:00Z", "2026-02-04T00:00Z"),
            ("2026-02-05T00:00Z", "2026-02-04T00:00Z"),
            ("2026-12-01T00:00Z", None),
            ("2025-01-01T00:00Z", "2026-01-02T00:00:01Z"),
        ],
    )
    def test_what_is_empty_or_too_long_is_refused(self, since: str, until: str | None) -> None:
        with pytest.raises(UsageNotCountedError):
            ask(since, until)

    def test_a_year_is_not_too_long(self) -> None:
        assert ask("2024-01-01T00:00Z", "2025-01-01T00:00Z").since == date(2024, 1, 1)

    @given(since=st.dates(date(1970, 1, 1), date(2199, 1, 1)), days=st.integers(1, MAX_DAYS))
    def test_it_is_cut_into_few_pieces_that_are_whole(self, since: date, days: int) -> None:
        until = since + timedelta(days=days)

        pieces = ask(f"{since}T00:00Z", f"{until}T00:00Z").pieces()

        edges = [since, *(piece.until for piece in pieces)]
        assert edges[-1] == until
        assert [piece.since for piece in pieces] == edges[:-1]
        assert all(piece.since < piece.until for piece in pieces)
        for piece in pieces:
            length = (piece.until - piece.since).days
            if piece.of == "month":
                assert piece.since.day == piece.until.day == 1
            elif piece.of == "week":
                assert piece.since.weekday() == piece.until.weekday() == 0
                assert length < 62
            else:
                assert length < 14


class TestGroups:
    def test_rows_come_in_one_order_whatever_was_asked_first(self) -> None:
        assert ask(group_by=["currency", "key", "day"]).groups == ("day", "key", "currency")

    def test_naming_one_twice_is_refused(self) -> None:
        with pytest.raises(UsageNotCountedError):
            ask(group_by=["key", "key"])


keys = st.builds(
    GroupKey,
    day=st.dates(),
    model=st.text(max_size=40),
    api_key_id=st.none() | st.uuids(),
    account_id=st.none() | st.uuids(),
    actor_kind=st.sampled_from(["account", "service_account"]),
    currency=st.none() | st.sampled_from(["USD", "CNY"]),
)
some_groups = st.sets(st.sampled_from(GROUPS), min_size=1).map(
    lambda chosen: [group for group in GROUPS if group in chosen]
)


class TestPosition:
    @given(key=keys, groups=some_groups)
    def test_it_is_read_as_it_was_written(self, key: GroupKey, groups: list[Group]) -> None:
        read = read_position(write_position(key, groups), groups)

        assert [getattr(read, field) for field in fields_of(groups)] == [
            getattr(key, field) for field in fields_of(groups)
        ]

    @given(key=keys, groups=some_groups, others=some_groups)
    def test_it_is_of_no_other_groups(
        self, key: GroupKey, groups: list[Group], others: list[Group]
    ) -> None:
        if groups != others:
            with pytest.raises(UsageCursorError):
                read_position(write_position(key, groups), others)

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "null",
            "7",
            "{}",
            "[]",
            '[["day"]]',
            '[["day"],[]]',
            '[["day"],[null]]',
            '[["day"],[7]]',
            '[["day"],["20261122"]]',
            '[["day"], ["2026-11-22"]]',
            '[["day"],["2026-11-22","x"]]',
            '[["day"],["2026-11-32"]]',
            "[" * 3000,
        ],
    )
    def test_nothing_else_is_taken(self, text: str) -> None:
        with pytest.raises(UsageCursorError):
            read_position(TextPosition(text), ["day"])

    def test_an_id_has_one_spelling(self) -> None:
        spelt = f'[["key"],["{UUID(int=5).hex}"]]'

        with pytest.raises(UsageCursorError):
            read_position(TextPosition(spelt), ["key"])
