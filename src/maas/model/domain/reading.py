"""How readers of formats ask for bytes: they run no I/O, so that they are tested without any.

A reader is a generator. It yields the span of bytes it wants next, is sent exactly those, and
returns what it found. Whoever drives it decides where bytes come from and which thread works.
"""

from collections.abc import Callable, Generator
from struct import Struct
from typing import NamedTuple, TypeAlias, TypeVar

from maas.model.domain.facts import Format, LyingHeaderError

FIRST_STEP_BYTES = 4 * 1024
MAX_STEP_BYTES = 256 * 1024
MAX_VARINT_BYTES = 10

T = TypeVar("T")


class Span(NamedTuple):
    """Bytes from `start` up to `stop`, all of them in the file."""

    start: int
    stop: int


Reading: TypeAlias = Generator[Span, bytes, T]


class BoundReachedError(Exception):
    """More would have to be read than a reader takes upon itself; the file may be sound."""


def read(reading: Reading[T], fetch: Callable[[int, int], bytes]) -> T:
    """Drive a reader with bytes that are at hand."""
    try:
        span = next(reading)
        while True:
            span = reading.send(fetch(*span))
    except StopIteration as done:
        result: T = done.value
        return result


class Cursor:
    """A place in a file, and some bytes from there on; it only moves forward.

    What is skipped is not fetched. Steps grow while everything is read, and begin small again
    after a long jump, for then a header of a few bytes is likely to be all that is wanted.

    Raises:
        LyingHeaderError: from any method, if the file ends before what it announced.
        BoundReachedError: more than `limit_bytes` would have to be fetched.
    """

    def __init__(self, file_format: Format, size: int, *, limit_bytes: int) -> None:
        self.size = size
        self._format = file_format
        self._data = b""
        self._base = 0
        self._at = 0
        self._left = limit_bytes
        self._step = FIRST_STEP_BYTES

    @property
    def position(self) -> int:
        return self._base + self._at

    def lie(self, problem: str) -> LyingHeaderError:
        return LyingHeaderError(self._format, problem)

    def need(self, size: int) -> Reading[None]:
        """Have the next bytes at hand, `size` of them or more."""
        if self._at + size <= len(self._data):
            return
        position = self.position
        self._check_room(size)
        kept = self._data[self._at :]
        start = position + len(kept)
        stop = min(self.size, max(position + size, start + self._step), start + self._left)
        if stop < position + size:
            raise BoundReachedError
        self._left -= stop - start
        self._step = min(2 * self._step, MAX_STEP_BYTES)
        fetched = yield Span(start, stop)
        self._data, self._base, self._at = kept + fetched, position, 0

    def take(self, size: int) -> Reading[bytes]:
        yield from self.need(size)
        self._at += size
        return self._data[self._at - size : self._at]

    def unpack(self, form: Struct) -> Reading[int]:
        """Take the one number of the form."""
        yield from self.need(form.size)
        (number,) = form.unpack_from(self._data, self._at)
        self._at += form.size
        return int(number)

    def varint(self) -> Reading[int]:
        """Take an unsigned number of protobuf's kind, seven bits a byte."""
        yield from self.need_varints(1)
        return self.varint_at_hand()

    def need_varints(self, number: int) -> Reading[None]:
        """Have so many numbers at hand, or all there is of the file."""
        yield from self.need(min(number * MAX_VARINT_BYTES, self.size - self.position) or 1)

    def varint_at_hand(self) -> int:
        number = shift = 0
        for at in range(self._at, min(self._at + MAX_VARINT_BYTES, len(self._data))):
            byte = self._data[at]
            number |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:  # noqa: PLR2004  the bit that says that more follow
                self._at = at + 1
                return number & 0xFFFF_FFFF_FFFF_FFFF
        raise self.lie("a number in it does not end")

    def holds(self, text: bytes, size: int) -> Reading[bool]:
        """Tell whether the next `size` bytes have the text in them; they are still the next."""
        yield from self.need(size)
        return self._data.find(text, self._at, self._at + size) >= 0

    def skip(self, size: int) -> None:
        self._check_room(size)
        self._jump(self._at + size)

    def skip_texts(self, number: int, length: Struct) -> Reading[None]:
        """Skip texts that each stand behind their length; one by one, for no sum of it is kept."""
        unpack, width = length.unpack_from, length.size
        while number:
            yield from self.need(width)
            data, at = self._data, self._at
            last = len(data) - width
            while number and at <= last:
                at += width + unpack(data, at)[0]
                number -= 1
            if self._base + at > self.size:
                raise self.lie("it ends inside of a text")
            self._jump(at)

    def _check_room(self, size: int) -> None:
        if size > self.size - self.position:
            raise self.lie("it announces more than the file holds")

    def _jump(self, at: int) -> None:
        if at <= len(self._data):
            self._at = at
        else:
            if at - len(self._data) > self._step:
                self._step = FIRST_STEP_BYTES
            self._base, self._data, self._at = self._base + at, b"", 0
