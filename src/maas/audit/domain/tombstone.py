"""A tombstone: which rows the log gave up, when and why; signed, and chained to the one before.

The rows stay in the chain and under their checkpoints. A row without an event is in order where a
valid tombstone names it, and nowhere else.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from hashlib import sha256
from typing import Final, cast, get_args

from maas.audit.domain.checkpoint import (
    SIGNATURE_BYTES,
    MalformedCheckpointError,
    read_hex,
)
from maas.audit.domain.event import Json, canonical, spell_instant
from maas.audit.domain.merkle import HASH_BYTES
from maas.audit.domain.retention import RetentionClass

VERSION: Final = 1
STATEMENT: Final = "maas.audit.tombstone"
GENESIS: Final = bytes(HASH_BYTES)
"""What the first tombstone is chained to."""

_CLASSES: Final = frozenset(get_args(RetentionClass))
_MAX_TEXT_CHARS: Final = 256


class MalformedTombstoneError(ValueError):
    """These are not the fields of a tombstone of a version this code reads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveFile:
    """Where the events were written before they were dropped; `name` has no folder."""

    name: str
    sha256: bytes
    size: int

    def to_mapping(self) -> dict[str, Json]:
        return {"name": self.name, "sha256": self.sha256.hex(), "size": self.size}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tombstone:
    """What is signed.

    `members` is the SHA-256 of the packed set of row numbers, `digest` binds those rows' numbers
    and leaves (`RowDigest`). `period` is the first day of the month the rows were recorded in.
    """

    n: int
    retention_class: RetentionClass
    period: date
    rows: int
    first_seq: int
    last_seq: int
    members: bytes
    digest: bytes
    archive: ArchiveFile | None
    policy_days: int
    actor: str
    decided_at: datetime
    key_id: str
    previous: bytes

    def to_mapping(self) -> dict[str, Json]:
        return {
            "statement": STATEMENT,
            "v": VERSION,
            "n": self.n,
            "retention_class": self.retention_class,
            "period": self.period.isoformat(),
            "rows": self.rows,
            "first_seq": self.first_seq,
            "last_seq": self.last_seq,
            "members": self.members.hex(),
            "digest": self.digest.hex(),
            "archive": None if self.archive is None else self.archive.to_mapping(),
            "policy_days": self.policy_days,
            "actor": self.actor,
            "decided_at": spell_instant(self.decided_at),
            "key_id": self.key_id,
            "previous": self.previous.hex(),
        }

    def to_bytes(self) -> bytes:
        """Spell the canonical bytes that are hashed and signed."""
        return canonical(self.to_mapping())

    def hash(self) -> bytes:
        """Hash it; the leading three keeps tombstones apart from checkpoints, leaves and nodes."""
        return sha256(b"\x03" + self.to_bytes()).digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedTombstone:
    tombstone: Tombstone
    signature: bytes

    def to_mapping(self) -> dict[str, Json]:
        return {**self.tombstone.to_mapping(), "signature": self.signature.hex()}


def read_signed_tombstone(fields: Mapping[str, object]) -> SignedTombstone:
    """Read what `SignedTombstone.to_mapping` spelled; other fields beside it are passed over.

    Raises:
        MalformedTombstoneError: a field is missing or of a wrong kind, or the version is another.
    """
    if fields.get("v") != VERSION or fields.get("statement") != STATEMENT:
        raise MalformedTombstoneError("the tombstone has a version this code does not read")
    retention_class = fields.get("retention_class")
    if retention_class not in _CLASSES:
        raise MalformedTombstoneError("the tombstone's class is none")
    try:
        tombstone = Tombstone(
            n=_number(fields, "n"),
            retention_class=cast("RetentionClass", retention_class),
            period=_day(fields, "period"),
            rows=_number(fields, "rows"),
            first_seq=_number(fields, "first_seq"),
            last_seq=_number(fields, "last_seq"),
            members=read_hex(fields, "members", HASH_BYTES),
            digest=read_hex(fields, "digest", HASH_BYTES),
            archive=_archive(fields.get("archive")),
            policy_days=_number(fields, "policy_days"),
            actor=_text(fields, "actor"),
            decided_at=_instant(fields, "decided_at"),
            key_id=_text(fields, "key_id"),
            previous=read_hex(fields, "previous", HASH_BYTES),
        )
        return SignedTombstone(
            tombstone=tombstone, signature=read_hex(fields, "signature", SIGNATURE_BYTES)
        )
    except MalformedCheckpointError as exc:
        raise MalformedTombstoneError(str(exc)) from exc


def _archive(value: object) -> ArchiveFile | None:
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise MalformedTombstoneError("the tombstone's archive is no file")
    return ArchiveFile(
        name=_text(value, "name"),
        sha256=read_hex(value, "sha256", HASH_BYTES),
        size=_number(value, "size"),
    )


def _number(fields: Mapping[str, object], name: str) -> int:
    value = fields.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < 2**63:
        raise MalformedTombstoneError(f"the tombstone's {name} is no positive number")
    return value


def _text(fields: Mapping[str, object], name: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= _MAX_TEXT_CHARS:
        raise MalformedTombstoneError(f"the tombstone's {name} is no text")
    return value


def _day(fields: Mapping[str, object], name: str) -> date:
    try:
        return date.fromisoformat(_text(fields, name))
    except ValueError as exc:
        raise MalformedTombstoneError(f"the tombstone's {name} is no day") from exc


def _instant(fields: Mapping[str, object], name: str) -> datetime:
    try:
        at = datetime.fromisoformat(_text(fields, name))
    except ValueError as exc:
        raise MalformedTombstoneError(f"the tombstone's {name} is no time") from exc
    if at.tzinfo is None:
        raise MalformedTombstoneError(f"the tombstone's {name} is no time with a zone")
    return at.astimezone(UTC)
