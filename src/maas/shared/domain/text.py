"""Text that people read on one line: what may not be in it."""

import re
import unicodedata
from itertools import pairwise
from typing import Final

_INVISIBLE: Final = {"Cc", "Cs", "Cf", "Zl", "Zp"}
"""Control, surrogate and format characters: what cannot be stored, seen or trusted in a header."""

# Unicode's Default_Ignorable_Code_Point without its format characters: fillers, variation
# selectors, and code points set aside to show nothing.
_IGNORABLE: Final = (
    "\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u2065\u3164\ufe00-\ufe0f\uffa0\ufff0-\ufff8"
    "\U000e0000-\U000e0fff"
)
# A braille pattern, two hieroglyphs, a Khitan filler and a note head that are drawn as nothing.
_BLANK: Final = "\u2800\U00013441\U00013442\U00016fe4\U0001d159"
_UNSEEN: Final = re.compile(f"[{_IGNORABLE}{_BLANK}]")

_STYLES: Final = "\ufe0e\ufe0f"
"""After a symbol they choose how it is drawn; after anything else, they change nothing."""
_STYLED: Final = "‼⁉〰〽ℹ"  # noqa: RUF001  the sign itself: no symbol by its category, yet an emoji
_KEYCAP: Final = re.compile("[#*0-9]\ufe0f\u20e3")

_MOST_PARTS: Final = 4
"""Of one character in Unicode's composed form (NFC)."""


def compose(text: str, *, max_chars: int) -> str:
    """Spell a text in Unicode's composed form (NFC), unless that can but be too long.

    Then it stays as it is, longer than `max_chars`: the time this takes grows with the square of
    the number of marks over one letter.
    """
    too_long = len(text) > max_chars * _MOST_PARTS
    return text if too_long else unicodedata.normalize("NFC", text)


def has_invisible(text: str) -> bool:
    """Tell whether a character of the text cannot be seen on a line."""
    if text.isascii():
        return not text.isprintable()
    if any(unicodedata.category(char) in _INVISIBLE for char in text):
        return True
    if not _UNSEEN.search(text):
        return False
    return any(
        _UNSEEN.match(char) and not (char in _STYLES and _is_styled(before))
        for before, char in pairwise(" " + _KEYCAP.sub("", text))
    )


def _is_styled(char: str) -> bool:
    is_symbol = not char.isascii() and unicodedata.category(char).startswith("S")
    return is_symbol or char in _STYLED
