"""Verifying the trail: is each row what was recorded, and is every event there?"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Protocol, TypeAlias

from maas.audit.domain.chain import leaf_of
from maas.audit.domain.chain_check import (
    ChainCheck,
    ChainRow,
    KeyUse,
    SignatureCheck,
    Start,
    StoredCheckpoint,
)
from maas.audit.domain.checkpoint import SignedCheckpoint, key_id_of
from maas.audit.domain.fidelity import LogRow, find_difference, is_erased
from maas.audit.domain.findings import Findings
from maas.audit.domain.tombstone_check import StoredTombstone, TombstoneCheck

PAGE_ROWS: Final = 5_000
PAGE_CHECKPOINTS: Final = 2_000

Progress: TypeAlias = Callable[[int, int], None]
"""Told how many rows are done, and of how many."""


def show_no_progress(_done: int, _total: int) -> None:
    """Leave whoever waits in the dark; programs do not mind."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningKey:
    """A public key as the database keeps it."""

    key_id: str
    public_key: bytes
    first_seq: int
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainBounds:
    """How far the chain goes, and what its head says; `rows` is an estimate for a progress bar."""

    last_seq: int
    head: tuple[int, bytes] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """Something that keeps the trail from being complete."""

    what: str
    count: int


class TrailReader(Protocol):
    """The trail's tables in one unchanging snapshot; every list is in order and limited."""

    async def bounds(self) -> ChainBounds: ...

    async def keys(self) -> list[SigningKey]: ...

    async def chain(self, after: int, *, upto: int, limit: int) -> Sequence[ChainRow]: ...

    async def log(self, after: int, upto: int) -> Sequence[LogRow]:
        """Read the log's rows of a stretch, with personal fields, in the form of `fidelity`."""
        ...

    async def checkpoints(self, after: int, limit: int) -> list[StoredCheckpoint]:
        """Read the checkpoints whose `n` is greater."""
        ...

    async def tombstones(self) -> list[StoredTombstone]:
        """Read the tombstones of rows that were dropped from the log, in order of `n`."""
        ...

    async def find_start(self, seq: int) -> Start:
        """Find where the checkpoint that covers a row begins; the first row if none does."""
        ...

    async def find_end(self, seq: int) -> int | None:
        """Find where the checkpoint that covers a row ends."""
        ...

    async def strays(self, last_seq: int) -> list[tuple[int, str, str]]:
        """Find rows that belong to nothing: beyond the chain, or personal fields of no event."""
        ...

    async def gaps(self, *, is_fast: bool) -> list[Gap]:
        """Find what waits too long, what was set aside, and what nobody could record.

        Not in a hurry, also ids that are there twice or could come again.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyOptions:
    """What to check; `heads` are the exported ones with their place in the file."""

    first: int | None = None
    last: int | None = None
    is_fast: bool = False
    heads: Sequence[tuple[str, SignedCheckpoint]] | None = None
    trusted_keys: Mapping[str, bytes] | None = None


@dataclass(slots=True, kw_only=True)
class Verdict:
    """What was checked, and what came of it."""

    first_seq: int = 1
    last_seq: int = 0
    rows: int = 0
    checkpoints: int = 0
    heads: int = 0
    keys: Mapping[str, KeyUse] = field(default_factory=dict)
    findings: Findings = field(default_factory=Findings)
    head_findings: Findings = field(default_factory=Findings)
    gaps: list[Gap] = field(default_factory=list)
    erased: int = 0
    dropped: int = 0
    tombstones: int = 0
    seconds: float = 0.0

    @property
    def is_sound(self) -> bool:
        return not self.findings and not self.head_findings

    @property
    def is_complete(self) -> bool:
        return not self.gaps


@dataclass(frozen=True, slots=True, kw_only=True)
class VerificationService:
    reader: TrailReader
    is_signed: SignatureCheck
    on_progress: Progress = show_no_progress

    async def verify(self, options: VerifyOptions) -> Verdict:
        """Check the trail as the reader's snapshot shows it.

        A stretch is widened to the checkpoints it touches. Without trusted keys, those that the
        database keeps are taken at their word.
        """
        verdict, bounds = Verdict(), await self.reader.bounds()
        start, last = await self._stretch(options, bounds)
        is_whole = start.seq == 1 and last == bounds.last_seq
        kept = await self.reader.keys()
        keys = options.trusted_keys
        if keys is None:
            keys = {key.key_id: key.public_key for key in kept}
        check = ChainCheck(
            keys=keys, is_signed=self.is_signed, findings=verdict.findings, start=start
        )
        buried = TombstoneCheck(
            await self.reader.tombstones(),
            keys=keys,
            is_signed=self.is_signed,
            findings=verdict.findings,
            first_seq=start.seq,
        )
        heads = _HeadCheck(options.heads or (), keys, self.is_signed, verdict.head_findings)
        run = _Run(
            reader=self.reader,
            check=check,
            buried=buried,
            heads=heads,
            verdict=verdict,
            is_fast=options.is_fast,
            on_progress=self.on_progress,
        )
        await run.follow(start, last, is_to_end=last == bounds.last_seq)
        check.finish(head=bounds.head if last == bounds.last_seq else None)
        buried.finish(is_to_end=last == bounds.last_seq and not options.is_fast)
        if options.trusted_keys is None:
            buried.check_keys(check.key_uses)
        verdict.tombstones = buried.tombstones
        heads.finish(is_whole=is_whole)
        verdict.first_seq, verdict.last_seq = start.seq, last
        verdict.rows, verdict.checkpoints, verdict.keys = (
            check.rows,
            check.checkpoints,
            check.key_uses,
        )
        verdict.heads = len(options.heads or ())
        if is_whole:
            _check_keys(kept, check)
        if is_whole and not options.is_fast:
            for seq, subject, what in await self.reader.strays(last):
                verdict.findings.add(seq, subject, what)
        verdict.gaps = await self.reader.gaps(is_fast=options.is_fast)
        return verdict

    async def _stretch(self, options: VerifyOptions, bounds: ChainBounds) -> tuple[Start, int]:
        start, last = Start(), bounds.last_seq
        if options.first is not None and options.first > 1:
            start = await self.reader.find_start(min(options.first, max(1, bounds.last_seq)))
        if options.last is not None and options.last < last:
            last = await self.reader.find_end(options.last) or last
        return start, max(last, start.seq - 1)


@dataclass(slots=True, kw_only=True)
class _Run:
    """Brings chain, log and checkpoints past one another, a page at a time."""

    reader: TrailReader
    check: ChainCheck
    buried: TombstoneCheck
    heads: "_HeadCheck"
    verdict: Verdict
    is_fast: bool
    on_progress: Progress
    _read_n: int = 0
    _has_more: bool = True
    _early: deque[StoredCheckpoint] = field(default_factory=deque)

    async def follow(self, start: Start, last: int, *, is_to_end: bool) -> None:
        after, total = start.seq - 1, last - start.seq + 1
        self._read_n = start.n - 1
        while rows := await self.reader.chain(after, upto=last, limit=PAGE_ROWS):
            upto = rows[-1][0]
            await self._take_checkpoints(upto)
            if not self.is_fast:
                self.buried.take_rows(rows)
                self._compare(rows, await self.reader.log(after, upto))
                self.buried.forget_before(upto + 1)
            self.check.take_rows(rows)
            after = upto
            self.on_progress(after - start.seq + 1, total)
        if is_to_end:
            await self._take_checkpoints(None)

    async def _take_checkpoints(self, upto: int | None) -> None:
        """Take those that begin up to a row; all that are left, without one."""
        while True:
            if not self._early and self._has_more:
                self._early.extend(await self.reader.checkpoints(self._read_n, PAGE_CHECKPOINTS))
                self._has_more = len(self._early) == PAGE_CHECKPOINTS
            if not self._early:
                return
            checkpoint = self._early[0].signed.checkpoint
            if upto is not None and checkpoint.seq_from > upto:
                return
            stored = self._early.popleft()
            self._read_n = checkpoint.n
            self.check.take_checkpoint(stored)
            self.heads.take(stored)

    def _compare(self, rows: Sequence[ChainRow], log: Sequence[LogRow]) -> None:
        """Hold each row of the chain against its row of the log, and say what differs."""
        findings, place = self.verdict.findings, 0
        for row in rows:
            seq, found = row[0], 0
            while place < len(log) and log[place][0] <= seq:
                kept = log[place]
                place += 1
                if kept[0] < seq:
                    findings.add_row(kept[0], "in the log, but not in the chain")
                    continue
                found += 1
                fault = self._find_fault(row, kept) if found == 1 else "in the log more than once"
                if fault is not None:
                    findings.add_row(seq, fault)
            if not found and self.buried.covers(seq):
                self.verdict.dropped += 1
            elif not found:
                findings.add_row(seq, "missing from the log")

    def _find_fault(self, row: ChainRow, kept: LogRow) -> str | None:
        _, recorded_at, leaf, _ = row
        if leaf_of(kept[2]) != leaf:
            return "its payload is not what was chained"
        if kept[1] != recorded_at:
            return "its column recorded_at is not that of the chain"
        self.verdict.erased += is_erased(kept)
        return find_difference(kept, is_dropping=self.buried.covers(kept[0]))


class _HeadCheck:
    """Holds the heads that were exported against the checkpoints that are there."""

    def __init__(
        self,
        heads: Sequence[tuple[str, SignedCheckpoint]],
        keys: Mapping[str, bytes],
        is_signed: SignatureCheck,
        findings: Findings,
    ) -> None:
        self._findings = findings
        self._expected: dict[int, tuple[str, bytes, int]] = {}
        for place, head in heads:
            self._take_head(place, head, keys, is_signed)

    def _take_head(
        self,
        place: str,
        head: SignedCheckpoint,
        keys: Mapping[str, bytes],
        is_signed: SignatureCheck,
    ) -> None:
        checkpoint, digest = head.checkpoint, head.checkpoint.digest()
        key = keys.get(checkpoint.key_id)
        if key is None:
            what = f"signed with the key {checkpoint.key_id}, which is not trusted"
            self._findings.add(checkpoint.seq_to, place, what)
        elif not is_signed(key, head.signature, checkpoint.to_bytes()):
            self._findings.add(checkpoint.seq_to, place, "its signature is not that of its key")
        known = self._expected.get(checkpoint.n)
        if known is not None and known[1] != digest:
            what = f"another checkpoint {checkpoint.n} than {known[0]}"
            self._findings.add(checkpoint.seq_to, place, what)
        self._expected.setdefault(checkpoint.n, (place, digest, checkpoint.seq_to))

    def take(self, stored: StoredCheckpoint) -> None:
        checkpoint = stored.signed.checkpoint
        expected = self._expected.pop(checkpoint.n, None)
        if expected is not None and expected[1] != checkpoint.digest():
            what = f"checkpoint {checkpoint.n} is another one in the database"
            self._findings.add(expected[2], expected[0], what)

    def finish(self, *, is_whole: bool) -> None:
        """Report what is not in the database; of a stretch alone, that cannot be told."""
        if not is_whole:
            return
        for n, (place, _, seq_to) in self._expected.items():
            what = (
                f"checkpoint {n}, up to row {seq_to}, is not in the database: its end was cut off"
            )
            self._findings.add(seq_to, place, what)


def _check_keys(kept: Sequence[SigningKey], check: ChainCheck) -> None:
    findings = check.findings
    for key in kept:
        subject, use = f"key {key.key_id}", check.key_uses.get(key.key_id)
        if key_id_of(key.public_key) != key.key_id:
            findings.add(key.first_seq, subject, "its id is not that of its public key")
        elif key.key_id not in check.named_keys:
            findings.add(key.first_seq, subject, "it signed no checkpoint")
        elif use is not None and (key.first_seq, key.created_at) != (use.first_seq, use.first_at):
            what = f"it is not dated as its first checkpoint, which begins at row {use.first_seq}"
            findings.add(use.first_seq, subject, what)
