"""What the first bytes of a file say about its format."""

from collections.abc import AsyncIterable, AsyncIterator

from maas.shared.domain.errors import UnsupportedMediaError

SNIFFED_BYTES = 64 * 1024
MAX_SAFETENSORS_HEADER_BYTES = 100_000_000

_ZIP = b"PK\x03\x04"
_PICKLE_PROTOCOLS = frozenset(range(2, 6))


class PickleRefusedError(UnsupportedMediaError):
    code = "pickle-refused"
    title = "Pickle files are not accepted"

    def __init__(self) -> None:
        super().__init__(
            "The file is a Python pickle (as .pkl, .pt, .pth and .bin often are): loading one runs "
            "whatever code it holds. Convert the weights to safetensors or GGUF and upload those."
        )


def is_pickle(head: bytes) -> bool:
    """Tell by its first `SNIFFED_BYTES` whether a file is a pickle, or a PyTorch archive of one.

    A sieve against what common tools write, not proof against forgery: nothing here loads files.
    """
    if head.startswith(_ZIP):
        return b"data.pkl" in head
    if len(head) < 2 or head[0] != 0x80 or head[1] not in _PICKLE_PROTOCOLS:  # noqa: PLR2004  pickle's PROTO opcode
        return False
    return not _is_safetensors(head)


def _is_safetensors(head: bytes) -> bool:
    # Its header length may begin with the same two bytes as a pickle; then JSON follows.
    length = int.from_bytes(head[:8], "little")
    return length <= MAX_SAFETENSORS_HEADER_BYTES and head[8:10] in {b'{"', b"{}", b"{ "}


async def refusing_pickle(body: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    """Pass a body on unless it begins like a pickle; holds `SNIFFED_BYTES` back to see.

    Raises:
        PickleRefusedError: it does, and nothing was passed on.
    """
    head = bytearray()
    is_checked = False
    async for chunk in body:
        if is_checked:
            yield chunk
            continue
        head += chunk
        if len(head) >= SNIFFED_BYTES:
            if is_pickle(bytes(head[:SNIFFED_BYTES])):
                raise PickleRefusedError
            is_checked = True
            yield bytes(head)
    if not is_checked:
        if is_pickle(bytes(head)):
            raise PickleRefusedError
        yield bytes(head)
