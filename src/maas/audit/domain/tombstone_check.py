"""Whether tombstones are what was signed, and whether they are about the rows of this chain.

What somebody with all rights in the database could do is found: a tombstone that nobody signed, or
whose fields were changed, covers nothing; one taken away leaves a hole in the numbers, and its rows
missing; one that was signed for other rows has another digest.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from hashlib import sha256
from typing import Any, Final, TypeAlias

from maas.audit.domain.findings import Findings
from maas.audit.domain.retention_policy import month_after
from maas.audit.domain.tombstone import GENESIS, SignedTombstone, Tombstone
from maas.audit.domain.tombstone_rows import (
    RowDigest,
    RowSet,
    UnreadableRowsError,
    unpack_rows,
)

ChainRow: TypeAlias = Sequence[Any]
"""`seq, recorded_at, leaf, row_hash`."""

SignatureCheck: TypeAlias = Callable[[bytes, bytes, bytes], bool]
"""Takes a public key, a signature and the message."""

_DAY: Final = timedelta(days=1)
_NO_ROWS: Final = "its rows are not those that were signed"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTombstone:
    """A tombstone as it lies in the table, with its packed rows and the hash kept beside it."""

    signed: SignedTombstone
    packed: bytes
    hash: bytes


@dataclass(slots=True)
class _Open:
    tombstone: Tombstone
    rows: RowSet
    digest: RowDigest
    since: datetime
    until: datetime
    count: int = 0
    is_whole: bool = True


class TombstoneCheck:
    """`keys` are the public keys that are trusted; fed all tombstones, then rows in order.

    `faults` says by number which tombstones cover nothing, and `missing` which are not there.
    """

    def __init__(
        self,
        tombstones: Sequence[StoredTombstone],
        *,
        keys: Mapping[str, bytes],
        is_signed: SignatureCheck,
        findings: Findings,
        first_seq: int = 1,
    ) -> None:
        self.tombstones = 0
        self.faults: dict[int, str] = {}
        self.missing: list[int] = []
        self._used: list[Tombstone] = []
        self._findings = findings
        self._keys = keys
        self._is_signed = is_signed
        self._first_seq = first_seq
        self._waiting: list[StoredTombstone] = []
        self._open: list[_Open] = []
        self._judge(tombstones)

    def take_rows(self, rows: Sequence[ChainRow]) -> None:
        """Follow the chain's next rows, in order of `seq`."""
        if not rows:
            return
        last = rows[-1][0]
        while self._waiting and self._waiting[0].signed.tombstone.first_seq <= last:
            self._begin(self._waiting.pop(0))
        for opened in self._open:
            members, digest, count = opened.rows, opened.digest, 0
            for row in rows:
                if row[0] in members:
                    digest.take(row[0], row[2])
                    count += 1
                    if not opened.since <= row[1] < opened.until:
                        what = f"not recorded in the month of tombstone {opened.tombstone.n}"
                        self._findings.add_row(row[0], what)
            opened.count += count

    def covers(self, seq: int) -> bool:
        """Tell whether a tombstone names a row of those that were taken last."""
        return any(seq in opened.rows for opened in self._open)

    def forget_before(self, seq: int) -> None:
        """Close the tombstones whose rows have all come."""
        done = [opened for opened in self._open if opened.tombstone.last_seq < seq]
        for opened in done:
            self._open.remove(opened)
            self._close(opened)

    def finish(self, *, is_to_end: bool) -> None:
        """Say what is left over; of a stretch alone, the rest cannot be told."""
        if not is_to_end:
            return
        for opened in self._open:
            self._close(opened)
        for stored in self._waiting:
            self._add(stored.signed.tombstone, "its rows are not in the chain")

    def check_keys(self, sound: Collection[str]) -> None:
        """Say which tombstones count on a key that signed no checkpoint of those checked.

        Whoever can write into the database can put a key there, but no checkpoint of it.
        """
        for tombstone in self._used:
            if tombstone.key_id not in sound:
                what = (
                    f"its key {tombstone.key_id} signed no checkpoint of those checked:"
                    " check the whole trail, or give the keys to trust"
                )
                self._add(tombstone, what)

    def _judge(self, tombstones: Sequence[StoredTombstone]) -> None:
        expected, previous = 1, GENESIS
        for stored in tombstones:
            tombstone = stored.signed.tombstone
            self.tombstones += 1
            if tombstone.n != expected:
                missing = f"tombstone {expected}"
                if tombstone.n > expected + 1:
                    missing = f"tombstones {expected} to {tombstone.n - 1}"
                self._findings.add(tombstone.first_seq, missing, "missing")
                self.missing.append(expected)
            wrong = self._find_fault(
                stored, previous if tombstone.n == expected else tombstone.previous
            )
            expected, previous = tombstone.n + 1, stored.hash
            if wrong is not None:
                self.faults[tombstone.n] = wrong
                self._add(tombstone, wrong)
            else:
                self._waiting.append(stored)
        self._waiting.sort(key=lambda stored: stored.signed.tombstone.first_seq)

    def _find_fault(self, stored: StoredTombstone, previous: bytes) -> str | None:
        tombstone, signature = stored.signed.tombstone, stored.signed.signature
        if tombstone.hash() != stored.hash:
            return "its hash is not that of its fields"
        key = self._keys.get(tombstone.key_id)
        if key is None:
            return f"signed with the key {tombstone.key_id}, which is not trusted"
        if not self._is_signed(key, signature, tombstone.to_bytes()):
            return "its signature is not that of its key"
        if tombstone.previous != previous:
            return "it does not follow from the tombstone before it"
        return _find_fault_of_contents(stored)

    def _begin(self, stored: StoredTombstone) -> None:
        tombstone = stored.signed.tombstone
        try:
            rows = unpack_rows(
                stored.packed, first_seq=tombstone.first_seq, last_seq=tombstone.last_seq
            )
        except UnreadableRowsError:
            self._add(tombstone, _NO_ROWS)
            return
        is_whole = tombstone.first_seq >= self._first_seq
        self._used.append(tombstone)
        since = _midnight(tombstone.period)
        until = _midnight(month_after(tombstone.period))
        self._open.append(_Open(tombstone, rows, RowDigest(), since, until, is_whole=is_whole))

    def _close(self, opened: _Open) -> None:
        tombstone = opened.tombstone
        if not opened.is_whole:
            return
        if opened.count != tombstone.rows or opened.digest.digest() != tombstone.digest:
            self._add(tombstone, "the chain has other rows under these numbers")

    def _add(self, tombstone: Tombstone, what: str) -> None:
        self._findings.add(tombstone.first_seq, f"tombstone {tombstone.n}", what)


def _find_fault_of_contents(stored: StoredTombstone) -> str | None:
    tombstone = stored.signed.tombstone
    if sha256(stored.packed).digest() != tombstone.members:
        return _NO_ROWS
    if tombstone.period.day != 1:
        return "its month is none"
    kept = tombstone.decided_at - _midnight(month_after(tombstone.period))
    if kept // _DAY < tombstone.policy_days:
        return "it was decided before its policy was over"
    return None


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time.min, UTC)
