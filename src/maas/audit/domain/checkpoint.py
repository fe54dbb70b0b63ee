"""A checkpoint: a stretch of the chain under one root, signed, and chained to the one before."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Final

from maas.audit.domain.event import Json, canonical, spell_instant
from maas.audit.domain.merkle import HASH_BYTES

VERSION = 1
GENESIS: Final = bytes(HASH_BYTES)
"""What the first checkpoint is chained to."""

MAX_LEAVES = 10_000
"""No checkpoint covers more, so that a proof reads few leaves."""

SIGNATURE_BYTES = 64
KEY_ID_CHARS = 16

_KEY_ID = re.compile(rf"[0-9a-f]{{{KEY_ID_CHARS}}}")


class MalformedCheckpointError(ValueError):
    """These are not the fields of a checkpoint of a version this code reads."""


def key_id_of(public_key: bytes) -> str:
    """Name a public key: the first 16 hexadecimal digits of its SHA-256."""
    return sha256(public_key).hexdigest()[:KEY_ID_CHARS]


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """What is signed. `head` is the row hash at `seq_to`, `previous` the last checkpoint's hash."""

    n: int
    seq_from: int
    seq_to: int
    recorded_at: datetime
    root: bytes
    head: bytes
    previous: bytes
    key_id: str

    @property
    def size(self) -> int:
        return self.seq_to - self.seq_from + 1

    def to_mapping(self) -> dict[str, Json]:
        return {
            "v": VERSION,
            "n": self.n,
            "seq_from": self.seq_from,
            "seq_to": self.seq_to,
            "recorded_at": spell_instant(self.recorded_at),
            "root": self.root.hex(),
            "head": self.head.hex(),
            "previous": self.previous.hex(),
            "key_id": self.key_id,
        }

    def to_bytes(self) -> bytes:
        """Spell the canonical bytes that are hashed and signed."""
        return canonical(self.to_mapping())

    def digest(self) -> bytes:
        """Hash it; the leading two keeps checkpoints apart from leaves and nodes."""
        return sha256(b"\x02" + self.to_bytes()).digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedCheckpoint:
    checkpoint: Checkpoint
    signature: bytes

    def to_mapping(self) -> dict[str, Json]:
        return {**self.checkpoint.to_mapping(), "signature": self.signature.hex()}


def read_signed_checkpoint(fields: Mapping[str, object]) -> SignedCheckpoint:
    """Read what `SignedCheckpoint.to_mapping` spelled; other fields beside it are passed over.

    Raises:
        MalformedCheckpointError: a field is missing or of a wrong kind, or the version is another.
    """
    if fields.get("v") != VERSION:
        raise MalformedCheckpointError("the checkpoint has a version this code does not read")
    key_id = fields.get("key_id")
    if not isinstance(key_id, str) or not _KEY_ID.fullmatch(key_id):
        raise MalformedCheckpointError("the checkpoint's key_id is none")
    checkpoint = Checkpoint(
        n=_number(fields, "n"),
        seq_from=_number(fields, "seq_from"),
        seq_to=_number(fields, "seq_to"),
        recorded_at=_instant(fields, "recorded_at"),
        root=read_hex(fields, "root", HASH_BYTES),
        head=read_hex(fields, "head", HASH_BYTES),
        previous=read_hex(fields, "previous", HASH_BYTES),
        key_id=key_id,
    )
    signature = read_hex(fields, "signature", SIGNATURE_BYTES)
    return SignedCheckpoint(checkpoint=checkpoint, signature=signature)


def read_hex(fields: Mapping[str, object], name: str, size: int) -> bytes:
    """Read bytes of a known size from hexadecimal digits.

    Raises:
        MalformedCheckpointError: it is missing, or something else.
    """
    value = fields.get(name)
    try:
        raw = bytes.fromhex(value) if isinstance(value, str) else b""
    except ValueError:
        raw = b""
    if len(raw) != size:
        raise MalformedCheckpointError(f"{name} is not {size} bytes in hexadecimal")
    return raw


def _number(fields: Mapping[str, object], name: str) -> int:
    value = fields.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 2**63:
        raise MalformedCheckpointError(f"the checkpoint's {name} is no positive number")
    return value


def _instant(fields: Mapping[str, object], name: str) -> datetime:
    value = fields.get(name)
    try:
        at = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        raise MalformedCheckpointError(f"the checkpoint's {name} is no time with a zone")
    return at.astimezone(UTC)
