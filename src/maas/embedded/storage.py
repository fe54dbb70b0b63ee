"""Errors of the file system, told in words a person can act on."""

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from maas.embedded.errors import DataFolderError, EmbeddedError, ServerStartError, StorageFullError
from maas.embedded.logs import LogFile

# Below this a server that would not start is taken to have had no room: when the disk is full, its
# own complaint often does not reach the log, which lies on the same disk.
_SCARCE_BYTES = 4 * 1024 * 1024
_COLD_START_MEGABYTES = 120
_QUOTED_LINES = 8

_FULL_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT})
_CLOSED_ERRORS = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_FULL_PHRASES = ("No space left on device", "Disk quota exceeded")
_CLOSED_PHRASES = ("Read-only file system", "Permission denied")


@contextmanager
def explained(folder: Path) -> Iterator[None]:
    """Turn a full disk or a closed folder into an error that says what to do.

    Raises:
        StorageFullError: no room, or the quota is used up.
        DataFolderError: the folder, or something in it, may not be written or read.
    """
    try:
        yield
    except OSError as exc:
        if exc.errno in _FULL_ERRORS:
            raise full(folder) from exc
        if exc.errno in _CLOSED_ERRORS:
            raise closed(folder, detail=str(exc)) from exc
        if isinstance(exc, FileExistsError | NotADirectoryError):
            raise closed(folder, detail=f"{exc.filename} is not a folder") from exc
        raise closed(folder, detail=str(exc)) from exc


def full(folder: Path) -> StorageFullError:
    return StorageFullError(
        f"The disk under {folder} is full.",
        f"Free some space (a first start needs about {_COLD_START_MEGABYTES} MB) and start again, "
        f"or choose a folder on another disk: maas up --data-dir DIR (or MAAS_DATA_DIR).",
    )


def closed(folder: Path, *, detail: str) -> DataFolderError:
    return DataFolderError(
        f"The data folder {folder} cannot be used: {detail}.",
        "Make it readable and writable for the account that runs `maas up`, "
        "or choose another: maas up --data-dir DIR (or MAAS_DATA_DIR).",
    )


def start_failure(what: str, *, folder: Path, log: LogFile, output: str) -> EmbeddedError:
    """Explain why a server did not start, from what it wrote since it was spawned."""
    if any(phrase in output for phrase in _FULL_PHRASES) or _is_scarce(folder):
        return full(folder)
    lines = output.strip().splitlines()
    for line in lines:
        if any(phrase in line for phrase in _CLOSED_PHRASES):
            return closed(folder, detail=line.strip())
    last_lines = "\n".join(f"  {line}" for line in lines[-_QUOTED_LINES:])
    return ServerStartError(
        f"{what} did not start." + (f" It said:\n{last_lines}" if last_lines else ""),
        f"The whole log is {log.path}.",
    )


def _is_scarce(folder: Path) -> bool:
    return shutil.disk_usage(folder).free < _SCARCE_BYTES
