from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from maas.shared.domain.page import Page, Position, TextPosition
from maas.shared.interface.pagination import (
    InvalidCursorError,
    PageRead,
    decode_cursor,
    decode_text_cursor,
    encode_cursor,
)

NOW = datetime(2026, 11, 21, 8, 0, 0, 123456, tzinfo=UTC)
ID = UUID("01900000-0000-7000-8000-000000000001")

moments = st.datetimes(
    min_value=datetime(1970, 1, 1),  # noqa: DTZ001  hypothesis adds the zone
    max_value=datetime(2199, 12, 31),  # noqa: DTZ001  likewise
    timezones=st.just(UTC),
)


class TestCursor:
    @given(moments, st.uuids())
    def test_comes_back_as_it_was(self, at: datetime, row: UUID) -> None:
        position = Position(at=at, id=row)

        assert decode_cursor(encode_cursor(position)) == position

    def test_has_one_spelling(self) -> None:
        cursor = encode_cursor(Position(at=NOW, id=ID))

        assert len(cursor) == 32
        for other in (cursor + "=", cursor + "\n", " " + cursor, cursor[:-1], cursor + "AAAA"):
            with pytest.raises(InvalidCursorError):
                decode_cursor(other)

    @given(st.text(max_size=64))
    def test_noise_is_refused_or_read_never_an_error(self, text: str) -> None:
        try:
            position = decode_cursor(text)
        except InvalidCursorError:
            return
        assert encode_cursor(position) == text

    @pytest.mark.parametrize("cursor", ["_" * 32, "A" * 7 + "你", "+" * 32, "/" * 32, ""])
    def test_times_and_letters_out_of_range_are_refused(self, cursor: str) -> None:
        with pytest.raises(InvalidCursorError):
            decode_cursor(cursor)


class TestTextCursor:
    @given(st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1))
    def test_comes_back_as_it_was(self, text: str) -> None:
        cursor = encode_cursor(TextPosition(text))

        assert decode_text_cursor(cursor) == TextPosition(text)
        assert cursor.replace("-", "").replace("_", "").isalnum()

    @given(st.text(max_size=64))
    def test_noise_is_refused_or_read_never_an_error(self, text: str) -> None:
        try:
            position = decode_text_cursor(text)
        except InvalidCursorError:
            return
        assert encode_cursor(position) == text

    @pytest.mark.parametrize("cursor", ["", "A", "YQ==", "YQ\n", "YR", "_w", "AA", "YWJj你"])
    def test_other_spellings_bytes_and_nul_are_refused(self, cursor: str) -> None:
        with pytest.raises(InvalidCursorError):
            decode_text_cursor(cursor)

    @given(moments, st.uuids())
    def test_the_cursor_of_another_list_is_refused(self, at: datetime, row: UUID) -> None:
        with pytest.raises(InvalidCursorError):
            decode_text_cursor(encode_cursor(Position(at=at, id=row)))


class Item(BaseModel):
    name: str


class TestPageRead:
    def test_says_where_the_next_page_is(self) -> None:
        position = Position(at=NOW, id=ID)
        page: Page[str] = Page(items=["a", "b"], next=position)

        read = PageRead[Item].of(page, lambda name: Item(name=name))

        assert read.model_dump(mode="json") == {
            "items": [{"name": "a"}, {"name": "b"}],
            "next_cursor": encode_cursor(position),
        }

    def test_counts_only_when_asked(self) -> None:
        page: Page[str] = Page(items=[], next=None, total=0)

        read = PageRead[Item].of(page, lambda name: Item(name=name))

        assert read.model_dump(mode="json") == {"items": [], "next_cursor": None, "total": 0}


def test_positions_a_microsecond_apart_have_other_cursors() -> None:
    first = encode_cursor(Position(at=NOW, id=ID))
    second = encode_cursor(Position(at=NOW + timedelta(microseconds=1), id=ID))

    assert first != second
