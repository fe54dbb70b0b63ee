"""What a spreadsheet would take for a formula."""

from typing import Final

# Full-width forms included.
_SIGNS: Final = frozenset("=+-@＝＋－＠")  # noqa: RUF001  meant
_BREAKS: Final = ("\t", "\r", "\n")


def harmless(value: str) -> str:
    """Keep a spreadsheet from reading a value as a formula: an apostrophe says it is text."""
    return f"'{value}" if _is_formula(value) else value


def _is_formula(value: str) -> bool:
    first = value[:1]
    if not first or first.isalnum():
        return False
    if first.isprintable() and first != " ":
        return first in _SIGNS
    # Some trim any white space and all that cannot be seen, a byte order mark for one.
    begin = next((each for each in value if each.isprintable() and not each.isspace()), "")
    return begin in _SIGNS or value.lstrip(" ").startswith(_BREAKS)
