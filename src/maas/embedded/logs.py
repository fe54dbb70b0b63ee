"""One log file for each server and child, kept to a bounded size."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_MAX_LOG_BYTES = 5 * 1024 * 1024
_MAX_READ_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class LogFile:
    path: Path

    @contextmanager
    def appending(self) -> Iterator[int]:
        """Yield a descriptor that appends, readable by the owner only."""
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    @property
    def size_bytes(self) -> int:
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0

    def read_since(self, offset: int) -> str:
        """Return what was written after `offset`, at most its last 64 KiB."""
        try:
            with self.path.open("rb") as file:
                file.seek(max(offset, self.size_bytes - _MAX_READ_BYTES))
                return file.read().decode(errors="replace")
        except FileNotFoundError:
            return ""

    def rotate(self) -> None:
        """Set a log past 5 MiB aside as `.1`, in place of the one before.

        It is copied and emptied, not renamed, because a running server keeps writing to the same
        file.
        """
        if self.size_bytes < _MAX_LOG_BYTES:
            return
        shutil.copyfile(self.path, self.path.with_suffix(".log.1"))
        os.truncate(self.path, 0)
