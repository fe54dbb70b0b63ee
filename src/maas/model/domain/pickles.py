"""How pickles are known, which run whatever code they hold when they are loaded.

A sieve against what common tools write, not proof against forgery: nothing here loads files.
"""

from maas.model.domain.safetensors import MAX_FORMAT_BYTES

ARCHIVE_MAGIC = b"PK\x03\x04"

_PROTOCOLS = frozenset(range(2, 6))
_NAMES = (".pkl", ".pickle", ".joblib")
_LIKELY_NAMES = (*_NAMES, ".bin", ".ckpt", ".pt", ".pth")


def is_pickle(head: bytes) -> bool:
    """Tell by its first bytes whether a file is a pickle, or a PyTorch archive of one."""
    if head.startswith(ARCHIVE_MAGIC):
        return b"data.pkl" in head
    if len(head) < 2 or head[0] != 0x80 or head[1] not in _PROTOCOLS:  # noqa: PLR2004  pickle's PROTO opcode
        return False
    return not looks_like_safetensors(head)


def is_named_pickle(path: str) -> bool:
    """Tell whether a name says that it is a pickle, whatever the bytes are."""
    return path.lower().endswith(_NAMES)


def is_named_like_pickle(path: str) -> bool:
    """Tell whether pickles often have such a name; weights of other kinds may have it too."""
    return path.lower().endswith(_LIKELY_NAMES)


def looks_like_safetensors(head: bytes) -> bool:
    """Tell by the first bytes; the header's length may begin with the same two as a pickle."""
    length = int.from_bytes(head[:8], "little")
    return length <= MAX_FORMAT_BYTES and head[8:10] in {b'{"', b"{}", b"{ "}
