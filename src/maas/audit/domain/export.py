"""One tenant's events as lines of JSON that prove themselves: what the lines are.

Beside its events with their payloads stands the chain's row of every other event, so that the chain
and its checkpoints can be followed from the first row of the stretch to the last without a server.
The last line counts and hashes what went before; the server signs it with the header, for nothing
else says that none of the tenant's events was passed off as another's.

Events that were dropped when their time was up are in the chain like those of others; the
tombstones that say so are there too, before the last line.

The text is hashed in pieces that end at marks. Whoever goes on at a mark needs the hash of what
went before and not its text, so a download that was cut off is continued and still proves itself.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, Final, Literal, NamedTuple, TypeAlias, get_args
from uuid import UUID

from maas.audit.domain.chain_check import ChainRow, Start
from maas.audit.domain.checkpoint import GENESIS, read_hex
from maas.audit.domain.event import Json, canonical, spell_instant
from maas.audit.domain.merkle import HASH_BYTES

VERSION: Final = 1

Content: TypeAlias = Literal["full", "proof"]
"""With the events themselves, or only with what a CSV or Parquet file of them is checked with."""

_encode: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


class OwnRow(NamedTuple):
    """One of the tenant's events as a proof knows it."""

    row: ChainRow
    duration_ms: int | None
    has_personal: bool


class MalformedExportError(ValueError):
    """This is no export of a version this code reads."""


@dataclass(slots=True, kw_only=True)
class Counts:
    """How many lines of each kind went before the last."""

    events: int = 0
    others: int = 0
    checkpoints: int = 0
    tombstones: int = 0

    def to_mapping(self) -> dict[str, int]:
        return asdict(self)


def read_counts(fields: Mapping[str, Any]) -> Counts:
    return Counts(**{name: whole(fields[name]) for name in Counts.__slots__})


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """Whose events these are, and which: those that occurred in a time, of a stretch of the chain.

    `start` is the first row of a checkpoint, and what it follows from; `seq_to` is the last row of
    another. `wanted` are filters by name. Without any, no event of the tenant is left out.
    `upto_seq` is the row that whoever asked wanted to be the last, whatever came behind it.
    """

    tenant_id: str
    content: Content = "full"
    since: datetime | None = None
    until: datetime | None = None
    wanted: Mapping[str, str] = field(default_factory=dict)
    upto_seq: int | None = None
    start: Start
    seq_to: int
    exported_at: datetime

    def to_mapping(self) -> dict[str, Json]:
        start = self.start
        return {
            "v": VERSION,
            "tenant_id": self.tenant_id,
            "content": self.content,
            "since": None if self.since is None else spell_instant(self.since),
            "until": None if self.until is None else spell_instant(self.until),
            "filter": dict(self.wanted),
            "upto_seq": self.upto_seq,
            "start": {
                "seq": start.seq,
                "n": start.n,
                "row_hash": start.row_hash.hex(),
                "checkpoint_hash": start.checkpoint_hash.hex(),
            },
            "seq_to": self.seq_to,
            "exported_at": spell_instant(self.exported_at),
        }


def read_header(fields: Mapping[str, Any]) -> Header:
    """Read what `Header.to_mapping` spelled.

    Raises:
        MalformedExportError: it is of another version or of no known content.
        ValueError, TypeError, KeyError, AttributeError: a field is missing or of a wrong kind.
    """
    if fields["v"] != VERSION:
        raise MalformedExportError("it has a version this code does not read")
    if fields["content"] not in get_args(Content):
        raise MalformedExportError("it has a content this code does not read")
    start, wanted = fields["start"], fields["filter"]
    return Header(
        tenant_id=str(UUID(fields["tenant_id"])),
        content=fields["content"],
        since=_instant_or_none(fields["since"]),
        until=_instant_or_none(fields["until"]),
        wanted={str(name): str(value) for name, value in wanted.items()},
        upto_seq=None if fields["upto_seq"] is None else whole(fields["upto_seq"]),
        start=Start(
            seq=whole(start["seq"]),
            n=whole(start["n"]),
            row_hash=read_hex(start, "row_hash", HASH_BYTES),
            checkpoint_hash=read_hex(start, "checkpoint_hash", HASH_BYTES),
        ),
        seq_to=whole(fields["seq_to"]),
        exported_at=instant(fields["exported_at"]),
    )


def spell_line(kind: str, fields: Mapping[str, Any]) -> bytes:
    return _encode({"type": kind, **fields}).encode(errors="replace") + b"\n"


def spell_mark(seq: int, cursor: str) -> bytes:
    """Spell the line behind which a download may go on."""
    return spell_line("mark", {"seq": seq, "cursor": cursor})


def spell_statement(header: Header, counts: Counts, digest: bytes) -> bytes:
    """Spell what the server signs: these are all the events that the header speaks of."""
    return canonical(
        {
            "statement": "maas.audit.export",
            "header": header.to_mapping(),
            **counts.to_mapping(),
            "digest": digest.hex(),
        }
    )


class Digest:
    """SHA-256 in pieces: each hash begins with the hash of all pieces before."""

    def __init__(self, before: bytes = GENESIS) -> None:
        self._piece = sha256(before)

    def update(self, text: bytes) -> None:
        self._piece.update(text)

    def close_piece(self) -> bytes:
        """Return the hash of everything so far, and begin the next piece."""
        digest = self._piece.digest()
        self._piece = sha256(digest)
        return digest


def _instant_or_none(text: object) -> datetime | None:
    return None if text is None else instant(text)


def instant(text: object) -> datetime:
    """Read a time with a zone, as UTC."""
    at = datetime.fromisoformat(str(text))
    if at.tzinfo is None:
        raise MalformedExportError("a time has no zone")
    return at.astimezone(UTC)


def whole(value: object) -> int:
    """Read a whole number that PostgreSQL holds."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**63:
        raise MalformedExportError("a number is none, or out of range")
    return value
