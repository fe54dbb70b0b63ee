from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, TypeAdapter, ValidationError

from maas.shared.interface.types import Count, Instant, Name, Nano, Slug, StrictModel, Text

instants = TypeAdapter(Instant)
names = TypeAdapter(Name)
nanos = TypeAdapter(Nano)


class TestInstant:
    @pytest.mark.parametrize(
        ("text", "written"),
        [
            ("2026-11-21T08:00:00Z", "2026-11-21T08:00:00Z"),
            ("2026-11-21t08:00:00z", "2026-11-21T08:00:00Z"),
            ("2026-11-21T16:00:00.5+08:00", "2026-11-21T08:00:00.500000Z"),
            ("1970-01-01T00:00:00Z", "1970-01-01T00:00:00Z"),
        ],
    )
    def test_leaves_in_utc(self, text: str, written: str) -> None:
        assert instants.dump_json(instants.validate_python(text)) == f'"{written}"'.encode()

    @pytest.mark.parametrize(
        "value",
        [
            "2026-11-21T08:00:00",
            "2026-11-21",
            "2026-11-21 08:00:00Z",
            "2026-13-21T08:00:00Z",
            "1969-12-31T23:59:59Z",
            "2200-01-01T00:00:00Z",
            "0001-01-01T00:00:00+23:59",
            "9999-12-31T23:59:59-23:59",
            "2026-11-21T08:00:00+99:99",
            "٢٠٢٦-11-21T08:00:00Z",
            1764000000,
            1764000000.5,
            None,
            datetime(2026, 11, 21),  # noqa: DTZ001  the very mistake
        ],
    )
    def test_refuses_other_times(self, value: object) -> None:
        with pytest.raises(ValidationError):
            instants.validate_python(value)

    def test_says_how_a_plus_is_written_in_a_url(self) -> None:
        with pytest.raises(ValidationError, match="%2B"):
            instants.validate_python("2026-11-21T16:00:00 08:00")

    # Without a colon there is no time of day, which noise might else hit upon.
    @given(st.text(max_size=40).map(lambda text: text.replace(":", "")))
    def test_noise_is_refused(self, text: str) -> None:
        with pytest.raises(ValidationError):
            instants.validate_python(text)


class TestName:
    @pytest.mark.parametrize("name", ["a", "模型 一号", "x" * 128, "O'Brien"])
    def test_takes_a_line_for_people(self, name: str) -> None:
        assert names.validate_python(name) == name

    @pytest.mark.parametrize(
        "name", ["", " a", "a ", "a\nb", "a\x00", "\u202eabc", "x" * 129, 7, b"a"]
    )
    def test_refuses_what_would_not_print(self, name: object) -> None:
        with pytest.raises(ValidationError):
            names.validate_python(name)


class TestNano:
    @pytest.mark.parametrize(
        ("value", "written"),
        [
            (5, b"5"),
            ("5", b"5"),
            (2**53, b"9007199254740992"),
            (2**53 + 1, b'"9007199254740993"'),
            ("-9223372036854775807", b'"-9223372036854775807"'),
        ],
    )
    def test_is_exact_for_every_reader(self, value: object, written: bytes) -> None:
        assert nanos.dump_json(nanos.validate_python(value)) == written

    @pytest.mark.parametrize(
        "value", [1.0, "1.5", "1e3", "1_000", " 1", "", True, 2**63, "9" * 30, "٣"]
    )
    def test_refuses_what_is_no_whole_number(self, value: object) -> None:
        with pytest.raises(ValidationError):
            nanos.validate_python(value)


class Colour(StrEnum):
    RED = "red"


class Body(StrictModel):
    name: Name
    note: Text = ""
    slug: Slug = "a"
    count: Count = 0
    number: int = 0
    ratio: float = 0.5
    flag: bool = False
    colour: Colour = Colour.RED
    owner: UUID | None = None
    at: Instant | None = None
    tags: tuple[str, ...] = ()
    labels: dict[str, int] = Field(default_factory=dict)
    inner: "Body | None" = None


class TestStrictModel:
    def test_takes_what_json_can_say(self) -> None:
        body = Body.model_validate(
            {
                "name": "a",
                "number": 3,
                "ratio": 1,
                "flag": True,
                "colour": "red",
                "owner": "01900000-0000-7000-8000-000000000001",
                "at": "2026-11-21T08:00:00Z",
                "tags": ["x"],
                "labels": {"x": 1},
                "inner": {"name": "b"},
            }
        )

        assert body.inner == Body(name="b")
        assert body.owner == UUID("01900000-0000-7000-8000-000000000001")

    @pytest.mark.parametrize(
        "wrong",
        [
            {"number": "3"},
            {"number": 3.0},
            {"number": True},
            {"ratio": "0.5"},
            {"flag": 1},
            {"flag": "yes"},
            {"note": 5},
            {"count": -1},
            {"count": 2**63},
            {"slug": "A"},
            {"slug": "a-"},
            {"slug": "a\n"},
            {"tags": [1]},
            {"tags": "x"},
            {"labels": {"x": "1"}},
            {"inner": {"name": "b", "number": "3"}},
            {"unknown": 1},
            {"inner": {"name": "b", "unknown": 1}},
        ],
    )
    def test_coerces_nothing(self, wrong: dict[str, Any]) -> None:
        with pytest.raises(ValidationError):
            Body.model_validate({"name": "a", **wrong})
