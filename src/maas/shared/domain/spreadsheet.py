"""What a spreadsheet would take for a formula."""

from typing import Final

# Full-width forms included.
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")  # noqa: RUF001  meant


def harmless(value: str) -> str:
    """Keep a spreadsheet from reading a value as a formula: an apostrophe says it is text."""
    return f"'{value}" if value.lstrip(" ").startswith(_FORMULA) else value
