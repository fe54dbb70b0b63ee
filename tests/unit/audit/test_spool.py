"""The file of last resort: what was acknowledged is in it, whatever tears or fills it."""

import asyncio
import errno
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from maas.audit.application.events import EventComposer, QueuedEvent
from maas.audit.infrastructure.spool import (
    Spool,
    SpoolUnavailableError,
    drain_abandoned,
    encode_record,
    measure_spools,
)
from maas.audit.public import Actor, AuditScope
from maas.shared.domain.call import Call
from maas.shared.domain.errors import UnavailableError
from maas.shared.domain.ids import new_id
from maas.shared.infrastructure.clock import SystemClock
from tests.fakes.recorder import FakeRecorder

ROOM = 1024 * 1024


def make_event(reason: str | None = None) -> QueuedEvent:
    scope = AuditScope("auth.login", outcome="failure", reason=reason, email="ada@example.com")
    scope.actor = Actor("account", new_id(), "ada")
    call = Call(request_id=new_id().hex, recorder=FakeRecorder(), address="192.0.2.7")
    return EventComposer(SystemClock()).compose(scope, call)


class Elsewhere:
    """Where events are handed over to."""

    def __init__(self) -> None:
        self.events: list[QueuedEvent] = []
        self.is_down = False

    async def take(self, events: Sequence[QueuedEvent]) -> None:
        if self.is_down:
            raise UnavailableError
        self.events += events


def files(folder: Path, suffix: str = ".spool") -> list[Path]:
    return sorted(folder.glob(f"*{suffix}"))


async def abandon(folder: Path, *events: QueuedEvent) -> Path:
    """Leave a file as a process does that ends."""
    spool = Spool(folder, max_bytes=ROOM)
    for event in events:
        await spool.append(event)
    await spool.close()
    return files(folder)[-1]


class TestAppend:
    async def test_keeps_every_byte_until_it_is_handed_over(self, tmp_path: Path) -> None:
        folder, elsewhere = tmp_path / "audit" / "spool", Elsewhere()
        events = [make_event("größer \u2028 \U0001f600"), make_event(), make_event()]
        spool = Spool(folder, max_bytes=ROOM)

        for event in events:
            await spool.append(event)

        assert measure_spools(folder, counting=True).records == 3
        assert await spool.drain(elsewhere.take) == 3
        assert elsewhere.events == events
        assert files(folder) == []
        assert not spool.has_content

    async def test_keeps_it_from_other_users(self, tmp_path: Path) -> None:
        path = await abandon(tmp_path / "spool", make_event())

        assert path.stat().st_mode & 0o777 == 0o600
        assert path.parent.stat().st_mode & 0o777 == 0o700

    async def test_syncs_before_it_returns_and_once_for_many(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        synced: list[int] = []
        real = os.fsync

        def fsync(descriptor: int) -> None:
            real(descriptor)
            synced.append(os.fstat(descriptor).st_size)

        spool = Spool(tmp_path, max_bytes=ROOM)
        first = make_event()
        await spool.append(first)
        monkeypatch.setattr(os, "fsync", fsync)

        await asyncio.gather(*(spool.append(make_event()) for _ in range(50)))

        assert len(synced) <= 2
        assert synced[-1] == files(tmp_path)[0].stat().st_size > len(encode_record(first))
        await spool.close()

    async def test_takes_what_there_is_room_for_and_refuses_the_rest(self, tmp_path: Path) -> None:
        event = make_event()
        spool, elsewhere = (
            Spool(tmp_path, max_bytes=int(2.5 * len(encode_record(event)))),
            Elsewhere(),
        )

        answers = await asyncio.gather(
            *(spool.append(event) for _ in range(4)), return_exceptions=True
        )

        assert [type(answer) for answer in answers] == [
            type(None), type(None), SpoolUnavailableError, SpoolUnavailableError,
        ]  # fmt: skip
        assert await spool.drain(elsewhere.take) == 2
        await spool.append(event)
        await spool.close()

    async def test_counts_what_others_left_to_its_bound(self, tmp_path: Path) -> None:
        path = await abandon(tmp_path, make_event())
        spool = Spool(tmp_path, max_bytes=path.stat().st_size + 10)

        with pytest.raises(SpoolUnavailableError):
            await spool.append(make_event())

        await spool.close()

    async def test_on_a_full_disk_leaves_no_half_record_behind(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        spool, elsewhere = Spool(tmp_path, max_bytes=ROOM), Elsewhere()
        kept, lost, later = make_event(), make_event(), make_event()
        await spool.append(kept)
        real = os.write

        def write_half(descriptor: int, data: memoryview) -> int:
            real(descriptor, bytes(data[: len(data) // 2]))
            raise OSError(errno.ENOSPC, "no space left")

        monkeypatch.setattr(os, "write", write_half)
        with pytest.raises(SpoolUnavailableError):
            await spool.append(lost)
        monkeypatch.setattr(os, "write", real)
        await spool.append(later)

        await spool.drain(elsewhere.take)
        await drain_abandoned(tmp_path, elsewhere.take)

        assert elsewhere.events == [later, kept]
        assert files(tmp_path) == files(tmp_path, ".torn") == []

    async def test_after_a_failed_sync_acknowledges_nothing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        spool = Spool(tmp_path, max_bytes=ROOM)
        await spool.append(make_event())

        def fail(_: int) -> None:
            raise OSError(errno.EIO, "the disk is gone")

        monkeypatch.setattr(os, "fsync", fail)

        with pytest.raises(SpoolUnavailableError):
            await spool.append(make_event())

        monkeypatch.undo()
        elsewhere = Elsewhere()
        assert await drain_abandoned(tmp_path, elsewhere.take) == 1

    async def test_without_a_folder_it_may_write_to_refuses(self, tmp_path: Path) -> None:
        tmp_path.joinpath("file").write_text("")
        spool = Spool(tmp_path / "file" / "spool", max_bytes=ROOM)

        with pytest.raises(SpoolUnavailableError):
            await spool.append(make_event())


class TestDrain:
    async def test_of_what_cannot_be_opened_keeps_nothing_else_back(self, tmp_path: Path) -> None:
        event, elsewhere = make_event(), Elsewhere()
        await abandon(tmp_path, event)
        tmp_path.joinpath("0-no-file.spool").mkdir()

        assert await drain_abandoned(tmp_path, elsewhere.take) == 1
        assert elsewhere.events == [event]

    async def test_keeps_all_while_nobody_takes_them(self, tmp_path: Path) -> None:
        spool, elsewhere, event = Spool(tmp_path, max_bytes=ROOM), Elsewhere(), make_event()
        await spool.append(event)
        elsewhere.is_down = True

        with pytest.raises(UnavailableError):
            await spool.drain(elsewhere.take)

        elsewhere.is_down = False
        assert await spool.drain(elsewhere.take) == 1
        assert elsewhere.events == [event]

    async def test_hands_over_what_arrives_meanwhile(self, tmp_path: Path) -> None:
        spool, taken = Spool(tmp_path, max_bytes=ROOM), Elsewhere()
        more = [make_event() for _ in range(5)]
        await spool.append(make_event())

        async def take_and_grow(events: Sequence[QueuedEvent]) -> None:
            await taken.take(events)
            if more:
                await spool.append(more.pop())

        await spool.drain(take_and_grow)

        assert len(taken.events) == 6
        assert files(tmp_path) == []

    async def test_leaves_the_files_of_living_processes_alone(self, tmp_path: Path) -> None:
        spool, elsewhere = Spool(tmp_path, max_bytes=ROOM), Elsewhere()
        await spool.append(make_event())

        assert await drain_abandoned(tmp_path, elsewhere.take) == 0

        await spool.close()
        assert await drain_abandoned(tmp_path, elsewhere.take) == 1
        assert files(tmp_path) == []

    async def test_takes_over_what_a_killed_process_left(self, tmp_path: Path) -> None:
        script = (
            "import asyncio, sys\nfrom pathlib import Path\n"
            "from maas.audit.infrastructure.spool import Spool\n"
            "from tests.unit.audit.test_spool import make_event\n"
            "async def main():\n"
            f"    spool = Spool(Path(sys.argv[1]), max_bytes={ROOM})\n"
            "    await spool.append(make_event())\n"
            "    print('kept', flush=True)\n"
            "    await asyncio.sleep(60)\n"
            "asyncio.run(main())\n"
        )
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", script, str(tmp_path), stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        assert await process.stdout.readline() == b"kept\n"
        elsewhere = Elsewhere()
        assert await drain_abandoned(tmp_path, elsewhere.take) == 0
        process.kill()
        await process.wait()

        assert await drain_abandoned(tmp_path, elsewhere.take) == 1

    @pytest.mark.parametrize("cut", [1, 5, 60, -1])
    async def test_uses_all_before_a_torn_tail_and_sets_the_file_aside(
        self, tmp_path: Path, cut: int
    ) -> None:
        events = [make_event() for _ in range(3)]
        path = await abandon(tmp_path, *events)
        whole = path.read_bytes()
        last = len(encode_record(events[-1]))
        tail = whole[-last:][:cut]
        path.write_bytes(whole[:-last] + tail)
        elsewhere = Elsewhere()

        assert await drain_abandoned(tmp_path, elsewhere.take) == 2

        assert elsewhere.events == events[:2]
        aside = files(tmp_path, ".torn")
        assert [file.read_bytes() for file in aside] == [whole[:-last] + tail]
        assert measure_spools(tmp_path).torn_files == 1
        assert await drain_abandoned(tmp_path, elsewhere.take) == 0

    async def test_sets_a_file_aside_whose_bytes_have_changed(self, tmp_path: Path) -> None:
        events = [make_event() for _ in range(3)]
        path = await abandon(tmp_path, *events)
        changed = bytearray(path.read_bytes())
        changed[len(encode_record(events[0])) + 20] ^= 1
        path.write_bytes(changed)
        elsewhere = Elsewhere()

        await drain_abandoned(tmp_path, elsewhere.take)

        assert elsewhere.events == events[:1]
        assert files(tmp_path, ".torn")[0].read_bytes() == changed

    async def test_hands_over_in_slices(self, tmp_path: Path) -> None:
        path = await abandon(tmp_path, make_event())
        path.write_bytes(path.read_bytes() * 1_201)
        sizes: list[int] = []

        async def take(events: Sequence[QueuedEvent]) -> None:
            sizes.append(len(events))

        assert await drain_abandoned(tmp_path, take) == 1_201
        assert sizes == [500, 500, 201]

    async def test_finds_nothing_where_there_is_no_folder(self, tmp_path: Path) -> None:
        assert await drain_abandoned(tmp_path / "none", Elsewhere().take) == 0
        assert measure_spools(tmp_path / "none").bytes == 0
