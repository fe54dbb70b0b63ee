"""Server-sent events, cut where they end and otherwise left as they came."""

import re
from collections.abc import Iterator
from typing import Final

from maas.inference.domain.wire import BrokenStreamError

MAX_EVENT_BYTES: Final = 4 * 1024 * 1024
"""Of one event that has not ended yet: it is kept in memory until it has."""

LONG_EVENT_BYTES: Final = 256 * 1024
"""Longer ones, pictures say, are not parsed: the event loop has others to serve."""

# The groups are atomic: else the two characters of one line's end would be taken for two ends.
_BLANK: Final = re.compile(rb"(?>\r\n|\n|\r)(?>\r\n|\n|\r)")
_LINES: Final = re.compile(rb"\r\n|\n|\r")
_ENDS: Final = (b"\n\n", b"\r\n\r\n")
_BLANKS: Final = (b"\n\n", b"\n\r", b"\r\r")
"""One of these is in whatever ends an event."""


class EventCutter:
    """Takes a stream in pieces of any size, and gives back as much of it as whole events."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = bytearray()

    @property
    def rest(self) -> bytes:
        """What has come of an event that has not ended."""
        return bytes(self._rest)

    def cut(self, chunk: bytes) -> bytes:
        """Give the whole events that are there now, none if none has ended.

        Raises:
            BrokenStreamError: an event is longer than any answer has.
        """
        rest = self._rest
        if not rest and chunk.endswith(_ENDS):
            return chunk
        # What was looked at before has no end, but one may have begun in its last three bytes.
        looked_at, end = max(0, len(rest) - 3), 0
        rest += chunk
        for blank in _BLANK.finditer(rest, looked_at):
            # A last CR may be half of an end of line.
            if blank.end() < len(rest) or not rest.endswith(b"\r"):
                end = blank.end()
        if len(rest) - end > MAX_EVENT_BYTES:
            raise BrokenStreamError
        whole = bytes(rest[:end])
        del rest[:end]
        return whole


def split_events(whole: bytes) -> Iterator[bytes]:
    """List events with the blank lines that end them; the last one may lack it."""
    start = 0
    if len(whole) > LONG_EVENT_BYTES:
        start = _end_of_first(whole)
        yield whole[:start]
    for blank in _BLANK.finditer(whole, start):
        yield whole[start : blank.end()]
        start = blank.end()
    if start < len(whole):
        yield whole[start:]


def _end_of_first(whole: bytes) -> int:
    """Find the end of the first event, which is the long one: it came in pieces that are not."""
    found = [at for blank in _BLANKS if (at := whole.find(blank)) >= 0]
    blank = _BLANK.search(whole, max(0, min(found) - 1)) if found else None
    return len(whole) if blank is None else blank.end()


def data_of(event: bytes) -> bytes | None:
    """Read what an event says; `None` for one without data, such as a comment."""
    if event.startswith(b"data: ") and event.endswith(b"}\n\n") and event.count(b"\n") == 2:  # noqa: PLR2004  one line and its end
        return event[6:-2]
    lines = [
        line[6:] if line.startswith(b"data: ") else line[5:]
        for line in _LINES.split(event)
        if line.startswith(b"data:")
    ]
    return b"\n".join(lines) if lines else None
