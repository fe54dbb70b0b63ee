"""The flush: from the stream and the outbox into the chained log, each event exactly once."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final, Literal, Protocol, TypeAlias

import structlog

from maas.audit.domain.record import MalformedEventError, Record, read_record
from maas.shared.domain.errors import UnavailableError

Source: TypeAlias = Literal["stream", "outbox"]

FIRST_SHARE: Final = timedelta(seconds=12)
"""How long a run reads the stream at most, so that the outbox gets its turn."""

PROBES: Final = 8
"""So many records of a refused batch are tried alone before the log itself is blamed."""

ALARM_SECONDS: Final = 60.0

RUN_SHARE: Final = timedelta(seconds=20)
HARD_LIMIT: Final = timedelta(seconds=40)
"""Past this a run is cut off; what it had not committed is delivered again."""

log = structlog.get_logger(__name__)


class UnfitRecordsError(ValueError):
    """The database refuses these records for what is in them; at least one is at fault."""


class LogUnavailableError(UnavailableError):
    code = "audit-log-unavailable"
    title = "The audit log takes no entries at the moment"


class LogRefusedError(LogUnavailableError):
    """An error that is no outage, and does not say that the records are at fault either."""

    code = "audit-log-refused"
    title = "The audit log refuses entries, and waiting may not mend it"


@dataclass(frozen=True, slots=True)
class Delivery:
    """An entry as it came, field by field."""

    source: Source
    entry_id: str
    fields: Mapping[bytes, bytes]


@dataclass(frozen=True, slots=True)
class Appended:
    written: int
    repeated: int


@dataclass(slots=True)
class FlushReport:
    """What one run did; `interrupted` names what was down, and the next tick goes on."""

    written: int = 0
    repeated: int = 0
    buried: int = 0
    interrupted: list[str] = field(default_factory=list)


class Inbox(Protocol):
    """Where entries wait until they are acknowledged."""

    async def take(self, limit: int) -> list[Delivery]:
        """Take what was left half done first, then what is new.

        Raises:
            UnavailableError: it cannot be read now.
        """
        ...

    async def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        """Let go of entries whose fate is committed."""
        ...


class Ledger(Protocol):
    """The chained log; every method is one transaction."""

    async def append(self, records: Sequence[Record]) -> Appended:
        """Append those whose ids are new, and drop the outbox rows of all.

        Raises:
            UnfitRecordsError: one or more cannot be stored, ever; nothing was.
            LogRefusedError: the database did not take them; whose fault it is, is not known.
            LogUnavailableError: the database did not take them, for no fault of theirs.
        """
        ...

    async def bury(self, delivery: Delivery, *, error: str) -> None:
        """Put an entry that can never be logged aside, its bytes untouched."""
        ...


class FlushRunner(Protocol):
    """Runs a flush to its end, from a thread that has no event loop."""

    def __call__(self) -> FlushReport: ...


@dataclass(slots=True, kw_only=True)
class FlushService:
    """One per process; a run that finds another under way in its process leaves it the work."""

    stream: Inbox
    outbox: Inbox
    ledger: Ledger
    batch_size: int
    _is_running: bool = False
    _quiet_until: float = 0.0
    _refused_by: str = ""

    async def run(self, *, outbox_first: bool = False) -> FlushReport:
        """Flush until nothing waits, or for 20 s; never raises for an outage, and is repeatable.

        `outbox_first` is for times when Redis is expected not to answer.
        """
        report = FlushReport()
        if self._is_running:
            return report
        self._is_running = True
        try:
            async with asyncio.timeout(HARD_LIMIT.total_seconds()):
                begun = time.monotonic()
                first, second = self.stream, self.outbox
                if outbox_first:
                    first, second = second, first
                await self._drain(first, begun + FIRST_SHARE.total_seconds(), report)
                await self._drain(second, begun + RUN_SHARE.total_seconds(), report)
        except TimeoutError:
            report.interrupted.append("time")
        finally:
            self._is_running = False
        if LogRefusedError.code in report.interrupted:
            self._raise_alarm()
        if report.interrupted:
            log.warning("audit_flush_interrupted", by=report.interrupted, written=report.written)
        return report

    def _raise_alarm(self) -> None:
        """Say at most once a minute that somebody has to look."""
        now = time.monotonic()
        if now >= self._quiet_until:
            self._quiet_until = now + ALARM_SECONDS
            log.error("audit_flush_refused", by=self._refused_by)

    async def _drain(self, inbox: Inbox, until: float, report: FlushReport) -> None:
        try:
            while deliveries := await inbox.take(self.batch_size):
                await self._settle(deliveries, report)
                await inbox.acknowledge(deliveries)
                if len(deliveries) < self.batch_size or time.monotonic() > until:
                    return
        except UnavailableError as exc:
            report.interrupted.append(exc.code)
            if isinstance(exc, LogRefusedError):
                self._refused_by = exc.detail

    async def _settle(self, deliveries: Sequence[Delivery], report: FlushReport) -> None:
        readable: list[tuple[Delivery, Record]] = []
        for delivery in deliveries:
            try:
                readable.append((delivery, _read(delivery)))
            except MalformedEventError as exc:
                await self._bury(delivery, exc, report)
        await self._append(readable, report)

    async def _append(
        self, readable: Sequence[tuple[Delivery, Record]], report: FlushReport
    ) -> None:
        """Append a batch; one that is refused for its content is halved until the culprit shows."""
        if not readable:
            return
        try:
            appended = await self.ledger.append([record for _, record in readable])
        except UnfitRecordsError as exc:
            if len(readable) == 1:
                await self._bury(readable[0][0], exc, report)
                return
            middle = len(readable) // 2
            await self._append(readable[:middle], report)
            await self._append(readable[middle:], report)
            return
        except LogRefusedError as exc:
            if len(readable) == 1 or not await self._takes_any(readable, report):
                raise
            await self._append_each(readable, exc, report)
            return
        report.written += appended.written
        report.repeated += appended.repeated

    async def _takes_any(
        self, readable: Sequence[tuple[Delivery, Record]], report: FlushReport
    ) -> bool:
        """Try some records alone: a log that takes one of them works, and others are at fault."""
        for _, record in readable[:: max(1, len(readable) // PROBES)]:
            try:
                appended = await self.ledger.append([record])
            except (UnfitRecordsError, LogRefusedError):
                continue
            report.written += appended.written
            report.repeated += appended.repeated
            return True
        return False

    async def _append_each(
        self,
        readable: Sequence[tuple[Delivery, Record]],
        error: LogRefusedError,
        report: FlushReport,
    ) -> None:
        """Append to a log that works, halving what it refuses until each culprit is alone."""
        if len(readable) == 1:
            await self._bury(readable[0][0], error, report)
            return
        middle = len(readable) // 2
        for half in (readable[:middle], readable[middle:]):
            try:
                appended = await self.ledger.append([record for _, record in half])
            except UnfitRecordsError:
                await self._append(half, report)
            except LogRefusedError as exc:
                await self._append_each(half, exc, report)
            else:
                report.written += appended.written
                report.repeated += appended.repeated

    async def _bury(self, delivery: Delivery, error: Exception, report: FlushReport) -> None:
        await self.ledger.bury(delivery, error=str(error))
        report.buried += 1
        log.error("audit_entry_buried", source=delivery.source, entry_id=delivery.entry_id)


def _read(delivery: Delivery) -> Record:
    fields = delivery.fields
    try:
        if fields[b"v"] != b"1":
            raise MalformedEventError("the entry has a version this code does not read")
        duration = fields.get(b"duration_ms")
        record = read_record(
            payload=fields[b"payload"],
            personal=fields[b"personal"],
            duration_ms=None if duration is None else int(duration),
        )
    except KeyError as exc:
        raise MalformedEventError("the entry lacks a field") from exc
    except ValueError as exc:
        raise MalformedEventError(str(exc)) from exc
    if fields.get(b"id") != str(record.event_id).encode():
        raise MalformedEventError("the entry's id is not its event's")
    return record
