"""What the name and the first bytes of a file say about its format, and who reads on from there."""

from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Mapping

from maas.model.domain.archive import EMPTY, read_archive
from maas.model.domain.config import NAME as CONFIG_NAME
from maas.model.domain.config import read_config
from maas.model.domain.facts import (
    ArchiveRefusedError,
    Facts,
    Format,
    LyingHeaderError,
)
from maas.model.domain.file import FilePath
from maas.model.domain.gguf import is_gguf, read_gguf
from maas.model.domain.onnx import read_onnx
from maas.model.domain.pickles import (
    ARCHIVE_MAGIC,
    is_named_pickle,
    is_pickle,
    looks_like_safetensors,
)
from maas.model.domain.reading import BoundReachedError, Reading
from maas.model.domain.safetensors import read_safetensors
from maas.shared.domain.errors import UnsupportedMediaError

SNIFFED_BYTES = 64 * 1024

_FORMATS: Mapping[str, Format] = {
    ".safetensors": "safetensors",
    ".gguf": "gguf",
    ".onnx": "onnx",
    ".zip": "zip",
}
"""What a name promises: then the file is that, or it is refused."""

_READERS: Mapping[Format, Callable[[int], Reading[Facts | None]]] = {
    "safetensors": read_safetensors,
    "gguf": read_gguf,
    "onnx": read_onnx,
    "config": read_config,
}


class PickleRefusedError(UnsupportedMediaError):
    code = "pickle-refused"
    title = "Pickle files are not accepted"

    def __init__(self) -> None:
        super().__init__(
            "The file is a Python pickle (as .pkl, .pt, .pth and .bin often are): loading one runs "
            "whatever code it holds. Convert the weights to safetensors or GGUF and upload those."
        )


def read_facts(
    path: FilePath, size: int, head: bytes, *, limit_unpacked_bytes: int
) -> Reading[Facts | None]:
    """Read what the file says of itself; `None` if it is of no kind that is read.

    `head` are its first `SNIFFED_BYTES`, or all it has. Of a file that has more to say than is
    read of one, the format alone is told.

    Raises:
        LyingHeaderError, ArchiveRefusedError: it will not do.
    """
    file_format = _format_of(path, head)
    if file_format is None:
        return (yield from _guess(size, head))
    if file_format == "pickle":
        return Facts(format="pickle")
    if file_format == "zip":
        return (yield from _read_archive(size, head, limit_unpacked_bytes))
    try:
        return (yield from _READERS[file_format](size))
    except BoundReachedError:
        return Facts(format=file_format)


def _format_of(path: FilePath, head: bytes) -> Format | None:
    """Tell by the name, else by signs that nothing else begins with."""
    name = path.name.lower()
    for ending, promised in _FORMATS.items():
        if name.endswith(ending):
            return promised
    if head.startswith(ARCHIVE_MAGIC):
        return "zip"
    if is_gguf(head):
        return "gguf"
    if is_named_pickle(name) or is_pickle(head):
        return "pickle"
    return "config" if name == CONFIG_NAME else None


def _read_archive(size: int, head: bytes, limit_bytes: int) -> Reading[Facts]:
    if not head.startswith((ARCHIVE_MAGIC, EMPTY)):
        raise ArchiveRefusedError("it does not begin as a zip archive does")
    facts = yield from read_archive(size, limit_bytes=limit_bytes)
    return Facts(format="pickle") if is_pickle(head) else facts


def _guess(size: int, head: bytes) -> Reading[Facts | None]:
    """Read what only looks like safetensors, which has no sign of its own; it may be no such."""
    if not looks_like_safetensors(head):
        return None
    try:
        return (yield from read_safetensors(size))
    except (LyingHeaderError, BoundReachedError):
        return None


async def _never() -> bool:
    return False


async def refusing_pickle(
    body: AsyncIterable[bytes], *, unless: Callable[[], Awaitable[bool]] = _never
) -> AsyncIterator[bytes]:
    """Pass a body on unless it begins like a pickle; holds `SNIFFED_BYTES` back to see.

    Whether pickles are allowed is only asked when there is one.

    Raises:
        PickleRefusedError: it does, and nothing was passed on.
    """
    chunks = aiter(body)
    head = bytearray()
    while len(head) < SNIFFED_BYTES and (chunk := await anext(chunks, None)) is not None:
        head += chunk
    if is_pickle(bytes(head[:SNIFFED_BYTES])) and not await unless():
        raise PickleRefusedError
    yield bytes(head)
    async for chunk in chunks:
        yield chunk
