"""The queue before the captures: it takes or drops, and neither waits nor fails."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from maas.inference.application import captures as captures_module
from maas.inference.application.captures import (
    BATCH,
    MAX_CAPTURE_BYTES,
    MAX_WAITING_BYTES,
    AnswerTape,
    Capture,
    CaptureQueue,
    DropReason,
    keep_for,
)
from maas.shared.domain.errors import UnavailableError
from maas.shared.domain.ids import DEFAULT_TENANT_ID, AccountId, TenantId
from tests.factories.calls import DEPLOYMENT, make_route

NOW = datetime(2026, 11, 22, tzinfo=UTC)
OTHER = TenantId(UUID(int=7))
WEEK = timedelta(days=7)


def make_capture(
    answer: bytes | None = b"{}", *, tenant_id: TenantId = DEFAULT_TENANT_ID
) -> Capture:
    return Capture(
        tenant_id=tenant_id,
        account_id=AccountId(UUID(int=1)),
        request_id="r-1",
        deployment_id=DEPLOYMENT,
        kind="chat",
        is_stream=False,
        is_whole=True,
        captured_at=NOW,
        keep_until=NOW + WEEK,
        request=b"{}",
        answer=answer,
    )


@dataclass
class Store:
    """Keeps in memory; raises while it `is_down`, and as often as it `refuses`."""

    kept: list[Sequence[Capture]] = field(default_factory=list)
    is_down: bool = False
    refuses: int = 0
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.gate.set()

    async def keep(self, captures: Sequence[Capture]) -> None:
        self.asked.set()
        await self.gate.wait()
        if self.is_down:
            raise UnavailableError
        if self.refuses:
            self.refuses -= 1
            raise ZeroDivisionError
        self.kept.append(list(captures))


@dataclass
class Line:
    store: Store = field(default_factory=Store)
    drops: Counter[DropReason] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.queue = CaptureQueue(self.store)
        self.queue.on_dropped = self._count

    def _count(self, reason: DropReason, count: int) -> None:
        self.drops[reason] += count


@pytest.fixture
def line(monkeypatch: pytest.MonkeyPatch) -> Line:
    monkeypatch.setattr(captures_module, "PAUSE_SECONDS", 0.001)
    return Line()


async def test_what_is_offered_is_written_before_the_end(line: Line) -> None:
    capture = make_capture()

    line.queue.offer(capture)
    await line.queue.close()

    assert line.store.kept == [[capture]]
    assert not line.drops


async def test_tenants_are_written_apart_and_in_slices(line: Line) -> None:
    ours = [make_capture() for _ in range(BATCH + 1)]
    theirs = make_capture(tenant_id=OTHER)

    for capture in (*ours, theirs):
        line.queue.offer(capture)
    await line.queue.close()

    assert line.store.kept == [ours[:BATCH], [theirs], ours[BATCH:]]


async def test_without_room_it_is_dropped_and_counted(line: Line) -> None:
    line.store.gate.clear()
    large = MAX_WAITING_BYTES // 8 - 2

    for _ in range(10):
        line.queue.offer(make_capture(b"x" * large))
    line.store.gate.set()
    await line.queue.close()

    assert sum(map(len, line.store.kept)) == 8
    assert line.drops == {"no_room": 2}


async def test_what_was_written_makes_room(line: Line) -> None:
    for _ in range(3):
        for _ in range(8):
            line.queue.offer(make_capture(b"x" * (MAX_WAITING_BYTES // 8 - 2)))
        await line.queue.close()

    assert not line.drops


@pytest.mark.parametrize("answer", [None, b"x" * MAX_CAPTURE_BYTES])
async def test_what_is_too_large_is_dropped_and_counted(line: Line, answer: bytes | None) -> None:
    line.queue.offer(make_capture(answer))
    await line.queue.close()

    assert (line.store.kept, line.drops) == ([], {"too_large": 1})


async def test_an_outage_is_waited_out(line: Line) -> None:
    line.store.is_down = True
    capture = make_capture()

    line.queue.offer(capture)
    await line.store.asked.wait()
    line.store.is_down = False
    await line.queue.close()

    assert (line.store.kept, line.drops) == ([[capture]], {})


async def test_what_is_refused_does_not_hold_up_the_others(line: Line) -> None:
    line.store.refuses = 1
    capture = make_capture(tenant_id=OTHER)

    line.queue.offer(make_capture())
    line.queue.offer(capture)
    await line.queue.close()

    assert (line.store.kept, line.drops) == ([[capture]], {"not_written": 1})


async def test_what_could_not_be_written_by_the_end_is_said(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(captures_module, "CLOSE_SECONDS", 0.02)
    line.store.is_down = True

    for _ in range(3):
        line.queue.offer(make_capture())
    await line.queue.close()

    assert (line.store.kept, line.drops) == ([], {"not_written": 3})


class TestTape:
    def test_it_has_what_went_by(self) -> None:
        tape = AnswerTape(10)

        for chunk in (b"data: 1\n\n", b"", b"data: [DONE]\n\n"):
            tape.add(chunk)

        assert tape.answer == b"data: 1\n\ndata: [DONE]\n\n"

    def test_beyond_its_room_it_keeps_nothing_in_memory(self) -> None:
        tape = AnswerTape(MAX_CAPTURE_BYTES - 8)

        tape.add(b"12345678")
        at_the_bound = tape.answer
        tape.add(b"9")
        tape.add(b"")

        assert (at_the_bound, tape.answer) == (b"12345678", None)

    def test_a_request_beyond_the_bound_leaves_no_room(self) -> None:
        tape = AnswerTape(MAX_CAPTURE_BYTES + 1)

        tape.add(b"")

        assert tape.answer is None


class TestWhose:
    def test_the_deployments_own_tenant_is_kept(self) -> None:
        assert keep_for(make_route(keeps_captures=WEEK), DEFAULT_TENANT_ID) == WEEK

    def test_another_tenants_calls_never_are(self) -> None:
        assert keep_for(make_route(keeps_captures=WEEK), OTHER) is None

    def test_none_are_unless_it_says_so(self) -> None:
        assert keep_for(make_route(), DEFAULT_TENANT_ID) is None
