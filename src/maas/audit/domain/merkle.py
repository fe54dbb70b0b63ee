"""The hash tree over the leaves of one checkpoint, as RFC 9162 has it (2.1).

Leaves come hashed (`leaf_of`: a zero byte first); a node hashes a one and its two halves.
"""

from collections.abc import Sequence
from hashlib import sha256

HASH_BYTES = 32


def root_of(leaves: Sequence[bytes]) -> bytes:
    """Hash a tree up to its root.

    Raises:
        ValueError: there is no leaf.
    """
    if not leaves:
        message = "a tree has at least one leaf"
        raise ValueError(message)
    level = leaves
    while len(level) > 1:
        level = _parents(level)
    return level[0]


def inclusion_path(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """List the siblings on a leaf's way up, from the bottom.

    Raises:
        IndexError: there is no leaf of that index.
    """
    if not 0 <= index < len(leaves):
        message = f"no leaf {index} in a tree of {len(leaves)}"
        raise IndexError(message)
    path, level = [], leaves
    while len(level) > 1:
        sibling = index ^ 1
        if sibling < len(level):
            path.append(level[sibling])
        index >>= 1
        level = _parents(level)
    return path


def is_included(leaf: bytes, *, index: int, size: int, path: Sequence[bytes], root: bytes) -> bool:
    """Tell whether the path leads from the leaf at this index to the root (RFC 9162, 2.1.3.2)."""
    if not 0 <= index < size:
        return False
    place, last, value = index, size - 1, leaf
    for sibling in path:
        if last == 0:
            return False
        if place & 1 or place == last:
            value = _node(sibling, value)
            while place and not place & 1:
                place, last = place >> 1, last >> 1
        else:
            value = _node(value, sibling)
        place, last = place >> 1, last >> 1
    return last == 0 and value == root


def _node(left: bytes, right: bytes) -> bytes:
    return sha256(b"\x01" + left + right).digest()


def _parents(level: Sequence[bytes]) -> list[bytes]:
    """Hash pairs; a last one without a partner goes up as it is."""
    pairs = zip(level[::2], level[1::2], strict=False)
    parents = [sha256(b"\x01" + left + right).digest() for left, right in pairs]
    if len(level) % 2:
        parents.append(level[-1])
    return parents
