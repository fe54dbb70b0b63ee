"""What a supplier's words may give away: the key that it is called with, whole or in part."""

from collections.abc import Mapping
from typing import Final

MIN_SECRET_CHARS: Final = 8
"""A shorter piece of a key tells nothing."""


def quotes_secret(said: str, headers: Mapping[str, str]) -> bool:
    """Tell whether a piece of what is sent with each call stands there, in whatever letters."""
    text = _plain(said)
    return any(
        word[at : at + MIN_SECRET_CHARS] in text
        for value in headers.values()
        for word in map(_plain, value.split())
        for at in range(len(word) - MIN_SECRET_CHARS + 1)
    )


def _plain(text: str) -> str:
    return "".join(text.split()).casefold()
