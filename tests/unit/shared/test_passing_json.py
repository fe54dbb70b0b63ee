"""Documents that are passed on: as strict as all others, and of any width."""

import pytest

from maas.shared.interface.strict_json import (
    InvalidJsonError,
    InvalidTextError,
    NestedTooDeepError,
    parse_passing_json,
)


def test_what_is_wide_or_holds_nuls_is_taken() -> None:
    members = ",".join(f'"{number}": 1' for number in range(2_000))

    wide = parse_passing_json(f"{{{members}}}".encode(), max_depth=2)
    long = parse_passing_json(b"[" + b"1," * 20_000 + b"1]", max_depth=2)

    assert (len(wide), len(long)) == (2_000, 20_001)
    assert parse_passing_json(rb'"a\u0000"', max_depth=2) == "a\0"


@pytest.mark.parametrize(
    ("body", "refusal"),
    [
        (b'{"a": 1, "a": 2}', InvalidJsonError),
        (b"[NaN]", InvalidJsonError),
        (b"\xef\xbb\xbf{}", InvalidJsonError),
        (b"\xff", InvalidJsonError),
        (b"{", InvalidJsonError),
        (b"[[[]]]", NestedTooDeepError),
        (rb'"\ud800"', InvalidTextError),
    ],
)
def test_what_two_readers_would_read_otherwise_is_refused(
    body: bytes, refusal: type[Exception]
) -> None:
    with pytest.raises(refusal):
        parse_passing_json(body, max_depth=2)
