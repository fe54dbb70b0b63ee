import errno
import gzip
import hmac
import json
import os
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from pydantic import ValidationError

from maas.audit.application.retention import ArchiveError, Progress, Row
from maas.audit.domain.chain import leaf_of
from maas.audit.domain.retention_policy import Partition, RetentionPolicy
from maas.audit.domain.tombstone import GENESIS, Tombstone
from maas.audit.domain.tombstone_rows import digest_of
from maas.audit.infrastructure.archive import ArchiveFolder, find_archive_fault, read_events
from maas.audit.infrastructure.named_people import blacken_torn_spools
from maas.shared.infrastructure.settings import AuditSettings

AT = datetime(2026, 3, 5, tzinfo=UTC)
PARTITION = Partition(retention_class="usage", period=date(2026, 3, 1), rows=None, size_bytes=0)


def rows(*seqs: int) -> list[Row]:
    payloads = [(seq, f'{{"é":{seq}}}'.encode()) for seq in seqs]
    return [
        Row((seq, AT, payload, "usage"), None, AT, leaf_of(payload)) for seq, payload in payloads
    ]


def seal(message: bytes, key: bytes = b"key") -> bytes:
    return hmac.digest(key, message, "sha256")


def open_folder(folder: Path) -> ArchiveFolder:
    return ArchiveFolder(folder, seal=seal)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "archive"


class TestArchive:
    def test_goes_on_where_a_killed_run_left_half_a_block(self, folder: Path) -> None:
        archive = open_folder(folder)
        progress = archive.append(PARTITION, Progress(after=2, rows=2), rows(1, 2))
        part = next(folder.glob(".*.part"))
        part.write_bytes(part.read_bytes() + b"half of a block")

        again = open_folder(folder).load(PARTITION)
        done = archive.append(PARTITION, again, rows(3))
        file = archive.finish(PARTITION, done, GENESIS)

        assert again == progress
        assert file is not None
        assert list(read_events(folder / file.name)) == [
            (row.seq, row.payload) for row in rows(1, 2, 3)
        ]

    @pytest.mark.parametrize("content", [b"", b"{}", b'{"v": 9}', b"[", b"[]"])
    def test_begins_anew_where_its_note_says_nothing(self, folder: Path, content: bytes) -> None:
        archive = open_folder(folder)
        archive.append(PARTITION, Progress(after=1, rows=1), rows(1))
        next(folder.glob(".*.json")).write_bytes(content)

        assert archive.load(PARTITION) == Progress()

    def test_begins_anew_where_somebody_else_noted_it(self, folder: Path) -> None:
        archive = open_folder(folder)
        archive.append(PARTITION, Progress(after=1, rows=1), rows(1))
        note = next(folder.glob(".*.json"))
        note.write_text(json.dumps({**json.loads(note.read_bytes()), "rows": 2}))

        assert archive.load(PARTITION) == Progress()

    def test_begins_anew_where_the_note_is_another_partitions(self, folder: Path) -> None:
        other, archive = replace(PARTITION, period=date(2026, 4, 1)), open_folder(folder)
        for partition in (PARTITION, other):
            archive.append(partition, Progress(after=1, rows=1), rows(1))
        (folder / ".audit-usage-2026-04.json").replace(folder / ".audit-usage-2026-03.json")

        assert archive.load(PARTITION) == Progress()

    def test_follows_no_link_out_of_its_folder(self, folder: Path, tmp_path: Path) -> None:
        victim = tmp_path / "victim"
        victim.write_bytes(b"kept")
        folder.mkdir()
        for name in (".audit-usage-2026-03.part", ".audit-usage-2026-03.tmp"):
            (folder / name).symlink_to(victim)

        archive = open_folder(folder)
        progress = archive.append(PARTITION, Progress(after=1, rows=1), rows(1))
        part = folder / ".audit-usage-2026-03.part"
        is_own = not part.is_symlink()
        part.unlink()
        part.symlink_to(victim)

        assert is_own
        with pytest.raises(ArchiveError):
            archive.append(PARTITION, progress, rows(2))
        with pytest.raises(ArchiveError):
            archive.finish(PARTITION, progress, GENESIS)
        assert victim.read_bytes() == b"kept"

    @pytest.mark.parametrize("name", ["../a.gz", "/etc/passwd", "..", "", "a\0b"])
    def test_of_another_folder_is_no_archive(self, folder: Path, name: str) -> None:
        archive = open_folder(folder)
        done = archive.append(PARTITION, Progress(after=1, rows=1), rows(1))
        tombstone = bury(archive, done, GENESIS)
        assert tombstone.archive is not None
        elsewhere = replace(tombstone, archive=replace(tombstone.archive, name=name))

        fault = find_archive_fault(folder, elsewhere)

        assert fault is not None
        assert "SHA-256" not in fault

    def test_begins_anew_where_the_bytes_are_gone(self, folder: Path) -> None:
        archive = open_folder(folder)
        archive.append(PARTITION, Progress(after=1, rows=1), rows(1))
        next(folder.glob(".*.part")).unlink()

        assert archive.load(PARTITION) == Progress()

    def test_is_found_again_by_a_run_that_was_killed_before_its_tombstone(
        self, folder: Path
    ) -> None:
        archive = open_folder(folder)
        done = archive.append(PARTITION, Progress(after=1, rows=1), rows(1))
        first = archive.finish(PARTITION, done, GENESIS)

        again = archive.load(PARTITION)

        assert again == done
        assert archive.finish(PARTITION, again, GENESIS) == first

    def test_on_a_full_disk_says_so(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def write(_descriptor: int, _data: memoryview) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "write", write)

        with pytest.raises(ArchiveError, match="No room is left"):
            open_folder(folder).append(PARTITION, Progress(), rows(1))

    @pytest.mark.parametrize("tear", [b"", b"x"], ids=["cut", "changed"])
    def test_that_was_changed_is_found(self, folder: Path, tear: bytes) -> None:
        archive = open_folder(folder)
        done = archive.append(PARTITION, Progress(after=2, rows=2), rows(1, 2))
        digest = digest_of([(row.seq, leaf_of(row.payload)) for row in rows(1, 2)])
        tombstone = bury(archive, done, digest)
        assert tombstone.archive is not None
        path = folder / tombstone.archive.name
        whole = find_archive_fault(folder, tombstone)
        path.write_bytes(path.read_bytes()[:-1] + tear)

        assert whole is None
        assert find_archive_fault(folder, tombstone) is not None

    def test_of_other_events_is_found(self, folder: Path) -> None:
        archive = open_folder(folder)
        done = archive.append(PARTITION, Progress(after=1, rows=1), rows(1))

        fault = find_archive_fault(folder, bury(archive, done, GENESIS))

        assert fault == "its events are not those of the chain"

    @pytest.mark.parametrize("content", [b"", b"no gzip", gzip.compress(b"{}\n")], ids=len)
    def test_that_is_none_is_no_list_of_events(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "a.gz"
        path.write_bytes(content)

        if content:
            with pytest.raises(ValueError, match="cannot be read to its end"):
                list(read_events(path))
        else:
            assert list(read_events(path)) == []


def bury(archive: ArchiveFolder, progress: Progress, digest: bytes) -> Tombstone:
    return Tombstone(
        n=1,
        retention_class="usage",
        period=PARTITION.period,
        rows=progress.rows,
        first_seq=1,
        last_seq=progress.after,
        members=GENESIS,
        digest=digest,
        archive=archive.finish(PARTITION, progress, digest),
        policy_days=30,
        actor="worker",
        decided_at=AT,
        key_id="0" * 16,
        previous=GENESIS,
    )


class TestPolicy:
    @pytest.mark.parametrize(
        ("days", "at", "is_due"),
        [
            ({}, datetime(2199, 1, 1, tzinfo=UTC), False),
            ({"security": 30}, datetime(2199, 1, 1, tzinfo=UTC), False),
            ({"usage": 30}, datetime(2026, 4, 30, 23, 59, tzinfo=UTC), False),
            ({"usage": 30}, datetime(2026, 5, 1, tzinfo=UTC), True),
        ],
    )
    def test_counts_from_the_end_of_the_month(
        self, days: dict[str, int], at: datetime, *, is_due: bool
    ) -> None:
        assert RetentionPolicy(days).is_due(PARTITION, at=at) is is_due  # type: ignore[arg-type]  # words of its kind

    def test_of_a_month_at_the_end_of_time_keeps_it(self) -> None:
        last = replace(PARTITION, period=date(9998, 12, 1))

        assert RetentionPolicy({"usage": 30}).kept_until(last) is not None
        assert RetentionPolicy({"usage": 36_500}).kept_until(last) is None

    def test_knows_the_end_of_a_year(self) -> None:
        december = Partition(
            retention_class="usage", period=date(2026, 12, 1), rows=None, size_bytes=0
        )

        assert december.ends_at == datetime(2027, 1, 1, tzinfo=UTC)


def test_a_torn_spool_keeps_all_but_the_names_in_it(tmp_path: Path) -> None:
    torn, other = tmp_path / "a.torn", tmp_path / "b.spool"
    for path in (torn, other):
        path.write_bytes(
            b'\x00\xff{"email": "Gr\\u00e9ta@example.com"} and GR\xc3\x89TA@EXAMPLE.com'
        )

    changed = blacken_torn_spools(tmp_path, ["gréta@example.com"])

    assert changed == 1
    assert torn.stat().st_size == other.stat().st_size
    assert b"example" not in torn.read_bytes().lower()
    assert torn.read_bytes().startswith(b'\x00\xff{"email": "#')
    assert b"example" in other.read_bytes()


@pytest.mark.parametrize("folder", ["", "archive", "~/archive", "-x"])
def test_a_folder_that_depends_on_where_one_stands_is_refused(folder: str) -> None:
    with pytest.raises(ValidationError, match="archive_dir"):
        AuditSettings(archive_dir=folder)


@pytest.mark.parametrize("folder", [None, "-", "/mnt/archive"])
def test_a_folder_from_the_root_on_or_none_is_taken(folder: str | None) -> None:
    assert AuditSettings(archive_dir=folder).archive_dir == folder
