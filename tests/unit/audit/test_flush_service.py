from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID

from maas.audit.application.flush import (
    Appended,
    Delivery,
    FlushReport,
    FlushService,
    LogUnavailableError,
    UnfitRecordsError,
)
from maas.audit.domain.record import Record
from maas.shared.domain.ids import EventId
from tests.unit.audit.test_event import make_event


def deliver(number: int, *, action: str = "model.created") -> Delivery:
    event = make_event(id=EventId(UUID(int=number)), action=action)
    return Delivery(
        "stream",
        f"{number}-0",
        {
            b"v": b"1",
            b"id": str(event.id).encode(),
            b"payload": event.payload(),
            b"personal": event.personal.to_json().encode(),
        },
    )


@dataclass
class FakeInbox:
    waiting: list[Delivery] = field(default_factory=list)
    acknowledged: list[str] = field(default_factory=list)
    is_down: bool = False

    async def take(self, limit: int) -> list[Delivery]:
        if self.is_down:
            raise LogUnavailableError
        taken, self.waiting = self.waiting[:limit], self.waiting[limit:]
        return taken

    async def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        self.acknowledged += [delivery.entry_id for delivery in deliveries]


@dataclass
class FakeLedger:
    """Refuses whole batches with an unfit record in them, as PostgreSQL does."""

    ids: list[UUID] = field(default_factory=list)
    buried: dict[str, str] = field(default_factory=dict)
    is_down: bool = False

    async def append(self, records: Sequence[Record]) -> Appended:
        if self.is_down:
            raise LogUnavailableError
        if any(record.action == "unfit" for record in records):
            raise UnfitRecordsError("too odd")
        new = [record.event_id for record in records if record.event_id not in self.ids]
        self.ids += new
        return Appended(len(new), len(records) - len(new))

    async def bury(self, delivery: Delivery, *, error: str) -> None:
        self.buried[delivery.entry_id] = error


def make_service(stream: FakeInbox, ledger: FakeLedger, outbox: FakeInbox) -> FlushService:
    return FlushService(stream=stream, outbox=outbox, ledger=ledger, batch_size=10)


class TestRun:
    async def test_moves_everything_and_lets_go_of_it(self) -> None:
        stream = FakeInbox([deliver(number) for number in range(1, 26)])
        outbox, ledger = FakeInbox([deliver(26)]), FakeLedger()

        report = await make_service(stream, ledger, outbox).run()

        assert report == FlushReport(written=26)
        assert [identifier.int for identifier in ledger.ids] == list(range(1, 27))
        assert len(stream.acknowledged) == 25
        assert outbox.acknowledged == ["26-0"]

    async def test_finds_the_bad_ones_among_the_good(self) -> None:
        bad = {3, 4, 9, 17}
        stream = FakeInbox(
            [deliver(n, action="unfit" if n in bad else "model.created") for n in range(1, 21)]
        )
        ledger = FakeLedger()

        report = await make_service(stream, ledger, FakeInbox()).run()

        assert report == FlushReport(written=16, buried=4)
        assert set(ledger.buried) == {f"{number}-0" for number in bad}
        assert len(stream.acknowledged) == 20

    async def test_buries_what_it_cannot_read(self) -> None:
        good = deliver(1)
        odd_fields: list[dict[bytes, bytes]] = [
            {b"garbage": b"\xff"},
            {**good.fields, b"v": b"9"},
            {**good.fields, b"payload": b"\x00"},
            {**good.fields, b"id": str(UUID(int=2)).encode()},
            {**good.fields, b"duration_ms": b"soon"},
        ]
        odd = [Delivery("stream", f"odd-{n}", fields) for n, fields in enumerate(odd_fields)]
        stream, ledger = FakeInbox([*odd, good]), FakeLedger()

        report = await make_service(stream, ledger, FakeInbox()).run()

        assert report == FlushReport(written=1, buried=5)
        assert len(stream.acknowledged) == 6

    async def test_lets_go_of_nothing_when_the_database_is_down(self) -> None:
        stream, ledger = FakeInbox([deliver(1)]), FakeLedger(is_down=True)

        report = await make_service(stream, ledger, FakeInbox()).run()

        assert report.interrupted == ["audit-log-unavailable"]
        assert stream.acknowledged == []

    async def test_flushes_the_outbox_when_the_stream_is_down(self) -> None:
        ledger = FakeLedger()

        report = await make_service(FakeInbox(is_down=True), ledger, FakeInbox([deliver(1)])).run()

        assert report.written == 1
        assert len(report.interrupted) == 1

    async def test_counts_repeats_apart(self) -> None:
        stream, ledger = FakeInbox([deliver(1), deliver(2)]), FakeLedger([UUID(int=1)])

        report = await make_service(stream, ledger, FakeInbox()).run()

        assert report == FlushReport(written=1, repeated=1)
