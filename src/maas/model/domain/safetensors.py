"""Reads the header of a safetensors file: JSON of one fixed shape, walked without building it.

Python's own JSON would build objects of twenty times the header's size before anything could be
said about them. What the reference implementation refuses is refused here as well.
"""

import codecs
import json
import re
from collections import Counter
from math import prod

from maas.model.domain.facts import MAX_NUMBER, Facts, LyingHeaderError
from maas.model.domain.reading import BoundReachedError, Reading, Span

MAX_FORMAT_BYTES = 100_000_000
"""The longest header that the format knows."""

MAX_HEADER_BYTES = 16 * 1024 * 1024
MAX_TENSORS = 100_000
MAX_NOTES = 10_000
MAX_NAME_BYTES = 65_536
MAX_DIMENSIONS = 64
_LENGTH_BYTES = 8

_BLANK = rb"[ \t\n\r]*+"
# A surrogate is a character only beside its other half.
_UNIT = (
    rb"u(?:(?![dD][89A-Fa-f])[0-9A-Fa-f]{4}"
    rb"|[dD][89ABab][0-9A-Fa-f]{2}\\u[dD][C-Fc-f][0-9A-Fa-f]{2})"
)
_CHARACTERS = rb'(?:[^"\\\x00-\x1f]++|\\(?:["\\/bfnrt]|' + _UNIT + b"))"
_TEXT = re.compile(b'"' + _CHARACTERS + b"{0,16384}+")
# No other thread runs while an expression is matched, and so a long text is passed in pieces.
_MORE = re.compile(_CHARACTERS + b"{1,16384}+")
_QUOTE = re.compile(b'"')
_COLON = re.compile(_BLANK + b":" + _BLANK)
_OPENING = re.compile(rb"\{" + _BLANK)
_CLOSING = re.compile(rb"\}" + _BLANK)
_MEMBER = re.compile(
    rb'"(dtype|shape|data_offsets)"'
    + _BLANK
    + b":"
    + _BLANK
    + rb'(?:"([A-Za-z0-9_]{1,32})"|\[([0-9, \t\n\r]{0,1024}+)\])'
    + _BLANK
    + rb"([,}])"
    + _BLANK
)
_AFTER_NOTE = re.compile(_BLANK + rb"(?:,(?=" + _BLANK + rb'")|(?=\}))' + _BLANK)
_AFTER = re.compile(rb"([,}])" + _BLANK)
_NUMBER = re.compile(rb"0|[1-9][0-9]{0,19}")  # up to the digits of 2**64
_DECODED_BYTES = 64 * 1024
_BITS = {
    **dict.fromkeys(("F4",), 4),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0"), 8),
    **dict.fromkeys(("F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("I16", "U16", "F16", "BF16"), 16),
    **dict.fromkeys(("I32", "U32", "F32"), 32),
    **dict.fromkeys(("I64", "U64", "F64", "C64"), 64),
}


def read_safetensors(size: int) -> Reading[Facts]:
    """Count what the header lists, and hold it against the file.

    Raises:
        LyingHeaderError: it is not a header, or the bytes it tells of are not those there are.
        BoundReachedError: it is longer than what is read of it.
    """
    if size < _LENGTH_BYTES:
        raise _lie("it is too short for a header")
    length = int.from_bytes((yield Span(0, _LENGTH_BYTES)), "little")
    if length > min(MAX_FORMAT_BYTES, size - _LENGTH_BYTES):
        raise _lie("its header is said to be longer than it can be")
    if length > MAX_HEADER_BYTES:
        raise BoundReachedError
    header = b"" if length == 0 else (yield Span(_LENGTH_BYTES, _LENGTH_BYTES + length))
    return _Header(header).read(size - _LENGTH_BYTES - length)


class _Header:
    def __init__(self, text: bytes) -> None:
        self._text = text
        self._at = 0
        self._spans: list[tuple[int, int]] = []
        self._elements: Counter[str] = Counter()

    def read(self, data_bytes: int) -> Facts:
        self._check_encoding()
        self._expect(_OPENING)
        is_over = self._passes(_CLOSING) is not None
        names: set[str] = set()
        while not is_over:
            name = self._name()
            if name in names:
                raise _lie("it has two entries of one name")
            names.add(name)
            if name == "__metadata__":
                self._skip_notes()
            elif len(self._spans) == MAX_TENSORS:
                raise BoundReachedError
            else:
                self._read_tensor()
            is_over = self._expect(_AFTER)[1] == b"}"
        if self._at != len(self._text):
            raise _lie("something follows its header's end")
        self._check_spans(data_bytes)
        return self._facts()

    def _check_encoding(self) -> None:
        # In pieces, for the whole of it as text would take four times the memory.
        decoder = codecs.getincrementaldecoder("utf-8")()
        try:
            for start in range(0, len(self._text), _DECODED_BYTES):
                decoder.decode(self._text[start : start + _DECODED_BYTES])
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            raise _lie("its header is not UTF-8") from None

    def _passes(self, pattern: re.Pattern[bytes]) -> re.Match[bytes] | None:
        found = pattern.match(self._text, self._at)
        if found is not None:
            self._at = found.end()
        return found

    def _expect(self, pattern: re.Pattern[bytes]) -> re.Match[bytes]:
        found = self._passes(pattern)
        if found is None:
            raise _lie("its header is not JSON of the form the format has")
        return found

    def _pass_text(self) -> None:
        self._expect(_TEXT)
        while not self._passes(_QUOTE):
            self._expect(_MORE)

    def _name(self) -> str:
        start = self._at
        self._pass_text()
        if self._at - start > MAX_NAME_BYTES:
            raise BoundReachedError
        text = self._text[start : self._at].decode()
        self._expect(_COLON)
        return str(json.loads(text)) if "\\" in text else text[1:-1]

    def _skip_notes(self) -> None:
        self._expect(_OPENING)
        notes = 0
        while not self._passes(_CLOSING):
            if notes == MAX_NOTES:
                raise BoundReachedError
            notes += 1
            self._pass_text()
            self._expect(_COLON)
            self._pass_text()
            self._expect(_AFTER_NOTE)

    def _read_tensor(self) -> None:
        self._expect(_OPENING)
        members: dict[bytes, tuple[bytes | None, bytes | None]] = {}
        for position in range(3):
            member = self._expect(_MEMBER)
            members[member[1]] = (member[2], member[3])
            if (member[4] == b"}") != (position == 2):  # noqa: PLR2004  the last of three
                raise _lie("an entry has not the three members it should have")
        dtype = members.get(b"dtype", (None, None))[0]
        shape = _numbers(members.get(b"shape", (None, None))[1])
        offsets = _numbers(members.get(b"data_offsets", (None, None))[1])
        if dtype is None or len(offsets) != 2:  # noqa: PLR2004  from and to
            raise _lie("an entry has not the three members it should have")
        self._add(dtype.decode(), prod(shape), *offsets)

    def _add(self, dtype: str, elements: int, start: int, stop: int) -> None:
        bits = _BITS.get(dtype)
        if stop < start or (bits is not None and elements * bits != 8 * (stop - start)):
            raise _lie("a tensor's bytes do not match its type and shape")
        if elements > MAX_NUMBER:
            raise _lie("a tensor is larger than anything can be")
        self._elements[dtype] += elements
        self._spans.append((start, stop))

    def _check_spans(self, data_bytes: int) -> None:
        reached = 0
        for start, stop in sorted(self._spans):
            if start != reached:
                raise _lie("its tensors overlap, or leave gaps between them")
            reached = stop
        if reached != data_bytes:
            raise _lie("its tensors do not take up the bytes that follow the header")

    def _facts(self) -> Facts:
        most = self._elements.most_common(1)
        return Facts(
            format="safetensors",
            parameters=min(self._elements.total(), MAX_NUMBER),
            dtype=most[0][0] if most else None,
            tensor_count=len(self._spans),
        )


def _numbers(text: bytes | None) -> list[int]:
    """Read the inside of a JSON array of whole numbers."""
    if text is None:
        raise _lie("an entry has not the three members it should have")
    if not text.strip():
        return []
    numbers = [number.strip() for number in text.split(b",", MAX_DIMENSIONS)]
    if not all(map(_NUMBER.fullmatch, numbers)):
        raise _lie("an entry has something else where numbers should be")
    return [int(number) for number in numbers]


def _lie(problem: str) -> LyingHeaderError:
    return LyingHeaderError("safetensors", problem)
