"""The file of exported heads: one signed checkpoint a line, only ever appended to."""

import fcntl
import json
import os
from pathlib import Path
from typing import Final

from maas.audit.domain.checkpoint import SignedCheckpoint, read_signed_checkpoint
from maas.audit.domain.event import canonical

LOG_ONLY: Final = "-"
_TAIL_BYTES: Final = 4096


class UnreadableHeadsError(ValueError):
    """The file of heads cannot be read, or no line of it is a signed checkpoint."""


def spell_head(head: SignedCheckpoint) -> bytes:
    return canonical(head.to_mapping()) + b"\n"


class HeadLog:
    """Notes nothing itself: what is new is logged by whoever asks, and nowhere else."""

    def __init__(self) -> None:
        self._last: SignedCheckpoint | None = None

    def append(self, head: SignedCheckpoint) -> bool:
        is_new, self._last = head != self._last, head
        return is_new


class HeadFile:
    def __init__(self, path: Path) -> None:
        self._path = path

    def append(self, head: SignedCheckpoint) -> bool:
        return append_head(self._path, head)


def open_head_file(setting: str | None, *, data_dir: Path) -> HeadLog | HeadFile:
    """Find where heads go: as set, else into the data folder."""
    if setting == LOG_ONLY:
        return HeadLog()
    return HeadFile(Path(setting) if setting else data_dir / "audit" / "heads.ndjson")


def append_head(path: Path, head: SignedCheckpoint) -> bool:
    """Append a head and sync it; tell whether it was not the last line already.

    Raises:
        OSError: the disk is full, or the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        # Two workers at once: the second sees the line of the first.
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        size = os.fstat(descriptor).st_size
        tail = os.pread(descriptor, _TAIL_BYTES, max(0, size - _TAIL_BYTES))
        line = spell_head(head)
        if tail.endswith(line):
            return False
        # A line that was torn by a crash is left as it is, on a line of its own.
        _write(descriptor, line if not tail or tail.endswith(b"\n") else b"\n" + line)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return True


def _write(descriptor: int, line: bytes) -> None:
    while line:
        line = line[os.write(descriptor, line) :]


def read_heads(path: Path) -> tuple[list[tuple[str, SignedCheckpoint]], int]:
    """Read the heads with their places, and count the lines that are none.

    Raises:
        UnreadableHeadsError: it cannot be read, or holds no head at all.
    """
    heads, unreadable = [], 0
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                try:
                    head = read_signed_checkpoint(json.loads(line))
                except (ValueError, TypeError, AttributeError, RecursionError):
                    unreadable += bool(line.strip())
                else:
                    heads.append((f"{path.name} line {number}", head))
    except OSError as exc:
        raise UnreadableHeadsError(f"{path} cannot be read: {exc.strerror}") from exc
    if not heads:
        raise UnreadableHeadsError(f"{path} holds no signed checkpoint")
    return heads, unreadable
