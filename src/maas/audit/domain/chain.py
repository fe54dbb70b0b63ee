"""The hash chain: each row's hash binds its place, its time, its event and all rows before it."""

from datetime import UTC, datetime, timedelta
from hashlib import sha256

GENESIS = bytes(32)
"""What the first row is chained to."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def leaf_of(payload: bytes) -> bytes:
    """Hash an event's canonical bytes; the leading zero keeps leaves apart from tree nodes."""
    return sha256(b"\x00" + payload).digest()


def micros(at: datetime) -> bytes:
    """Spell a time as whole microseconds since 1970 in eight bytes, most significant first."""
    return ((at - _EPOCH) // _MICROSECOND).to_bytes(8, "big")


def row_hash(previous: bytes, *, seq: int, recorded_micros: bytes, leaf: bytes) -> bytes:
    return sha256(previous + seq.to_bytes(8, "big") + recorded_micros + leaf).digest()
