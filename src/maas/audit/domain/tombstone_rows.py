"""The rows under a tombstone: which ones they are, and a digest of what was chained for them.

The classes of the log interleave, so that the rows of one are no stretch of the chain: they are
kept as a bit for each number, packed. That stays below a fifth of a byte a row of the chain, and
names a row that is missing without a reason.
"""

import zlib
from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import Final

BLOCK_SEQS: Final = 16_384
"""A digest is made block by block, so that reading a month may stop between two and go on."""


class UnreadableRowsError(ValueError):
    """The packed set of rows is not one for these bounds."""


class RowSet:
    """Numbers of rows from a first one on; grows as they are added."""

    def __init__(self, base: int, bits: bytes = b"") -> None:
        self.base = base
        self._bits = bytearray(bits)

    def add(self, seq: int) -> None:
        place = seq - self.base
        missing = (place >> 3) + 1 - len(self._bits)
        if missing > 0:
            self._bits.extend(bytes(missing))
        self._bits[place >> 3] |= 1 << (place & 7)

    def __contains__(self, seq: int) -> bool:
        place = seq - self.base
        return 0 <= place < len(self._bits) << 3 and bool(self._bits[place >> 3] >> (place & 7) & 1)

    def __len__(self) -> int:
        return int.from_bytes(self._bits, "little").bit_count()

    def pack(self) -> bytes:
        return zlib.compress(bytes(self._bits))


def unpack_rows(packed: bytes, *, first_seq: int, last_seq: int) -> RowSet:
    """Read a set back, within its bounds: what is packed may say anything.

    Raises:
        UnreadableRowsError: it is none, or larger than the bounds say.
    """
    size = (last_seq - first_seq >> 3) + 1
    unpacking = zlib.decompressobj()
    try:
        bits = unpacking.decompress(packed, max(1, size))
    except zlib.error as exc:
        raise UnreadableRowsError("the set of rows cannot be unpacked") from exc
    if size < 1 or len(bits) != size or not unpacking.eof:
        raise UnreadableRowsError("the set of rows is not as large as its bounds say")
    return RowSet(first_seq, bits)


class RowDigest:
    """Takes rows in order of `seq`; `blocks` are the digests of blocks that are complete."""

    def __init__(self, blocks: Iterable[bytes] = ()) -> None:
        self.blocks = list(blocks)
        self._number: int | None = None
        self._open = sha256()

    def take(self, seq: int, leaf: bytes) -> None:
        number = seq // BLOCK_SEQS
        if number != self._number:
            self.close_block()
            self._number, self._open = number, sha256(b"\x04" + number.to_bytes(8, "big"))
        self._open.update(seq.to_bytes(8, "big") + leaf)

    def close_block(self) -> None:
        """End the open block: no more of its rows will come."""
        if self._number is not None:
            self.blocks.append(self._open.digest())
            self._number = None

    def digest(self) -> bytes:
        self.close_block()
        return sha256(b"\x05" + b"".join(self.blocks)).digest()


def block_end(seq: int) -> int:
    """Name the last row of a row's block."""
    return seq // BLOCK_SEQS * BLOCK_SEQS + BLOCK_SEQS - 1


def digest_of(rows: Sequence[tuple[int, bytes]]) -> bytes:
    """Digest rows that are all at hand, as pairs of number and leaf."""
    digest = RowDigest()
    for seq, leaf in rows:
        digest.take(seq, leaf)
    return digest.digest()
