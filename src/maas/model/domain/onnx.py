"""Reads an ONNX file: protobuf, walked field by field down to the weights' types and shapes.

A library would build the whole message, gigabytes of weights included, before it said anything.
Weights are counted where graphs keep them. Wherever else a tensor can be, in nodes, in graphs
inside of nodes, in functions, it is only asked in which file its bytes are, for that file is opened
by whoever loads the model.
"""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Literal, NamedTuple, TypeAlias

from maas.model.domain.facts import MAX_NUMBER, Facts
from maas.model.domain.reading import BoundReachedError, Cursor, Reading

MAX_FILE_BYTES = 2**31 - 1
"""More than that, no reader of protobuf takes."""

MAX_READ_BYTES = 64 * 1024 * 1024
MAX_FIELDS = 200_000
MAX_DIMENSIONS = 64
MAX_DEPTH = 100
"""More messages inside of one another, no reader of protobuf takes."""

MAX_LOCATION_BYTES = 4 * 1024
_MAX_SEARCHED_BYTES = 4 * 1024

_VARINT, _EIGHT_BYTES, _LENGTH, _FOUR_BYTES = 0, 1, 2, 5
_IR_VERSION, _GRAPH, _INITIALIZER = 1, 7, 5
_DIMS, _DATA_TYPE, _RAW_DATA, _EXTERNAL_DATA, _DATA_LOCATION = 1, 2, 9, 13, 14
_KEY, _VALUE = 1, 2
_LOCATION = b"location"
# From Python 3.12 on any character names a drive.
_DRIVE = re.compile(r".:", re.DOTALL)

_Kind: TypeAlias = Literal[
    "model", "graph", "node", "attribute", "sparse", "tensor", "training", "function"
]
_INSIDE: Mapping[_Kind, Mapping[int, _Kind]] = {
    "model": {_GRAPH: "graph", 20: "training", 25: "function"},
    "graph": {1: "node", _INITIALIZER: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {
        5: "tensor",
        6: "graph",
        10: "tensor",
        11: "graph",
        22: "sparse",
        23: "sparse",
    },
    "sparse": {1: "tensor", 2: "tensor"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "tensor": {},
}
"""Which of a message's fields can have tensors in them, and what those fields are."""

_TYPES = {
    1: ("F32", 32),
    2: ("U8", 8),
    3: ("I8", 8),
    4: ("U16", 16),
    5: ("I16", 16),
    6: ("I32", 32),
    7: ("I64", 64),
    9: ("BOOL", 8),
    10: ("F16", 16),
    11: ("F64", 64),
    12: ("U32", 32),
    13: ("U64", 64),
    14: ("C64", 64),
    15: ("C128", 128),
    16: ("BF16", 16),
    17: ("F8_E4M3", 8),
    18: ("F8_E4M3FNUZ", 8),
    19: ("F8_E5M2", 8),
    20: ("F8_E5M2FNUZ", 8),
    21: ("U4", 4),
    22: ("I4", 4),
    23: ("F4", 4),
    24: ("F8_E8M0", 8),
}
"""Types of tensors by number: the name, as safetensors has it, and the bits of an element."""

_QUANTISED = {"U8": "INT8", "I8": "INT8", "U4": "INT4", "I4": "INT4", "F4": "FP4"}


def read_onnx(size: int) -> Reading[Facts]:
    """Count the weights, wherever their bytes are, and hold those inside against the file.

    Raises:
        LyingHeaderError: it is not a model, a weight has other bytes than its shape wants, or its
            bytes are in a file that is not beside the model.
        BoundReachedError: there is more in it than what is read of it.
    """
    walk = _Walk(Cursor("onnx", size, limit_bytes=MAX_READ_BYTES))
    return (yield from walk.read())


class _Field(NamedTuple):
    """A field's number and kind; `value` is its number or its length."""

    number: int
    kind: int
    value: int


@dataclass(slots=True)
class _Tensor:
    shape: list[int] = field(default_factory=list)
    kind: int = 0
    raw_bytes: int | None = None
    is_elsewhere: bool = False


class _Walk:
    def __init__(self, cursor: Cursor) -> None:
        self._cursor = cursor
        self._fields = 0
        self._tensors = 0
        self._elements: Counter[str | None] = Counter()

    def read(self) -> Reading[Facts]:
        size = self._cursor.size
        if size > MAX_FILE_BYTES:
            raise self._cursor.lie("it is larger than a protobuf message can be")
        graphs = ir_version = 0
        while self._cursor.position < size:
            each = yield from self._next(size)
            if each.number == _IR_VERSION and each.kind == _VARINT:
                ir_version = each.value
            elif each.number == _GRAPH and each.kind == _LENGTH:
                graphs += 1
                yield from self._read_graph(self._cursor.position + each.value)
            else:
                yield from self._search(each, "model")
        if graphs != 1 or ir_version == 0:
            raise self._cursor.lie("it is no model: it has no version, or not one graph")
        return self._facts()

    def _next(self, end: int) -> Reading[_Field]:
        """Take a field's head; of one that has a length, the content comes next."""
        self._fields += 1
        if self._fields > MAX_FIELDS:
            raise BoundReachedError
        yield from self._cursor.need_varints(2)
        key = self._cursor.varint_at_hand()
        number, kind = key >> 3, key & 7
        if number == 0 or kind not in {_VARINT, _EIGHT_BYTES, _LENGTH, _FOUR_BYTES}:
            raise self._cursor.lie("it is not protobuf of the kind that ONNX is")
        value = self._cursor.varint_at_hand() if kind in {_VARINT, _LENGTH} else 0
        if self._cursor.position + (value if kind == _LENGTH else 0) > end:
            raise self._cursor.lie("a message in it is longer than what it is in")
        return _Field(number, kind, value)

    def _skip(self, each: _Field) -> None:
        sizes = {_LENGTH: each.value, _EIGHT_BYTES: 8, _FOUR_BYTES: 4}
        self._cursor.skip(sizes.get(each.kind, 0))

    def _read_graph(self, end: int) -> Reading[None]:
        while self._cursor.position < end:
            each = yield from self._next(end)
            if each.number == _INITIALIZER and each.kind == _LENGTH:
                yield from self._read_tensor(self._cursor.position + each.value)
            else:
                yield from self._search(each, "graph")
        self._check_end(end)

    def _search(self, each: _Field, outer: _Kind) -> Reading[None]:
        """Step over a field, but look into it first if tensors in it may be in other files.

        Of what is short, that is seen without reading it field by field.
        """
        kind = _INSIDE[outer].get(each.number) if each.kind == _LENGTH else None
        if kind is None or not (yield from self._may_point(each.value)):
            self._skip(each)
            return
        inner = [(kind, self._cursor.position + each.value)]
        while inner:
            kind, end = inner[-1]
            if self._cursor.position >= end:
                self._check_end(end)
                inner.pop()
                continue
            each = yield from self._next(end)
            within = _INSIDE[kind].get(each.number) if each.kind == _LENGTH else None
            if within is not None and (yield from self._may_point(each.value)):
                inner.append((within, self._cursor.position + each.value))
                if len(inner) > MAX_DEPTH:
                    raise self._cursor.lie("its messages are too deep inside of one another")
            elif kind == "tensor" and each.number == _EXTERNAL_DATA and each.kind == _LENGTH:
                yield from self._read_place(self._cursor.position + each.value)
            else:
                self._skip(each)

    def _may_point(self, size: int) -> Reading[bool]:
        if size > _MAX_SEARCHED_BYTES:
            return True
        return (yield from self._cursor.holds(_LOCATION, size))

    def _read_place(self, end: int) -> Reading[None]:
        """Refuse a tensor's word about its bytes if they are not beside the model, or below."""
        names: list[bytes] = []
        values: list[bytes | None] = []
        while self._cursor.position < end:
            each = yield from self._next(end)
            if each.number == _KEY and each.kind == _LENGTH and each.value == len(_LOCATION):
                names.append((yield from self._cursor.take(each.value)))
            elif each.number == _VALUE and each.kind == _LENGTH:
                if each.value > MAX_LOCATION_BYTES:
                    values.append(None)
                    self._skip(each)
                else:
                    values.append((yield from self._cursor.take(each.value)))
            else:
                self._skip(each)
        self._check_end(end)
        # Of a field that is there twice readers take the last one; here none may be bad.
        if _LOCATION in names and not all(_is_beside(value) for value in values):
            raise self._cursor.lie("a tensor's bytes are in a file that is not beside the model")

    def _read_tensor(self, end: int) -> Reading[None]:
        tensor = _Tensor()
        while self._cursor.position < end:
            each = yield from self._next(end)
            if each.number == _DIMS and each.kind in {_VARINT, _LENGTH}:
                yield from self._read_dims(tensor, each)
            elif each.number == _DATA_TYPE and each.kind == _VARINT:
                tensor.kind = each.value
            elif each.number == _DATA_LOCATION and each.kind == _VARINT:
                tensor.is_elsewhere = each.value == 1
            elif each.number == _EXTERNAL_DATA and each.kind == _LENGTH:
                yield from self._read_place(self._cursor.position + each.value)
            else:
                if each.number == _RAW_DATA and each.kind == _LENGTH:
                    tensor.raw_bytes = each.value
                self._skip(each)
        self._check_end(end)
        self._add(tensor)

    def _read_dims(self, tensor: _Tensor, each: _Field) -> Reading[None]:
        if each.kind == _VARINT:
            tensor.shape.append(each.value)
        else:
            end = self._cursor.position + each.value
            while self._cursor.position < end and len(tensor.shape) <= MAX_DIMENSIONS:
                tensor.shape.append((yield from self._cursor.varint()))
        if len(tensor.shape) > MAX_DIMENSIONS:
            raise self._cursor.lie("a tensor has more dimensions than one can have")

    def _check_end(self, end: int) -> None:
        if self._cursor.position != end:
            raise self._cursor.lie("a message in it is longer than what it is in")

    def _add(self, tensor: _Tensor) -> None:
        # Negative numbers are large ones here, so they are refused as well.
        elements = prod(tensor.shape)
        if max(elements, *tensor.shape, 0) > MAX_NUMBER:
            raise self._cursor.lie("a tensor is larger than anything can be")
        name, bits = _TYPES.get(tensor.kind, (None, 0))
        is_here = tensor.raw_bytes is not None and not tensor.is_elsewhere
        if is_here and bits and tensor.raw_bytes != -(-elements * bits // 8):
            raise self._cursor.lie("a tensor's bytes do not match its type and shape")
        self._tensors += 1
        self._elements[name] += elements

    def _facts(self) -> Facts:
        dtype = self._elements.most_common(1)[0][0] if self._elements else None
        return Facts(
            format="onnx",
            parameters=min(self._elements.total(), MAX_NUMBER),
            dtype=dtype,
            quantisation=None if dtype is None else _QUANTISED.get(dtype),
            tensor_count=self._tensors,
        )


def _is_beside(location: bytes | None) -> bool:
    """Tell whether a path stays in the model's folder, on any kind of machine."""
    if location is None:
        return False
    try:
        path = location.decode().replace("\\", "/")
    except UnicodeDecodeError:
        return False
    is_path = "\0" not in path and not path.startswith("/") and not _DRIVE.match(path)
    return is_path and ".." not in path.split("/")
