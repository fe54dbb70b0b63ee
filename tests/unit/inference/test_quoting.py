"""What suppliers say, and whether it tells of the key."""

import pytest

from maas.inference.domain.quoting import quotes_secret
from maas.inference.domain.wire import Refusal

HEADERS = {"Authorization": "Bearer sk-canary-0123456789abcdef", "X-Kind": "short"}


@pytest.mark.parametrize(
    "said",
    [
        "No key sk-canary-0123456789abcdef.",
        "key sk-canary-0123456789ab****",
        "it ends in 89abcdef",
        "SK-CANARY-0123",
        "sk-can ary-01 23",
        "cut: sk-canar",
    ],
)
def test_pieces_of_a_key_are_found(said: str) -> None:
    assert quotes_secret(said, HEADERS)


@pytest.mark.parametrize("said", ["", "Bearer of bad news", "sk-... is short", "cdef and 0123"])
def test_all_else_may_be_said(said: str) -> None:
    assert not quotes_secret(said, HEADERS)


def test_a_refusal_can_be_written() -> None:
    refusal = Refusal(status=400, message="a\ud800b", param="\udfff", code=None)

    assert (refusal.message, refusal.param, refusal.code) == ("a?b", "?", None)
