"""Retention: events leave the log a month and a class at a time, under a signed tombstone.

Each partition goes through the same steps, and a run may end after any of them, or be killed in
the middle of one: read and checked against the chain, slice by slice, into the archive; a tombstone
signed; the personal fields erased; the partition dropped, with an event that says so.
"""

import asyncio
import time
from collections.abc import Collection, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from datetime import datetime
from hashlib import sha256
from typing import Final, Literal, Protocol, TypeAlias, cast

import structlog

from maas.audit.domain.chain import leaf_of
from maas.audit.domain.fidelity import LogRow, find_difference
from maas.audit.domain.retention_policy import Partition, RetentionPolicy
from maas.audit.domain.tombstone import GENESIS, ArchiveFile, SignedTombstone, Tombstone
from maas.audit.domain.tombstone_check import StoredTombstone
from maas.audit.domain.tombstone_rows import RowDigest, RowSet, unpack_rows
from maas.shared.domain.errors import ConflictError, UnavailableError

RUN_SECONDS: Final = 30.0
PERSONAL_SLICE: Final = 5_000
PATIENCE_SECONDS: Final = (0.2, 0.6, 1.2)
"""Pauses between attempts to drop: others use the log, and nobody is to wait for this."""

Fate: TypeAlias = Literal["dropped", "put_off", "unfinished", "refused"]

log = structlog.get_logger(__name__)


class LogBusyError(UnavailableError):
    """Somebody reads the log for longer than anybody should be kept waiting."""

    code = "audit-log-busy"
    title = "The audit log is in use, so nothing was dropped"


class ArchiveError(UnavailableError):
    code = "audit-archive-unwritable"
    title = "The archive cannot be written, so nothing was dropped"


class UnsoundPartitionError(ConflictError):
    code = "audit-partition-unsound"
    title = "The partition does not match the chain, so it was not dropped"


class UnknownSignerError(ConflictError):
    code = "audit-signer-unknown"
    title = "The key in use has signed no checkpoint yet, so nothing was dropped"


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a partition, with the chain's row of the same number beside it.

    `columns` are those of the log in the form of `fidelity`, without personal fields.
    """

    columns: LogRow
    duration_ms: int | None
    chained_at: datetime | None
    leaf: bytes | None

    @property
    def seq(self) -> int:
        return cast("int", self.columns[0])

    @property
    def recorded_at(self) -> datetime:
        return cast("datetime", self.columns[1])

    @property
    def payload(self) -> bytes:
        return cast("bytes", self.columns[2])

    @property
    def retention_class(self) -> str:
        return cast("str", self.columns[3])


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a partition has come; `size` is the archive's so far, `bits` the rows', packed."""

    after: int = 0
    rows: int = 0
    first: int = 0
    blocks: tuple[bytes, ...] = ()
    bits: bytes = b""
    size: int = 0
    forgotten: int = 0


class RetentionLog(Protocol):
    """The log as retention sees it; each method is one transaction.

    Raises, each of them:
        LogUnavailableError: the database does not answer.
    """

    def exclusively(self) -> AbstractAsyncContextManager[bool]:
        """Keep others from the same work meanwhile; tell whether nobody else is at it."""
        ...

    async def now(self) -> datetime: ...

    async def partitions(self) -> list[Partition]:
        """List the partitions, oldest first."""
        ...

    async def ensure_ahead(self) -> None:
        """Make the partitions of this month and the next three."""
        ...

    async def read_block(self, partition: Partition, after: int) -> list[Row]:
        """Read the rows of the next block that has any; none at the end."""
        ...

    async def span(self, partition: Partition) -> tuple[int, int, int]:
        """Count the rows, and name the first and the last; three zeros if there are none."""
        ...

    async def find_tombstone(self, partition: Partition) -> int | None:
        """Find the tombstone whose rows the partition has."""
        ...

    async def last_tombstone(self) -> tuple[int, bytes] | None: ...

    async def bury(self, stored: StoredTombstone) -> None:
        """Keep a tombstone.

        Raises:
            UnknownSignerError: its key has signed nothing yet.
        """
        ...

    async def forget_personal(self, partition: Partition, after: int, limit: int) -> int | None:
        """Erase the personal fields of the next rows, and tell the last; nothing at the end."""
        ...

    async def drop(self, partition: Partition, tombstone: int | None) -> bool:
        """Drop a partition, with its event; tell whether it was there.

        Raises:
            LogBusyError: somebody has it in use.
            UnsoundPartitionError: its rows are not those of the tombstone.
        """
        ...


class Archive(Protocol):
    """Where a partition's events go, and how far it has come, which nobody else can have noted.

    Raises, each of them:
        ArchiveError: the disk is full, or the folder cannot be written.
    """

    def load(self, partition: Partition) -> Progress: ...

    def append(self, partition: Partition, progress: Progress, rows: Sequence[Row]) -> Progress:
        """Write rows for good, and note the progress with the new size."""
        ...

    def note(self, partition: Partition, progress: Progress) -> None: ...

    def finish(self, partition: Partition, progress: Progress, digest: bytes) -> ArchiveFile | None:
        """Give the file its name; nothing where no archive is kept."""
        ...

    def discard(self, partition: Partition) -> None:
        """Forget the progress; the archive stays."""
        ...


class Signer(Protocol):
    @property
    def key_id(self) -> str: ...

    def sign(self, message: bytes) -> bytes: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a partition in one run; `why` says it for people."""

    partition: Partition
    fate: Fate
    why: str = ""
    is_unsound: bool = False


@dataclass(slots=True)
class RetentionReport:
    is_alone: bool = True
    outcomes: list[Outcome] = field(default_factory=list)

    @property
    def has_more(self) -> bool:
        """Whether another run would go on at once."""
        return any(outcome.fate == "unfinished" for outcome in self.outcomes)


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionService:
    log: RetentionLog
    archive: Archive
    signer: Signer
    policy: RetentionPolicy
    actor: str
    run_seconds: float | None = RUN_SECONDS
    patience: Sequence[float] = PATIENCE_SECONDS
    only: Collection[Partition] | None = None
    """Those that were shown to somebody who said yes: no others go, whatever is due by then."""

    async def run(self) -> RetentionReport:
        """Make partitions ahead and drop what is due, oldest first, until the time is up.

        Raises:
            LogUnavailableError: the database does not answer; the next run goes on from there.
        """
        report = RetentionReport()
        until = None if self.run_seconds is None else time.monotonic() + self.run_seconds
        async with self.log.exclusively() as is_alone:
            if not is_alone:
                # Anybody in the database can hold this lock, and retention then stands still.
                log.warning("audit_retention_locked_out")
                report.is_alone = False
                return report
            await self.log.ensure_ahead()
            now = await self.log.now()
            partitions = await self.log.partitions()
            due = [each for each in partitions if self.policy.is_due(each, at=now)]
            for partition in filter(self._is_meant, due):
                if report.outcomes and _is_over(until):
                    why = "the time was up; the next run begins with it"
                    waiting = Outcome(partition=partition, fate="unfinished", why=why)
                    report.outcomes.append(waiting)
                    break
                report.outcomes.append(await self._try(partition, now, until))
        return report

    def _is_meant(self, partition: Partition) -> bool:
        return self.only is None or any(partition.label == each.label for each in self.only)

    async def _try(self, partition: Partition, now: datetime, until: float | None) -> Outcome:
        try:
            outcome = await self._retain(partition, now, until)
        except LogBusyError as exc:
            outcome = Outcome(partition=partition, fate="put_off", why=exc.detail)
        except (ArchiveError, UnsoundPartitionError, UnknownSignerError) as exc:
            outcome = Outcome(
                partition=partition,
                fate="refused",
                why=exc.detail,
                is_unsound=isinstance(exc, UnsoundPartitionError),
            )
        write = log.error if outcome.fate == "refused" else log.info
        write(
            "audit_partition_retained",
            retention_class=partition.retention_class,
            period=partition.period.isoformat(),
            fate=outcome.fate,
            why=outcome.why,
        )
        return outcome

    async def _retain(self, partition: Partition, now: datetime, until: float | None) -> Outcome:
        progress = self.archive.load(partition)
        tombstone = await self.log.find_tombstone(partition)
        if tombstone is None:
            while rows := await self.log.read_block(partition, progress.after):
                progress = self.archive.append(partition, _follow(partition, progress, rows), rows)
                if _is_over(until):
                    return _unfinished(partition, progress)
            tombstone = await self._bury(partition, progress, now)
        while tombstone is not None:
            last = await self.log.forget_personal(partition, progress.forgotten, PERSONAL_SLICE)
            if last is None:
                break
            progress = replace(progress, forgotten=last)
            self.archive.note(partition, progress)
            if _is_over(until):
                return _unfinished(partition, progress)
        await self._drop(partition, tombstone)
        self.archive.discard(partition)
        return Outcome(partition=partition, fate="dropped")

    async def _bury(self, partition: Partition, progress: Progress, now: datetime) -> int | None:
        if (progress.rows, progress.first, progress.after) != await self.log.span(partition):
            self.archive.discard(partition)
            message = "Its rows changed while they were read; the next run reads them anew."
            raise UnsoundPartitionError(message)
        if not progress.rows:
            return None
        digest = RowDigest(progress.blocks).digest()
        archived = self.archive.finish(partition, progress, digest)
        n, previous = await self.log.last_tombstone() or (0, GENESIS)
        tombstone = Tombstone(
            n=n + 1,
            retention_class=partition.retention_class,
            period=partition.period,
            rows=progress.rows,
            first_seq=progress.first,
            last_seq=progress.after,
            members=sha256(progress.bits).digest(),
            digest=digest,
            archive=archived,
            policy_days=self.policy.days[partition.retention_class],
            actor=self.actor,
            decided_at=now,
            key_id=self.signer.key_id,
            previous=previous,
        )
        signed = SignedTombstone(
            tombstone=tombstone, signature=self.signer.sign(tombstone.to_bytes())
        )
        stored = StoredTombstone(signed=signed, packed=progress.bits, hash=tombstone.hash())
        await self.log.bury(stored)
        return tombstone.n

    async def _drop(self, partition: Partition, tombstone: int | None) -> None:
        for pause in self.patience:
            try:
                await self.log.drop(partition, tombstone)
            except LogBusyError:
                await asyncio.sleep(pause)
            else:
                return
        await self.log.drop(partition, tombstone)


def _follow(partition: Partition, progress: Progress, rows: Sequence[Row]) -> Progress:
    """Take a block's rows into the digest, having held each against the chain.

    Raises:
        UnsoundPartitionError: one is not what was chained, or is not of this partition.
    """
    first = progress.first or rows[0].seq
    digest, members, last = RowDigest(progress.blocks), RowSet(first), progress.after
    if progress.bits:
        members = unpack_rows(progress.bits, first_seq=first, last_seq=progress.after)
    for row in rows:
        fault = _find_fault(partition, row)
        if fault is not None or row.leaf is None or row.seq <= last:
            message = f"Row {row.seq} is not what was chained ({fault}): see `maas audit verify`."
            raise UnsoundPartitionError(message)
        digest.take(row.seq, row.leaf)
        members.add(row.seq)
        last = row.seq
    digest.close_block()
    return replace(
        progress,
        after=last,
        rows=progress.rows + len(rows),
        first=first,
        blocks=tuple(digest.blocks),
        bits=members.pack(),
    )


def _find_fault(partition: Partition, row: Row) -> str | None:
    """Say why a row must not go: the column that tells its class is not hashed, its action is."""
    if row.leaf is None or row.chained_at != row.recorded_at or leaf_of(row.payload) != row.leaf:
        return "its payload or its time is another"
    if row.retention_class != partition.retention_class or not partition.holds(row.recorded_at):
        return "it is in another's partition"
    return find_difference(row.columns, is_dropping=True)


def _is_over(until: float | None) -> bool:
    return until is not None and time.monotonic() > until


def _unfinished(partition: Partition, progress: Progress) -> Outcome:
    why = f"{progress.rows:,} rows read so far; the next run goes on"
    return Outcome(partition=partition, fate="unfinished", why=why)
