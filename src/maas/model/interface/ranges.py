"""Which bytes of a file a request wants (RFC 9110, section 14): all, or one range."""

import re
from dataclasses import dataclass

_RANGE = re.compile(r"bytes=\s*(?P<first>\d{0,19})-(?P<last>\d{0,19})\s*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes `start` up to `stop` of a file of `size` bytes."""

    start: int
    stop: int
    size: int

    @property
    def content_range(self) -> str:
        return f"bytes {self.start}-{self.stop - 1}/{self.size}"


class UnsatisfiableRange(Exception):  # noqa: N818  an answer of its own, 416, not a refusal
    """The range starts past the end of the file."""


def wanted_span(header: str | None, *, if_range: str | None, etag: str, size: int) -> Span | None:
    """Tell which part is wanted; `None` for the whole file.

    What cannot be read is ignored, as RFC 9110 wants it, and so are several ranges at once, and a
    range of another representation than the one at hand.

    Raises:
        UnsatisfiableRange: there are no such bytes.
    """
    found = None if header is None else _RANGE.fullmatch(header)
    if found is None or if_range not in {None, etag}:
        return None
    first, last = found["first"], found["last"]
    if first:
        start, stop = int(first), min(int(last) + 1, size) if last else size
        if last and int(last) < start:
            return None
    elif last:
        start, stop = max(0, size - int(last)), size
    else:
        return None
    if start >= stop:
        raise UnsatisfiableRange
    return Span(start, stop, size)
