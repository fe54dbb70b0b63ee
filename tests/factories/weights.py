"""Files of weights, small and sound, or wrong in the one way a test is about."""

import io
import json
import struct
import zipfile
from collections.abc import Callable, Mapping, Sequence
from math import prod

_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "U8": 1, "BOOL": 1}
_GGUF_TYPES = {"F32": (0, 1, 4), "F16": (1, 1, 2), "Q8_0": (8, 32, 34), "Q4_K": (12, 256, 144)}

Shapes = Mapping[str, tuple[str, Sequence[int]]]
"""Tensors by name: their type and shape."""

WEIGHTS: Shapes = {"embed": ("F16", [32, 4]), "norm": ("F32", [4])}


def fetcher(content: bytes, fetched: list[tuple[int, int]] | None = None) -> Callable[..., bytes]:
    """Give bytes to a reader, and insist that they are in the file."""

    def fetch(start: int, stop: int) -> bytes:
        assert 0 <= start < stop <= len(content)
        if fetched is not None:
            fetched.append((start, stop))
        return content[start:stop]

    return fetch


def safetensors_header(tensors: Shapes) -> dict[str, object]:
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, (dtype, shape) in tensors.items():
        size = prod(shape) * _BYTES[dtype]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    return header


def make_safetensors(
    tensors: Shapes = WEIGHTS, *, header: object = None, data: bytes | None = None
) -> bytes:
    """Make a file; `header` is JSON, or its text, instead of the one that fits the tensors."""
    told = safetensors_header(tensors) if header is None else header
    text = told if isinstance(told, bytes) else json.dumps(told).encode()
    if data is None:
        data = bytes(sum(prod(shape) * _BYTES[dtype] for dtype, shape in tensors.values()))
    return len(text).to_bytes(8, "little") + text + data


def make_gguf(
    tensors: Shapes = WEIGHTS,
    *,
    keys: Mapping[str, object] | None = None,
    order: str = "<",
    alignment: int = 32,
    more_keys: Sequence[bytes] = (),
) -> bytes:
    """Make a file; of `keys`, texts, whole numbers and lists of them are written."""
    told = {"general.architecture": "llama", "llama.context_length": 4096} if keys is None else keys
    head = struct.pack(f"{order}4sIQQ", b"GGUF", 3, len(tensors), len(told) + len(more_keys))
    for key, value in told.items():
        head += gguf_text(key, order) + _gguf_value(value, order)
    head += b"".join(more_keys)
    data = b""
    for name, (dtype, shape) in tensors.items():
        kind, block, block_bytes = _GGUF_TYPES[dtype]
        data += bytes(-len(data) % alignment)
        head += gguf_text(name, order)
        head += struct.pack(f"{order}I{len(shape)}QIQ", len(shape), *shape, kind, len(data))
        data += bytes(prod(shape) // block * block_bytes)
    return head + bytes(-len(head) % alignment) + data


def gguf_text(text: str, order: str = "<") -> bytes:
    return struct.pack(f"{order}Q", len(text.encode())) + text.encode()


def _gguf_value(value: object, order: str) -> bytes:
    match value:
        case str():
            return struct.pack(f"{order}I", 8) + gguf_text(value, order)
        case int():
            return struct.pack(f"{order}IQ", 10, value)
        case list() if value and isinstance(value[0], str):
            texts = b"".join(gguf_text(text, order) for text in value)
            return struct.pack(f"{order}IIQ", 9, 8, len(value)) + texts
        case list():
            return struct.pack(f"{order}IIQ{len(value)}i", 9, 5, len(value), *value)
        case _:
            raise TypeError(value)


def make_zip(
    files: Mapping[str, bytes], *, method: int = zipfile.ZIP_DEFLATED, mode: int = 0o644
) -> bytes:
    """Make an archive; `mode` is what Unix says of all its entries."""
    room = io.BytesIO()
    with zipfile.ZipFile(room, "w", method) as archive:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name)
            entry.external_attr = mode << 16
            entry.compress_type = method
            archive.writestr(entry, content)
    return room.getvalue()
