"""Text that people read on one line: what may not be in it."""

import unicodedata

_INVISIBLE = {"Cc", "Cs", "Cf", "Zl", "Zp"}
"""Control, surrogate and format characters: what cannot be stored, seen or trusted in a header."""


def has_invisible(text: str) -> bool:
    """Tell whether a character of the text cannot be seen on a line."""
    if text.isascii():
        return not text.isprintable()
    return any(unicodedata.category(char) in _INVISIBLE for char in text)
