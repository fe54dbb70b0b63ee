"""A backup that is not what was written is named as such, down to the file."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest

from maas.backup.errors import DamagedBackupError
from maas.backup.manifest import (
    NAME,
    KeptPart,
    Manifest,
    check_files,
    digest_all,
    show_nothing,
    write_private,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A backup of two files, as one is written."""
    folder = tmp_path / "backup"
    (folder / "database").mkdir(parents=True)
    (folder / "database" / "toc.dat").write_bytes(b"contents")
    (folder / "audit-head.ndjson").write_bytes(b"{}\n")
    manifest = Manifest(
        backup_id="0",
        product_version="1.0",
        revision="0001",
        postgres="18.6",
        postgres_major=18,
        dumped_by_major=18,
        started_at="2026-11-22T00:00:00Z",
        snapshot_at="2026-11-22T00:00:01Z",
        finished_at="2026-11-22T00:00:02Z",
        has_parts=True,
        has_secrets=False,
        rows={"accounts": 1, "sessions": 2},
        audit_head={"n": 1},
        parts=[KeptPart(key="parts/1/0", size=1, sha256="00")],
        files=digest_all(folder),
    )
    write_private(folder / NAME, manifest.spell())
    return folder


def check(folder: Path) -> None:
    asyncio.run(check_files(folder, Manifest.read(folder), progress=show_nothing))


def test_what_was_written_is_read(folder: Path) -> None:
    manifest = Manifest.read(folder)

    assert manifest.row_count == 3
    assert manifest.parts == [KeptPart(key="parts/1/0", size=1, sha256="00")]
    assert set(manifest.files) == {"audit-head.ndjson", "database/toc.dat"}
    check(folder)


def test_only_its_owner_reads_what_it_says(folder: Path) -> None:
    assert (folder / NAME).stat().st_mode & 0o777 == 0o600


def test_a_changed_byte_is_found(folder: Path) -> None:
    (folder / "database" / "toc.dat").write_bytes(b"contentz")

    with pytest.raises(DamagedBackupError, match=r"toc\.dat is not what was backed up"):
        check(folder)


def test_a_missing_file_is_found(folder: Path) -> None:
    (folder / "audit-head.ndjson").unlink()

    with pytest.raises(DamagedBackupError, match=r"audit-head\.ndjson is missing"):
        check(folder)


def test_a_file_elsewhere_is_not_read(folder: Path) -> None:
    (folder.parent / "elsewhere").write_bytes(b"")
    outside = replace(Manifest.read(folder), files={"../elsewhere": "00"})

    with pytest.raises(DamagedBackupError, match="outside of the backup"):
        asyncio.run(check_files(folder, outside, progress=show_nothing))


def test_what_is_half_written_is_no_backup(folder: Path) -> None:
    half = folder.rename(folder.with_name("backup.partial"))

    with pytest.raises(DamagedBackupError, match="interrupted"):
        Manifest.read(half)


def test_another_folder_is_no_backup(tmp_path: Path) -> None:
    with pytest.raises(DamagedBackupError, match=r"has no manifest\.json"):
        Manifest.read(tmp_path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": 2}, "has format 2, and this release reads 1"),
        ({"rows": None, "nothing_known": 1}, "is damaged"),
        ({"parts": [{"key": "parts/1/0"}]}, "is damaged"),
    ],
)
def test_another_format_is_refused(folder: Path, change: dict[str, object], said: str) -> None:
    fields = json.loads((folder / NAME).read_text()) | change
    (folder / NAME).write_text(json.dumps(fields))

    with pytest.raises(DamagedBackupError, match=said):
        Manifest.read(folder)


def test_torn_json_is_refused(folder: Path) -> None:
    (folder / NAME).write_text('{"format": 1,')

    with pytest.raises(DamagedBackupError, match="cannot be read"):
        Manifest.read(folder)
