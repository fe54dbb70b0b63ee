"""Checks an export, line by line, without the server that made it."""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from maas.audit.domain.chain import GENESIS as CHAIN_GENESIS
from maas.audit.domain.chain import leaf_of
from maas.audit.domain.chain_check import ChainCheck, SignatureCheck, StoredCheckpoint
from maas.audit.domain.checkpoint import (
    GENESIS,
    MalformedCheckpointError,
    read_hex,
    read_signed_checkpoint,
)
from maas.audit.domain.export import (
    Counts,
    Digest,
    Header,
    MalformedExportError,
    OwnRow,
    instant,
    read_counts,
    read_header,
    spell_statement,
    whole,
)
from maas.audit.domain.fidelity import find_personal_difference
from maas.audit.domain.findings import Findings
from maas.audit.domain.merkle import HASH_BYTES
from maas.audit.domain.tombstone import (
    MalformedTombstoneError,
    SignedTombstone,
    Tombstone,
    read_signed_tombstone,
)

OWN: Final = {"full": "event", "proof": "own"}
"""How the line of one of the tenant's events is called, by content."""


class ExportCheck:
    """Takes an export line by line; memory holds the rows of one checkpoint.

    A file of a stretch proves that stretch: its first checkpoint's signature covers where it
    begins, what it follows from, and, through its rows, the hash of the row before. Of what lies
    before and after it proves nothing.
    """

    def __init__(self, *, keys: Mapping[str, bytes], is_signed: SignatureCheck) -> None:
        self.findings = Findings()
        self.counts = Counts()
        self.tombstones: list[Tombstone] = []
        self.is_attested = False
        self.recorded_from: datetime | None = None
        self.recorded_to: datetime | None = None
        self.chain: ChainCheck
        self._header: Header | None = None
        self._keys = keys
        self._is_signed = is_signed
        self._digest = Digest()
        self._is_ended = False

    @property
    def header(self) -> Header:
        """What the file says it is.

        Raises:
            MalformedExportError: it says nothing.
        """
        if self._header is None:
            raise MalformedExportError("an export begins with its header")
        return self._header

    def take(self, line: bytes) -> OwnRow | None:
        """Take the next line; return what it says of the row if it is one of the tenant's events.

        Raises:
            MalformedExportError: it is none of an export.
        """
        try:
            return self._take(line)
        except MalformedExportError:
            raise
        except (MalformedCheckpointError, MalformedTombstoneError) as exc:
            raise MalformedExportError(str(exc)) from exc
        except (
            ValueError, TypeError, KeyError, AttributeError, ArithmeticError, RecursionError
        ) as exc:  # fmt: skip
            raise MalformedExportError("a field is missing, or of another kind") from exc

    def finish(self) -> None:
        """Say what is missing once the last line was taken."""
        if self._header is None:
            self.findings.add(1, "end", "the file is empty: not even its header is there")
            return
        last = self.chain.next_seq - 1
        self.chain.finish(head=None)
        if not self._is_ended:
            self.findings.add(last + 1, "end", "the last line is missing: the file was cut off")
        elif last != self._header.seq_to:
            what = f"the chain ends at row {last}, not at {self._header.seq_to}"
            self.findings.add(last, "end", what)

    def _take(self, line: bytes) -> OwnRow | None:
        fields = json.loads(line)
        if self._is_ended:
            self.findings.add(self.header.seq_to, "end", "there are lines after the last")
            return None
        kind, own = fields["type"], None
        if self._header is None or kind == "header":
            self._begin(fields, kind)
        elif kind in {"other", OWN[self._header.content]}:
            own = self._take_row(fields, kind)
        elif kind == "end":
            self._end(fields)
        else:
            self._take_evidence(fields, kind)
        self._digest.update(line)
        return own

    def _take_evidence(self, fields: Mapping[str, Any], kind: str) -> None:
        match kind:
            case "checkpoint":
                stored = StoredCheckpoint(
                    signed=read_signed_checkpoint(fields), hash=read_hex(fields, "hash", HASH_BYTES)
                )
                self.counts.checkpoints += 1
                self.chain.take_checkpoint(stored)
            case "mark":
                self._digest.close_piece()
            case "tombstone":
                self._bury(read_signed_tombstone(fields))
            case "key":
                pass
            case _:
                raise MalformedExportError("a line of a type that is unknown, or not of this file")

    def _bury(self, signed: SignedTombstone) -> None:
        tombstone, header = signed.tombstone, self.header
        self.counts.tombstones += 1
        self.tombstones.append(tombstone)
        key = self._keys.get(tombstone.key_id)
        if key is None or not self._is_signed(key, signed.signature, tombstone.to_bytes()):
            what = "its signature is not that of a trusted key"
        elif tombstone.last_seq < header.start.seq or tombstone.first_seq > header.seq_to:
            what = "it is about other rows than these"
        else:
            return
        self.findings.add(tombstone.first_seq, f"tombstone {tombstone.n}", what)

    def _begin(self, fields: Mapping[str, Any], kind: str) -> None:
        if kind != "header" or self._header is not None:
            raise MalformedExportError("an export begins with its header, and has one")
        header = self._header = read_header(fields)
        start = header.start
        self.chain = ChainCheck(
            keys=self._keys, is_signed=self._is_signed, findings=self.findings, start=start
        )
        is_first = start.seq == 1 or start.n == 1
        if is_first and (start.seq, start.n) != (1, 1):
            raise MalformedExportError("its first row is not that of its first checkpoint")
        if is_first and (start.row_hash, start.checkpoint_hash) != (CHAIN_GENESIS, GENESIS):
            self.findings.add(1, "header", "the first row of all follows from no other")

    def _take_row(self, fields: Mapping[str, Any], kind: str) -> OwnRow | None:
        seq, leaf = whole(fields["seq"]), read_hex(fields, "leaf", HASH_BYTES)
        recorded_at = instant(fields["recorded_at"])
        self.recorded_from = self.recorded_from or recorded_at
        self.recorded_to = recorded_at
        row = (seq, recorded_at, leaf, read_hex(fields, "row_hash", HASH_BYTES))
        if kind == "other":
            self.counts.others += 1
            self.chain.take_rows([row])
            return None
        self.counts.events += 1
        fault = self._find_fault(fields, leaf) if kind == "event" else None
        if fault is not None:
            self.findings.add_row(seq, fault)
            self.chain.mark_bad(seq)
        self.chain.take_rows([row])
        duration_ms = fields["duration_ms"]
        return OwnRow(
            row=row,
            duration_ms=None if duration_ms is None else whole(duration_ms),
            has_personal=_has_personal(fields, kind),
        )

    def _find_fault(self, fields: Mapping[str, Any], leaf: bytes) -> str | None:
        payload = fields["payload"].encode()
        if leaf_of(payload) != leaf:
            return "its payload is not what was chained"
        hashed, personal = json.loads(payload), fields["personal"]
        if str(UUID(hashed["tenant_id"])) != self.header.tenant_id:
            return "it is another tenant's event"
        if personal is None:
            return None
        return find_personal_difference(
            {**personal, "salt": bytes.fromhex(personal["salt"])}, hashed["commitments"]
        )

    def _end(self, fields: Mapping[str, Any]) -> None:
        self._is_ended = True
        header, digest = self.header, self._digest.close_piece()
        if read_counts(fields) != self.counts or fields["digest"] != digest.hex():
            self.findings.add(header.seq_to, "end", "its counts or its digest are not of this file")
            return
        if fields["signature"] is None:
            return
        statement = spell_statement(header, self.counts, digest)
        key = self._keys.get(fields["key_id"])
        signature = bytes.fromhex(fields["signature"])
        if key is None or not self._is_signed(key, signature, statement):
            self.findings.add(header.seq_to, "end", "its signature is not that of a trusted key")
            return
        self.is_attested = True


def _has_personal(fields: Mapping[str, Any], kind: str) -> bool:
    if kind == "event":
        return fields["personal"] is not None
    has_personal = fields["has_personal"]
    if not isinstance(has_personal, bool):
        raise MalformedExportError("whether it has personal fields is neither yes nor no")
    return has_personal
