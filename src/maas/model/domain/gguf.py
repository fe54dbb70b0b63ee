"""Reads the head of a GGUF file: keys, and what is said of the tensors; never their bytes.

Version 2 and 3, of either byte order. What is not wanted is stepped over: a vocabulary of a
million texts is never a list. What llama.cpp refuses to load is refused here as well.
"""

from collections import Counter
from math import prod
from struct import Struct

from maas.model.domain.facts import MAX_NUMBER, MAX_WORD_CHARS, Facts, count, word
from maas.model.domain.reading import BoundReachedError, Cursor, Reading

MAGIC = b"GGUF"
VERSIONS = frozenset({2, 3})
MAX_HEADER_BYTES = 32 * 1024 * 1024
MAX_KEYS = 65_536
MAX_TENSORS = 100_000
MAX_KEY_BYTES = 65_535
MAX_NAME_BYTES = 1_024
MAX_DIMENSIONS = 8
MAX_ALIGNMENT = 65_536
DEFAULT_ALIGNMENT = 32
LEAST_ENTRY_BYTES = 13
"""An empty name behind its length, a type, and a value of one byte."""

_TEXT, _ARRAY = 8, 9
_INTEGERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 10: "Q", 11: "q"}
_OTHERS = {6: 4, 7: 1, 12: 8}
"""The bytes of float32, bool and float64."""

_TYPES = {
    0: ("F32", 1, 4),
    1: ("F16", 1, 2),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74),
    18: ("IQ3_XXS", 256, 98),
    19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18),
    21: ("IQ3_S", 256, 110),
    22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136),
    24: ("I8", 1, 1),
    25: ("I16", 1, 2),
    26: ("I32", 1, 4),
    27: ("I64", 1, 8),
    28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56),
    30: ("BF16", 1, 2),
    34: ("TQ1_0", 256, 54),
    35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17),
    40: ("NVFP4", 64, 36),
    41: ("Q1_0", 128, 18),
}
"""Types of tensors by number: name, elements in a block, bytes of a block."""

_FILE_TYPES = {
    2: "Q4_0",
    3: "Q4_1",
    7: "Q8_0",
    8: "Q5_0",
    9: "Q5_1",
    10: "Q2_K",
    11: "Q3_K_S",
    12: "Q3_K_M",
    13: "Q3_K_L",
    14: "Q4_K_S",
    15: "Q4_K_M",
    16: "Q5_K_S",
    17: "Q5_K_M",
    18: "Q6_K",
    19: "IQ2_XXS",
    20: "IQ2_XS",
    21: "Q2_K_S",
    22: "IQ3_XS",
    23: "IQ3_XXS",
    24: "IQ1_S",
    25: "IQ4_NL",
    26: "IQ3_S",
    27: "IQ3_M",
    28: "IQ2_S",
    29: "IQ2_M",
    30: "IQ4_XS",
    31: "IQ1_M",
    36: "TQ1_0",
    37: "TQ2_0",
    38: "MXFP4_MOE",
    39: "NVFP4",
}
"""How a whole file was quantised, by `general.file_type`; the numbers left out are plain floats."""


def is_gguf(head: bytes) -> bool:
    """Tell by the first eight bytes, version included."""
    return head[:4] == MAGIC and _byte_order(head[4:8]) is not None


def read_gguf(size: int) -> Reading[Facts]:
    """Count what the head lists, and hold it against the file.

    Raises:
        LyingHeaderError: it is not a head, or the file cannot be what it tells of.
        BoundReachedError: it is longer, or has more in it, than what is read of it.
    """
    cursor = Cursor("gguf", size, limit_bytes=MAX_HEADER_BYTES)
    head = yield from cursor.take(8)
    order = _byte_order(head[4:8])
    if head[:4] != MAGIC or order is None:
        raise cursor.lie("it does not begin as GGUF of version 2 or 3")
    return (yield from _Head(cursor, order).read())


def _byte_order(version: bytes) -> str | None:
    if int.from_bytes(version, "little") in VERSIONS:
        return "<"
    return ">" if int.from_bytes(version, "big") in VERSIONS else None


class _Head:
    def __init__(self, cursor: Cursor, order: str) -> None:
        self._cursor = cursor
        self._u32, self._u64 = Struct(f"{order}I"), Struct(f"{order}Q")
        self._integers = {kind: Struct(order + code) for kind, code in _INTEGERS.items()}
        self._architecture: str | None = None
        self._numbers: dict[bytes, int] = {}
        self._spans: list[tuple[int, int]] = []
        self._elements: Counter[str | None] = Counter()

    def read(self) -> Reading[Facts]:
        tensors = yield from self._cursor.unpack(self._u64)
        keys = yield from self._cursor.unpack(self._u64)
        if max(tensors, keys) > self._cursor.size // LEAST_ENTRY_BYTES:
            raise self._cursor.lie("it announces more than the file holds")
        if tensors > MAX_TENSORS or keys > MAX_KEYS:
            raise BoundReachedError
        yield from self._read_keys(keys)
        yield from self._read_tensors(tensors)
        self._check_spans()
        return self._facts(tensors)

    def _read_keys(self, number: int) -> Reading[None]:
        seen: set[bytes] = set()
        for _ in range(number):
            key = yield from self._text(MAX_KEY_BYTES)
            if key in seen:
                raise self._cursor.lie("it has two values of one key")
            seen.add(key)
            kind = yield from self._cursor.unpack(self._u32)
            if kind == _ARRAY:
                yield from self._skip_array()
            elif kind == _TEXT:
                yield from self._read_text(key)
            elif kind in self._integers:
                value = yield from self._cursor.unpack(self._integers[kind])
                if key.startswith(b"general.") or key.endswith(b".context_length"):
                    self._numbers[key] = value
            else:
                self._cursor.skip(self._width(kind))

    def _read_text(self, key: bytes) -> Reading[None]:
        length = yield from self._cursor.unpack(self._u64)
        if key != b"general.architecture" or length > 4 * MAX_WORD_CHARS:
            self._cursor.skip(length)
            return
        text = yield from self._cursor.take(length)
        self._architecture = word(text.decode(errors="replace"))

    def _skip_array(self) -> Reading[None]:
        kind = yield from self._cursor.unpack(self._u32)
        number = yield from self._cursor.unpack(self._u64)
        if kind == _TEXT:
            if number > self._cursor.size // 8:
                raise self._cursor.lie("it announces more than the file holds")
            yield from self._cursor.skip_texts(number, self._u64)
        else:
            self._cursor.skip(number * self._width(kind))

    def _width(self, kind: int) -> int:
        if kind in self._integers:
            return self._integers[kind].size
        if kind not in _OTHERS:
            # Arrays of arrays are among these: no reader takes them.
            raise self._cursor.lie("a value in it has no type of the format")
        return _OTHERS[kind]

    def _text(self, limit_bytes: int) -> Reading[bytes]:
        length = yield from self._cursor.unpack(self._u64)
        if length > limit_bytes:
            raise self._cursor.lie("a name in it is longer than a name can be")
        return (yield from self._cursor.take(length))

    def _read_tensors(self, number: int) -> Reading[None]:
        seen: set[bytes] = set()
        for _ in range(number):
            name = yield from self._text(MAX_NAME_BYTES)
            if name in seen:
                raise self._cursor.lie("it has two tensors of one name")
            seen.add(name)
            dimensions = yield from self._cursor.unpack(self._u32)
            if dimensions > MAX_DIMENSIONS:
                raise self._cursor.lie("a tensor has more dimensions than one can have")
            shape: list[int] = []
            for _dimension in range(dimensions):
                shape.append((yield from self._cursor.unpack(self._u64)))  # noqa: PERF401  no comprehension can yield
            kind = yield from self._cursor.unpack(self._u32)
            offset = yield from self._cursor.unpack(self._u64)
            self._add(shape, kind, offset)

    def _add(self, shape: list[int], kind: int, offset: int) -> None:
        # A type that is newer than this reader has bytes, but nobody here knows how many.
        name, block, block_bytes = _TYPES.get(kind, (None, 1, 0))
        elements = prod(shape)
        if (shape[0] if shape else 1) % block:
            raise self._cursor.lie("a tensor's rows are not whole blocks of its type")
        size = elements // block * block_bytes
        if elements > MAX_NUMBER or offset + size > self._cursor.size:
            raise self._cursor.lie("a tensor lies outside of the file")
        self._elements[name] += elements
        self._spans.append((offset, size))

    def _check_spans(self) -> None:
        if not self._spans:
            return
        alignment = self._numbers.get(b"general.alignment", DEFAULT_ALIGNMENT)
        if not 0 < alignment <= MAX_ALIGNMENT or alignment & (alignment - 1):
            raise self._cursor.lie("its alignment is no power of two")
        start = -(-self._cursor.position // alignment) * alignment
        reached = 0
        for offset, size in sorted(self._spans):
            if offset % alignment or offset < reached:
                raise self._cursor.lie("its tensors overlap, or are not aligned")
            reached = offset + size
        if start + reached > self._cursor.size:
            raise self._cursor.lie("a tensor lies outside of the file")

    def _facts(self, tensors: int) -> Facts:
        dtype = self._elements.most_common(1)[0][0] if self._elements else None
        # A type that was guessed by the file's maker is marked by 1024 on top of it.
        file_type = self._numbers.get(b"general.file_type", 0) & 1023
        quantisation = _FILE_TYPES.get(file_type)
        if quantisation is None and dtype is not None and _is_quantised(dtype):
            quantisation = dtype
        return Facts(
            format="gguf",
            architecture=self._architecture,
            parameters=min(self._elements.total(), MAX_NUMBER) if tensors else None,
            dtype=dtype,
            quantisation=quantisation,
            context_length=self._context_length(),
            tensor_count=tensors,
        )

    def _context_length(self) -> int | None:
        own = f"{self._architecture}.context_length".encode()
        return count(self._numbers.get(own))


def _is_quantised(dtype: str) -> bool:
    return not dtype.startswith(("F", "BF", "I8", "I16", "I32", "I64"))
