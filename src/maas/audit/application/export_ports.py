"""What an export asks for, and what it is made of."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, Protocol, TypeVar

from maas.audit.application.proofs import CheckpointDetails
from maas.audit.application.queries import EventFilter
from maas.audit.domain.chain_check import ChainRow, Start
from maas.audit.domain.export import Content
from maas.audit.domain.tombstone import SignedTombstone
from maas.shared.domain.ids import TenantId

PAGE_ROWS: Final = 1_000
"""So many rows are read at once, and between two marks."""

PAGE_BYTES: Final = 8 * 1024 * 1024
"""A page ends behind the event that reaches so much, for one payload may have a mebibyte."""

SLICE_ROWS: Final = 100
"""So many are spelled before others on the event loop have their turn: some milliseconds.

A thread would spell no faster, and others would wait for the interpreter's lock.
"""

T = TypeVar("T")

EARLIEST_RECORD: Final = timedelta(minutes=5)
"""An event may be recorded that long before it occurred: the clocks of two machines differ."""

LATEST_RECORD: Final = timedelta(hours=1)
"""What is recorded later than that after a time's end is looked for no more: it was an outage."""

_NAMES: Final = ("actor_id", "action", "resource_kind", "resource_id", "outcome", "request_id")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportRequest:
    """Which of a tenant's events; `upto_seq` leaves out what was recorded after that row."""

    tenant_id: TenantId
    wanted: EventFilter = field(default_factory=EventFilter)
    content: Content = "full"
    upto_seq: int | None = None

    @property
    def filters(self) -> dict[str, str]:
        """The filters other than time, by name."""
        values = {name: getattr(self.wanted, name) for name in _NAMES}
        return {name: str(value) for name, value in values.items() if value is not None}

    @property
    def recorded(self) -> tuple[datetime | None, datetime | None]:
        """When events of the wanted time may have been recorded; both ends are included."""
        since, until = self.wanted.since, self.wanted.until
        return (
            None if since is None else since - EARLIEST_RECORD,
            None if until is None else until + LATEST_RECORD,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """From the first row of a checkpoint to the last of another; `seq_to` may be before `start`."""

    start: Start
    seq_to: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedEvent:
    """What an event's line holds beside its row of the chain; `personal` is null once erased.

    For a proof there is no payload, and no field but `salt` is read of what is personal.
    """

    payload: bytes | None
    duration_ms: int | None
    personal: Mapping[str, str] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportPage:
    """A part of the chain; `events` are the wanted ones of the tenant, by `seq`."""

    rows: Sequence[ChainRow]
    events: Mapping[int, ExportedEvent]
    checkpoints: Sequence[CheckpointDetails]


async def in_slices(rows: Sequence[T]) -> AsyncIterator[Sequence[T]]:
    """Hand out some rows at a time, and let others have their turn after each."""
    for begin in range(0, len(rows), SLICE_ROWS):
        yield rows[begin : begin + SLICE_ROWS]
        await asyncio.sleep(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class PageRequest:
    """The next `limit` rows behind `after`, and what is signed of them behind checkpoint `after_n`.

    Without `after_n` no checkpoints are read.
    """

    after: int
    upto: int
    limit: int
    after_n: int | None = None


class ExportReader(Protocol):
    async def keys(self) -> Sequence[Mapping[str, Any]]:
        """List every public key that signed, as lines hold them."""
        ...

    async def find_stretch(
        self, recorded_from: datetime | None, recorded_to: datetime | None, upto_seq: int | None
    ) -> Stretch:
        """Find the checkpoints that cover everything recorded in a time, both ends included.

        What `upto_seq` is one of the rows of is the last, if it is given.
        """
        ...

    async def page(self, request: ExportRequest, page: PageRequest) -> ExportPage:
        """Read the next page: fewer rows than its limit where their payloads are large."""
        ...

    async def tombstones(self, first_seq: int, last_seq: int) -> Sequence[SignedTombstone]:
        """List what says that events of a stretch of the log were dropped, by `n`."""
        ...


class StatementSigner(Protocol):
    """Signs; the same message twice gives the same signature."""

    @property
    def key_id(self) -> str: ...

    def sign(self, message: bytes) -> bytes: ...
