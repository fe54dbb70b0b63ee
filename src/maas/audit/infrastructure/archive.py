"""Archives of what was dropped: compressed lines of JSON, one file for each class and month.

A file grows block by block, each a gzip member of its own, and is named once it is complete. How
far it has come stands beside it, so that a run that was killed costs one block; it is sealed, for
a tombstone is signed over what stands there. Personal fields are not in it: what an erasure would
have to reach there, it could not.
"""

import base64
import errno
import gzip
import hmac
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Final, TypeAlias

from maas.audit.application.retention import ArchiveError, Progress, Row
from maas.audit.domain.chain import leaf_of
from maas.audit.domain.event import spell_instant
from maas.audit.domain.retention_policy import Partition
from maas.audit.domain.tombstone import ArchiveFile, Tombstone
from maas.audit.domain.tombstone_rows import RowDigest

NO_ARCHIVE: Final = "-"
_VERSION: Final = 2
_SEALED: Final = b"maas.audit.retention.progress\0"
_LEVEL: Final = 3
_CHUNK: Final = 1024 * 1024


Seal: TypeAlias = Callable[[bytes], bytes]
"""Spells what nobody else can for these bytes, and the same each time."""


class ArchiveFolder:
    """Without `is_kept` only the progress is noted, and no event is written."""

    def __init__(self, folder: Path, *, seal: Seal, is_kept: bool = True) -> None:
        self._folder = folder
        self._seal = seal
        self._is_kept = is_kept

    def load(self, partition: Partition) -> Progress:
        """Read how far a partition has come; from the start where that cannot be told."""
        try:
            fields = json.loads(self._state(partition).read_bytes())
            seal = bytes.fromhex(fields.pop("seal"))
            if not hmac.compare_digest(seal, self._seal_of(partition, fields)):
                return Progress()
            progress = _read(fields)
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return Progress()
        return progress if self._has(partition, progress) else Progress()

    def append(self, partition: Partition, progress: Progress, rows: Sequence[Row]) -> Progress:
        if self._is_kept:
            lines = b"".join(_line(row) for row in rows)
            member = gzip.compress(lines, _LEVEL, mtime=0)
            with _writing(self._folder):
                self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                _write_at(self._part(partition), progress.size, member)
            progress = replace(progress, size=progress.size + len(member))
        self.note(partition, progress)
        return progress

    def note(self, partition: Partition, progress: Progress) -> None:
        target = self._state(partition)
        draft = target.with_suffix(".tmp")
        with _writing(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            fields = _spell(progress)
            sealed = {**fields, "seal": self._seal_of(partition, fields).hex()}
            _write_at(draft, 0, json.dumps(sealed).encode())
            draft.replace(target)

    def finish(self, partition: Partition, progress: Progress, digest: bytes) -> ArchiveFile | None:
        if not self._is_kept:
            return None
        # Named by its rows: another file of this name can only hold the same ones.
        target = self._folder / f"{_name(partition)}-{digest.hex()[:8]}.ndjson.gz"
        part = self._part(partition)
        with _writing(self._folder):
            if part.exists():
                # What a killed run wrote after its last note is not of it.
                _write_at(part, progress.size, b"")
                part.replace(target)
                _sync_folder(self._folder)
            size, hashed = measure(target)
        return ArchiveFile(name=target.name, sha256=hashed, size=size)

    def discard(self, partition: Partition) -> None:
        for path in (self._state(partition), self._part(partition)):
            with suppress(OSError):
                path.unlink(missing_ok=True)

    def _seal_of(self, partition: Partition, fields: Mapping[str, object]) -> bytes:
        named = {**fields, "of": _name(partition)}
        return self._seal(_SEALED + json.dumps(named, sort_keys=True).encode())

    def _has(self, partition: Partition, progress: Progress) -> bool:
        """Tell whether the bytes that were noted are there, under the one name or the other."""
        if not self._is_kept:
            return True
        part = self._part(partition)
        if part.exists():
            return part.stat().st_size >= progress.size
        pattern = f"{_name(partition)}-*.ndjson.gz"
        return any(path.stat().st_size == progress.size for path in self._folder.glob(pattern))

    def _part(self, partition: Partition) -> Path:
        return self._folder / f".{_name(partition)}.part"

    def _state(self, partition: Partition) -> Path:
        return self._folder / f".{_name(partition)}.json"


def open_archive(setting: str | None, *, data_dir: Path, seal: Seal) -> ArchiveFolder:
    """Find where archives go: as set, else into the data folder; `-` keeps none."""
    folder = archive_folder(setting, data_dir=data_dir)
    return ArchiveFolder(folder, seal=seal, is_kept=setting != NO_ARCHIVE)


def archive_folder(setting: str | None, *, data_dir: Path) -> Path:
    if setting and setting != NO_ARCHIVE:
        return Path(setting)
    return data_dir / "audit" / "archive"


def measure(path: Path) -> tuple[int, bytes]:
    """Read a file's size and SHA-256."""
    size, digest = 0, sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            size += len(chunk)
            digest.update(chunk)
    return size, digest.digest()


def read_events(path: Path) -> Iterator[tuple[int, bytes]]:
    """Read an archive's events as row numbers and payloads.

    Raises:
        ValueError: a line is none of an archive, or the file is torn.
    """
    try:
        with gzip.open(path, "rb") as file:
            for line in file:
                fields = json.loads(line)
                yield int(fields["seq"]), fields["payload"].encode()
    except (OSError, EOFError, KeyError, TypeError, AttributeError) as exc:
        message = f"{path.name} cannot be read to its end"
        raise ValueError(message) from exc


def find_archive_fault(folder: Path, tombstone: Tombstone) -> str | None:
    """Say why an archive is not what its tombstone says; nothing where it is, or none was kept."""
    if tombstone.archive is None:
        return None
    path = folder / tombstone.archive.name
    if path.name != tombstone.archive.name or path.parent != folder:
        return "its name is none of a file in the folder of archives"
    digest = RowDigest()
    try:
        if measure(path) != (tombstone.archive.size, tombstone.archive.sha256):
            return "its size or its SHA-256 is not what was signed"
        for seq, payload in read_events(path):
            digest.take(seq, leaf_of(payload))
    except OSError as exc:
        return f"it cannot be read: {exc.strerror or type(exc).__name__}"
    except ValueError as exc:
        return str(exc)
    return None if digest.digest() == tombstone.digest else "its events are not those of the chain"


def _name(partition: Partition) -> str:
    return f"audit-{partition.retention_class}-{partition.period:%Y-%m}"


def _line(row: Row) -> bytes:
    fields = {
        "seq": row.seq,
        "recorded_at": spell_instant(row.recorded_at),
        "duration_ms": row.duration_ms,
        "payload": row.payload.decode(),
    }
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def _write_at(path: Path, size: int, data: bytes) -> None:
    """Let a file be its first bytes and these, on the disk: what a killed run left after goes.

    It leads nowhere else: no link is followed, and from the start on it is a file of its own.
    """
    flags = os.O_RDWR | os.O_NOFOLLOW
    if size == 0:
        path.unlink(missing_ok=True)
        flags |= os.O_CREAT | os.O_EXCL
    descriptor = os.open(path, flags, 0o600)
    try:
        os.ftruncate(descriptor, size)
        os.lseek(descriptor, size, os.SEEK_SET)
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        if exc.errno == errno.ENOSPC:
            message = f"No room is left in {folder}: make some; the next run goes on."
        else:
            message = f"{folder}: {exc.strerror or type(exc).__name__}."
        raise ArchiveError(message) from exc


def _spell(progress: Progress) -> dict[str, object]:
    return {
        "v": _VERSION,
        "after": progress.after,
        "rows": progress.rows,
        "first": progress.first,
        "blocks": [block.hex() for block in progress.blocks],
        "bits": base64.b64encode(progress.bits).decode(),
        "size": progress.size,
        "forgotten": progress.forgotten,
    }


def _read(fields: Mapping[str, Any]) -> Progress:
    if fields["v"] != _VERSION:
        raise ValueError(fields["v"])
    return Progress(
        after=int(fields["after"]),
        rows=int(fields["rows"]),
        first=int(fields["first"]),
        blocks=tuple(bytes.fromhex(block) for block in fields["blocks"]),
        bits=base64.b64decode(fields["bits"]),
        size=int(fields["size"]),
        forgotten=int(fields["forgotten"]),
    )
