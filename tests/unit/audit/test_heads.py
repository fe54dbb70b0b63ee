import errno
import json
import os
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from maas.audit.application.flush import LogUnavailableError
from maas.audit.application.heads import HeadService
from maas.audit.domain.checkpoint import SignedCheckpoint
from maas.audit.infrastructure.heads import (
    HeadFile,
    HeadLog,
    UnreadableHeadsError,
    open_head_file,
    read_heads,
)
from tests.unit.audit.test_checkpoint import CHECKPOINT, SIGNED

NEXT = SignedCheckpoint(
    checkpoint=replace(CHECKPOINT, n=2, seq_from=4, seq_to=9), signature=b"x" * 64
)


@dataclass
class Newest:
    head: SignedCheckpoint | None = SIGNED
    is_down: bool = False

    async def __call__(self) -> SignedCheckpoint | None:
        if self.is_down:
            raise LogUnavailableError
        return self.head


@dataclass
class FullDisk:
    tried: list[SignedCheckpoint] = field(default_factory=list)

    def append(self, head: SignedCheckpoint) -> bool:
        self.tried.append(head)
        raise OSError(errno.ENOSPC, "No space left on device")


class TestExport:
    async def test_notes_a_head_once_and_logs_it(self, tmp_path: Path) -> None:
        path, newest = tmp_path / "audit" / "heads.ndjson", Newest()
        service = HeadService(newest=newest, file=HeadFile(path))

        with capture_logs() as lines:
            noted = [await service.export(), await service.export()]
            newest.head = NEXT
            noted.append(await service.export())

        assert noted == [True, False, True]
        assert [line["event"] for line in lines] == ["audit_head", "audit_head"]
        assert {line["log_level"] for line in lines} == {"info"}
        assert [head for _, head in read_heads(path)[0]] == [SIGNED, NEXT]

    async def test_by_another_process_is_not_repeated(self, tmp_path: Path) -> None:
        path = tmp_path / "heads.ndjson"

        noted = [await HeadService(newest=Newest(), file=HeadFile(path)).export() for _ in range(2)]

        assert noted == [True, False]

    async def test_of_nothing_writes_nothing(self, tmp_path: Path) -> None:
        path = tmp_path / "heads.ndjson"

        assert not await HeadService(newest=Newest(None), file=HeadFile(path)).export()
        assert not path.exists()

    async def test_into_the_log_alone(self, tmp_path: Path) -> None:
        service = HeadService(newest=Newest(), file=open_head_file("-", data_dir=tmp_path))

        assert [await service.export(), await service.export()] == [True, False]
        assert os.listdir(tmp_path) == []  # noqa: PTH208  the event loop waits for neither

    async def test_on_a_full_disk_says_so_and_tries_again(self) -> None:
        disk = FullDisk()
        service = HeadService(newest=Newest(), file=disk)

        with capture_logs() as lines:
            await service.export()
            await service.export()

        assert [line["event"] for line in lines] == ["audit_head_unwritten"] * 2
        assert lines[0]["log_level"] == "error"
        assert lines[0]["reason"] == "No space left on device"
        assert disk.tried == [SIGNED, SIGNED]

    async def test_while_the_database_is_down_waits_for_the_next_minute(self) -> None:
        service = HeadService(newest=Newest(is_down=True), file=HeadLog())

        with capture_logs() as lines:
            assert not await service.export()

        assert [line["event"] for line in lines] == ["audit_head_unread"]


class TestFile:
    def test_after_a_torn_line_goes_on_in_the_next(self, tmp_path: Path) -> None:
        path = tmp_path / "heads.ndjson"
        file = HeadFile(path)
        file.append(SIGNED)
        path.write_bytes(path.read_bytes() + b'{"v":1,"n":')

        file.append(NEXT)

        heads, unreadable = read_heads(path)
        assert [(place, head.checkpoint.n) for place, head in heads] == [
            ("heads.ndjson line 1", 1),
            ("heads.ndjson line 3", 2),
        ]
        assert unreadable == 1

    def test_a_line_is_json_that_anybody_can_read(self, tmp_path: Path) -> None:
        path = tmp_path / "heads.ndjson"
        HeadFile(path).append(SIGNED)

        assert json.loads(path.read_text()) == SIGNED.to_mapping()

    @pytest.mark.parametrize("content", [b"", b"nonsense\n", b"[]\n\xff\n", b'{"v":9}\n'])
    def test_without_a_head_is_refused(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "heads.ndjson"
        path.write_bytes(content)

        with pytest.raises(UnreadableHeadsError):
            read_heads(path)

    def test_unless_set_is_in_the_data_folder(self, tmp_path: Path) -> None:
        open_head_file(None, data_dir=tmp_path).append(SIGNED)

        assert (tmp_path / "audit" / "heads.ndjson").exists()
