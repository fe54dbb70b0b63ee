import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maas.shared.domain.errors import InvalidInputError
from maas.shared.interface.strict_form import InvalidFormError, check_form
from maas.shared.interface.strict_json import (
    MAX_ELEMENTS,
    MAX_MEMBERS,
    InvalidJsonError,
    InvalidTextError,
    NestedTooDeepError,
    TooWideError,
    parse_json,
)

DEPTH = 32

plain_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False, width=64)
    | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


def read(body: bytes) -> Any:
    return parse_json(body, max_depth=DEPTH)


class TestAccepts:
    @given(plain_values, st.booleans())
    def test_what_any_json_library_writes(self, value: Any, is_ascii: bool) -> None:  # noqa: FBT001  a parametrised case
        body = json.dumps(value, ensure_ascii=is_ascii).encode()

        assert read(body) == value

    @pytest.mark.parametrize(
        ("body", "value"),
        [
            (b'"\\ud83d\\ude00"', "\U0001f600"),
            (b'"\\\\u0000"', "\\u0000"),
            (b"9223372036854775807", 2**63 - 1),
            (b"-9223372036854775808", -(2**63)),
            (b"[" * DEPTH + b"]" * DEPTH, None),
            (b'"' + b"[{" * 1000 + b'"', "[{" * 1000),
            (b'["\\"[[[", "' + b"]" * 50 + b'"]', ['"[[[', "]" * 50]),
        ],
    )
    def test_what_only_looks_hostile(self, body: bytes, value: Any) -> None:
        parsed = read(body)

        assert value is None or parsed == value


class TestRefuses:
    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"{",
            b"{}{}",
            b"{'a': 1}",
            b"[1,]",
            b"\xef\xbb\xbf{}",
            b'{"a": "\xff"}',
            b'{"a": "\xed\xa0\x80"}',
            '{"a": 1}'.encode("utf-16"),
            b"NaN",
            b"[Infinity]",
            b"[-Infinity]",
            b"1e999",
            b"-1e999",
            b'{"a": 1, "a": 2}',
            b'{"a": {"b": 1, "\\u0062": 2}}',
            b"9223372036854775808",
            b"-9223372036854775809",
            b"1" * 5000,
            b"0." + b"1" * 5000,
            b'"a\x00b"',
            b'"\n"',
        ],
    )
    def test_what_is_not_json_everywhere(self, body: bytes) -> None:
        with pytest.raises(InvalidJsonError):
            read(body)

    @pytest.mark.parametrize(
        "body",
        [
            b'"\\u0000"',
            b'{"a": ["b", "c\\u0000"]}',
            b'{"\\u0000": 1}',
            b'"\\ud800"',
            b'"\\uDFFF"',
            b'{"\\udc00x": 1}',
            b'"\\ude00\\ud83d"',
        ],
    )
    def test_text_that_cannot_be_stored(self, body: bytes) -> None:
        with pytest.raises(InvalidTextError):
            read(body)

    @pytest.mark.parametrize(
        "body",
        [
            b"[" * 33 + b"]" * 33,
            b"[" * 100_000,
            b"[" * 100_000 + b"]" * 100_000,
            b'{"a":' * 100_000,
            b'["x",' * 50_000,
            b"[]" * 100 + b"[" * 33,
        ],
    )
    def test_deep_nesting_before_parsing(self, body: bytes) -> None:
        with pytest.raises(NestedTooDeepError):
            read(body)

    @pytest.mark.parametrize(
        "body",
        [
            b"[" * 40 + b'"\\"' * 300_000,
            b"[" * 40 + b'"' + b"\\" * 900_000,
            (b"[]," * 350_000),
            b'"' * 1_000_000 + b"[" * 40,
            b"[" * 16 + b"{" * 16 + b"[" + b'"\\' * 400_000,
        ],
    )
    def test_in_linear_time(self, body: bytes) -> None:
        started = time.thread_time()

        with pytest.raises(InvalidInputError):
            read(body)

        assert time.thread_time() - started < 5

    @given(st.binary(max_size=200))
    def test_noise_without_another_error(self, body: bytes) -> None:
        try:
            read(body)
        except InvalidInputError as error:
            assert error.loc == ("body",)  # noqa: PT017  either outcome is fine

    def test_without_repeating_the_input(self) -> None:
        with pytest.raises(InvalidJsonError) as refusal:
            read(b'{"password": "hunter2", "password": "hunter2"}')

        assert "hunter2" not in refusal.value.detail


class TestForms:
    @pytest.mark.parametrize("body", [b"", b"a=1&b=2", b"a=%E4%BD%A0+x", b"password=p%26%3D"])
    def test_takes_plain_ones(self, body: bytes) -> None:
        check_form(body)

    @pytest.mark.parametrize(
        "body",
        [
            b"a=1&a=2",
            b"a=1&%61=2",
            b"a=%",
            b"a=%zz",
            b"&".join(b"f%d=1" % number for number in range(40)),
        ],
    )
    def test_refuses_ambiguous_ones(self, body: bytes) -> None:
        with pytest.raises(InvalidFormError):
            check_form(body)

    @pytest.mark.parametrize("body", [b"a=%00", b"a=\x00", b"a=%ff", b"%ED%A0%80=1", b"a=\xff"])
    def test_refuses_text_that_cannot_be_stored(self, body: bytes) -> None:
        with pytest.raises(InvalidTextError):
            check_form(body)


def object_of(members: int) -> bytes:
    return json.dumps({f"k{number}": number for number in range(members)}).encode()


class TestWidth:
    @pytest.mark.parametrize(
        "body",
        [
            object_of(MAX_MEMBERS),
            json.dumps([0] * MAX_ELEMENTS).encode(),
            json.dumps([[0] * MAX_ELEMENTS, {"a": [0] * MAX_ELEMENTS}]).encode(),
            json.dumps("," * (2 * MAX_ELEMENTS)).encode(),
        ],
    )
    def test_is_enough_for_what_people_send(self, body: bytes) -> None:
        assert read(body) == json.loads(body)

    @pytest.mark.parametrize(
        "body",
        [
            object_of(MAX_MEMBERS + 1),
            b'[{"a":' + object_of(MAX_MEMBERS + 1) + b"}]",
            json.dumps([0] * (MAX_ELEMENTS + 1)).encode(),
            json.dumps([{"a": [[0] * (MAX_ELEMENTS + 1)]}]).encode(),
        ],
    )
    def test_is_bounded(self, body: bytes) -> None:
        with pytest.raises(TooWideError):
            read(body)

    def test_is_found_out_quickly(self) -> None:
        body = object_of(95_000)
        started = time.thread_time()

        with pytest.raises(TooWideError):
            read(body)

        assert time.thread_time() - started < 2
