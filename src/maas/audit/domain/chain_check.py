"""Follows the chain and its checkpoints from the first row to the last, and says where they break.

Fed in order, by and by: memory holds the rows of one checkpoint. After a break it goes on from what
is stored, so that one changed row is one finding and not all rows after it.
"""

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from operator import itemgetter
from typing import Any, Final, TypeAlias

from maas.audit.domain.chain import GENESIS as CHAIN_GENESIS
from maas.audit.domain.chain import micros
from maas.audit.domain.checkpoint import GENESIS, Checkpoint, SignedCheckpoint
from maas.audit.domain.findings import Findings, spell_rows
from maas.audit.domain.merkle import root_of

ChainRow: TypeAlias = Sequence[Any]
"""`seq, recorded_at, leaf, row_hash`."""

SignatureCheck: TypeAlias = Callable[[bytes, bytes, bytes], bool]
"""Takes a public key, a signature and the message."""

_SEQ: Final = itemgetter(0)
_MAX_BRANCHES: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredCheckpoint:
    """A checkpoint as it lies in the table, with the hash that is kept beside it."""

    signed: SignedCheckpoint
    hash: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Where a check begins: at the first row, or at a checkpoint's first."""

    seq: int = 1
    n: int = 1
    row_hash: bytes = CHAIN_GENESIS
    checkpoint_hash: bytes = GENESIS


@dataclass(slots=True)
class KeyUse:
    """From where on a key signed, and how many checkpoints."""

    first_seq: int
    first_at: datetime
    checkpoints: int = 0


class ChainCheck:
    """`keys` are the public keys that are trusted, by key id."""

    def __init__(
        self,
        *,
        keys: Mapping[str, bytes],
        is_signed: SignatureCheck,
        findings: Findings,
        start: Start | None = None,
    ) -> None:
        start = start or Start()
        self.findings = findings
        self.rows = 0
        self.checkpoints = 0
        self.key_uses: dict[str, KeyUse] = {}
        self.named_keys: set[str] = set()
        self._keys = keys
        self._is_signed = is_signed
        self._next_seq = start.seq
        self._row_hashes: tuple[bytes, ...] = (start.row_hash,)
        self._next_n = start.n
        self._checkpoint_hashes: tuple[bytes, ...] = (start.checkpoint_hash,)
        self._covered_to: int | None = start.seq - 1
        self._begins_after = start.seq - 1
        self._waiting: deque[Checkpoint] = deque()
        self._pending: list[ChainRow] = []
        self._bad: set[int] = set()

    @property
    def next_seq(self) -> int:
        """The row that has to come next."""
        return self._next_seq

    def mark_bad(self, seq: int) -> None:
        """Leave a row's checkpoint uncompared: what is wrong with it has been said."""
        self._bad.add(seq)

    def take_rows(self, rows: Sequence[ChainRow]) -> None:
        """Follow the next rows, in order of `seq`."""
        expected, previous = self._next_seq, self._row_hashes
        at, spelled = None, b""
        for row in rows:
            seq, recorded_at, leaf, stored = row
            if recorded_at != at:
                at, spelled = recorded_at, micros(recorded_at)
            if seq != expected:
                if not self._is_gap(seq, expected):
                    continue
                previous = ()
            computed = [
                sha256(before + seq.to_bytes(8, "big") + spelled + leaf).digest()
                for before in previous
            ]
            if not computed or stored in computed:
                previous = (stored,)
            else:
                self.findings.add_row(seq, "its hash does not follow from the row before it")
                self._bad.add(seq)
                previous = _some(stored, computed)
            self._pending.append(row)
            expected = seq + 1
        self.rows += len(rows)
        self._next_seq, self._row_hashes = expected, previous
        self._close_covered()

    def take_checkpoint(self, stored: StoredCheckpoint) -> None:
        """Judge the next checkpoint, in order of `n`, and keep it until its rows have come."""
        checkpoint, expected = stored.signed.checkpoint, self._next_n
        begins = self._begins_after + 1
        self.checkpoints += 1
        self.named_keys.add(checkpoint.key_id)
        if checkpoint.n < expected:
            self.findings.add(begins, f"checkpoint {checkpoint.n}", "it is out of order")
            return
        if checkpoint.n > expected:
            missing = f"checkpoint {expected}"
            if checkpoint.n > expected + 1:
                missing = f"checkpoints {expected} to {checkpoint.n - 1}"
            self.findings.add(begins, missing, "missing")
            self._checkpoint_hashes, self._covered_to = (), None
        digest = checkpoint.digest()
        wrong = self._find_fault(stored, digest)
        self._next_n = checkpoint.n + 1
        self._checkpoint_hashes = (stored.hash, digest)
        if wrong is not None:
            self.findings.add(begins, f"checkpoint {checkpoint.n}", wrong)
            # How far the rows of one with other faults went, its successor says.
            is_placed = digest == stored.hash and checkpoint.seq_from == begins
            self._covered_to = checkpoint.seq_to if is_placed else None
            self._begins_after = max(self._begins_after, self._covered_to or 0)
            return
        use = self.key_uses.setdefault(
            checkpoint.key_id, KeyUse(checkpoint.seq_from, checkpoint.recorded_at)
        )
        use.checkpoints += 1
        self._waiting.append(checkpoint)
        self._covered_to = self._begins_after = checkpoint.seq_to
        self._close_covered()

    def finish(self, *, head: tuple[int, bytes] | None) -> None:
        """Say what is left over; `head` is what the head of the chain claims, if it is known."""
        last = self._next_seq - 1
        for checkpoint in self._waiting:
            first = max(last + 1, checkpoint.seq_from)
            self.findings.add(
                first,
                spell_rows(first, checkpoint.seq_to),
                f"missing from the chain, but signed in checkpoint {checkpoint.n}",
            )
        left = [row for row in self._pending if self._is_uncovered(row)]
        if left and not self._waiting:
            first, final = left[0][0], left[-1][0]
            self.findings.add(first, spell_rows(first, final), "covered by no checkpoint")
        if head is not None and (head[0] != last or head[1] not in self._row_hashes):
            what = f"it says that the chain ends at row {head[0]}, with another hash"
            if head[0] != last:
                what = f"it says that the chain ends at row {head[0]}, not at {last}"
            self.findings.add(max(1, min(head[0] + 1, last)), "head", what)

    def _is_gap(self, seq: int, expected: int) -> bool:
        """Report what is missing before this row; one that came before is no gap."""
        if seq < expected:
            self.findings.add_row(seq, "it is in the chain twice or out of place")
            return False
        self.findings.add(expected, spell_rows(expected, seq - 1), "missing from the chain")
        self._bad.add(expected)
        return True

    def _find_fault(self, stored: StoredCheckpoint, digest: bytes) -> str | None:
        checkpoint, signature = stored.signed.checkpoint, stored.signed.signature
        if digest != stored.hash:
            return "its hash is not that of its fields"
        key = self._keys.get(checkpoint.key_id)
        if key is None:
            return f"signed with the key {checkpoint.key_id}, which is not trusted"
        if not self._is_signed(key, signature, checkpoint.to_bytes()):
            return "its signature is not that of its key"
        if self._checkpoint_hashes and checkpoint.previous not in self._checkpoint_hashes:
            return "it does not follow from the checkpoint before it"
        if self._covered_to is not None and checkpoint.seq_from != self._covered_to + 1:
            return f"it begins at row {checkpoint.seq_from}, not at {self._covered_to + 1}"
        return None

    def _is_uncovered(self, row: ChainRow) -> bool:
        return self._covered_to is not None and row[0] > self._covered_to

    def _close_covered(self) -> None:
        while self._waiting and self._waiting[0].seq_to < self._next_seq:
            self._close(self._waiting.popleft())

    def _close(self, checkpoint: Checkpoint) -> None:
        end = bisect_right(self._pending, checkpoint.seq_to, key=_SEQ)
        begin = bisect_right(self._pending, checkpoint.seq_from - 1, key=_SEQ)
        rows = self._pending[begin:end]
        del self._pending[:end]
        is_named = any(checkpoint.seq_from <= seq <= checkpoint.seq_to for seq in self._bad)
        self._bad = {seq for seq in self._bad if seq > checkpoint.seq_to}
        if is_named:
            return
        is_whole = (
            len(rows) == checkpoint.size
            and root_of([row[2] for row in rows]) == checkpoint.root
            and rows[-1][3] == checkpoint.head
            and rows[-1][1] <= checkpoint.recorded_at
        )
        if not is_whole:
            self.findings.add(
                checkpoint.seq_from,
                spell_rows(checkpoint.seq_from, checkpoint.seq_to),
                f"not what was signed in checkpoint {checkpoint.n}",
            )


def _some(stored: bytes, computed: Sequence[bytes]) -> tuple[bytes, ...]:
    """List what the next row may follow from; the last is what it would be had nothing changed.

    After many bad rows in a row not all can be kept: each would cost as much as all before it.
    """
    branches = (stored, *computed)
    if len(branches) <= _MAX_BRANCHES:
        return branches
    return (*branches[: _MAX_BRANCHES - 1], branches[-1])
