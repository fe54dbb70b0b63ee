"""One tenant's events as lines of JSON that prove themselves: what they are, and how to check them.

Beside its events with their payloads stands the chain's row of every other event, so that the chain
and its checkpoints can be followed from the first row to the last without a server. The last line
counts and hashes what went before; the server signs it, for nothing else says that none of the
tenant's events was passed off as another's.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any, Final
from uuid import UUID

from maas.audit.domain.chain import leaf_of
from maas.audit.domain.chain_check import ChainCheck, SignatureCheck, StoredCheckpoint
from maas.audit.domain.checkpoint import MalformedCheckpointError, read_hex, read_signed_checkpoint
from maas.audit.domain.event import Json, canonical
from maas.audit.domain.fidelity import find_personal_difference
from maas.audit.domain.findings import Findings
from maas.audit.domain.merkle import HASH_BYTES

VERSION: Final = 1


class MalformedExportError(ValueError):
    """This is no export of a version this code reads."""


@dataclass(slots=True, kw_only=True)
class Counts:
    """How many lines of each kind went before the last."""

    events: int = 0
    others: int = 0
    checkpoints: int = 0


def spell_line(kind: str, fields: Mapping[str, Any]) -> bytes:
    spelled = json.dumps({"type": kind, **fields}, ensure_ascii=False, separators=(",", ":"))
    return spelled.encode(errors="replace") + b"\n"


def spell_statement(*, tenant_id: str, seq_to: int, counts: Counts, digest: bytes) -> bytes:
    """Spell what the server signs: these are all of this tenant's events up to this row."""
    statement: dict[str, Json] = {
        "statement": "maas.audit.export",
        "v": VERSION,
        "tenant_id": tenant_id,
        "seq_to": seq_to,
        "events": counts.events,
        "others": counts.others,
        "checkpoints": counts.checkpoints,
        "sha256": digest.hex(),
    }
    return canonical(statement)


class ExportCheck:
    """Takes an export line by line; memory holds the rows of one checkpoint."""

    def __init__(self, *, keys: Mapping[str, bytes], is_signed: SignatureCheck) -> None:
        self.findings = Findings()
        self.counts = Counts()
        self.tenant_id = ""
        self.seq_to = 0
        self.is_attested = False
        self.chain = ChainCheck(keys=keys, is_signed=is_signed, findings=self.findings)
        self._keys = keys
        self._is_signed = is_signed
        self._digest = sha256()
        self._is_ended = False

    def take(self, line: bytes) -> None:
        """Take the next line.

        Raises:
            MalformedExportError: it is none of an export.
        """
        try:
            self._take(line)
        except MalformedCheckpointError as exc:
            raise MalformedExportError(str(exc)) from exc
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as exc:
            raise MalformedExportError("a field is missing, or of another kind") from exc

    def finish(self) -> None:
        """Say what is missing once the last line was taken."""
        last = self.chain.next_seq - 1
        self.chain.finish(head=None)
        if not self._is_ended:
            self.findings.add(last + 1, "end", "the last line is missing: the file was cut off")
        elif last != self.seq_to:
            self.findings.add(last, "end", f"the chain ends at row {last}, not at {self.seq_to}")

    def _take(self, line: bytes) -> None:
        fields = json.loads(line)
        if self._is_ended:
            self.findings.add(self.seq_to, "end", "there are lines after the last")
            return
        match fields["type"]:
            case "header":
                self._begin(fields)
            case "event" | "other" as kind:
                self._take_row(fields, is_event=kind == "event")
            case "checkpoint":
                stored = StoredCheckpoint(
                    signed=read_signed_checkpoint(fields), hash=read_hex(fields, "hash", HASH_BYTES)
                )
                self.counts.checkpoints += 1
                self.chain.take_checkpoint(stored)
            case "end":
                self._end(fields)
            case "key":
                pass
            case _:
                raise MalformedExportError("a line of an unknown type")
        self._digest.update(line)

    def _begin(self, fields: Mapping[str, Any]) -> None:
        if fields["v"] != VERSION:
            raise MalformedExportError("it has a version this code does not read")
        self.tenant_id, self.seq_to = str(UUID(fields["tenant_id"])), int(fields["seq_to"])

    def _take_row(self, fields: Mapping[str, Any], *, is_event: bool) -> None:
        seq, leaf = int(fields["seq"]), read_hex(fields, "leaf", HASH_BYTES)
        recorded_at = datetime.fromisoformat(fields["recorded_at"])
        if is_event:
            self.counts.events += 1
            fault = self._find_fault(fields, leaf)
            if fault is not None:
                self.findings.add_row(seq, fault)
                self.chain.mark_bad(seq)
        else:
            self.counts.others += 1
        row = (seq, recorded_at, leaf, read_hex(fields, "row_hash", HASH_BYTES))
        self.chain.take_rows([row])

    def _find_fault(self, fields: Mapping[str, Any], leaf: bytes) -> str | None:
        payload = fields["payload"].encode()
        if leaf_of(payload) != leaf:
            return "its payload is not what was chained"
        hashed, personal = json.loads(payload), fields["personal"]
        if hashed["tenant_id"] != self.tenant_id:
            return "it is another tenant's event"
        if personal is None:
            return None
        return find_personal_difference(
            {**personal, "salt": bytes.fromhex(personal["salt"])}, hashed["commitments"]
        )

    def _end(self, fields: Mapping[str, Any]) -> None:
        self._is_ended = True
        digest = self._digest.digest()
        said = (fields["events"], fields["others"], fields["checkpoints"], fields["sha256"])
        counts = self.counts
        if said != (counts.events, counts.others, counts.checkpoints, digest.hex()):
            self.findings.add(self.seq_to, "end", "its counts or its SHA-256 are not of this file")
            return
        if fields["signature"] is None:
            return
        statement = spell_statement(
            tenant_id=self.tenant_id, seq_to=self.seq_to, counts=counts, digest=digest
        )
        key = self._keys.get(fields["key_id"])
        signature = bytes.fromhex(fields["signature"])
        if key is None or not self._is_signed(key, signature, statement):
            self.findings.add(self.seq_to, "end", "its signature is not that of a trusted key")
            return
        self.is_attested = True
