"""Files of the registry, put together on this machine's disk for what loads them.

A file is named by its digest, so that nothing from outside becomes a path, and appears under its
name only once it is whole and its digest was checked.
"""

import asyncio
import errno
import fcntl
import hashlib
import os
import shutil
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from io import BufferedWriter
from pathlib import Path
from typing import Final

import structlog

from maas.inference.application.runtime_ports import BrokenWeightsError, RuntimeStorageFullError
from maas.model.public import VersionWeights, WeightFile
from maas.shared.domain.ids import new_id

WRITTEN_AT_ONCE: Final = 8 * 1024**2
SPARE_BYTES: Final = 256 * 1024**2
"""So much of the disk is left to others."""

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})

_log = structlog.get_logger(__name__)


class FolderTakenError(Exception):
    """Another runtime host uses the folder."""


class FolderWeightCache:
    """A folder of one runtime host; whatever was not used longest goes when there is no room."""

    def __init__(self, folder: Path, *, max_bytes: int, weights: VersionWeights) -> None:
        self._files = folder / "files"
        self._incoming = folder / "incoming"
        self._lock_file = folder / "lock"
        self._max_bytes = max_bytes
        self._weights = weights
        self._lock: int | None = None
        self._taken: Counter[str] = Counter()
        self._on_their_way: dict[str, asyncio.Task[Path]] = {}
        # What files that are being written will take beside those that are there.
        self._announced_bytes = 0
        self._making_room = asyncio.Lock()

    def open(self) -> None:
        """Make the folder and keep others out; what an earlier host left half-written goes.

        Raises:
            FolderTakenError: another host has it.
        """
        for folder in (self._files, self._incoming):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock = os.open(self._lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            self.close()
            raise FolderTakenError from exc
        for left in self._incoming.iterdir():
            left.unlink()

    def close(self) -> None:
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)

    async def take(self, file: WeightFile) -> Path:
        self._taken[file.sha256] += 1
        try:
            return await self._get(file)
        except BaseException:
            self.give_back(file)
            raise

    def give_back(self, file: WeightFile) -> None:
        self._taken[file.sha256] -= 1
        if not self._taken[file.sha256]:
            del self._taken[file.sha256]

    async def _get(self, file: WeightFile) -> Path:
        path = self._files / f"{file.sha256}.gguf"
        with suppress(FileNotFoundError):
            if path.stat().st_size == file.size:
                # The time of its last use; reading does not change it.
                os.utime(path)
                return path
        task = self._on_their_way.get(file.sha256)
        if task is None:
            task = asyncio.create_task(self._put_together(file, path))
            self._on_their_way[file.sha256] = task
            task.add_done_callback(lambda _: self._on_their_way.pop(file.sha256))
        return await asyncio.shield(task)

    async def _put_together(self, file: WeightFile, path: Path) -> Path:
        incoming = self._incoming / new_id().hex
        async with self._making_room:
            await asyncio.to_thread(self._make_room, file.size)
            self._announced_bytes += file.size
        try:
            digest = await self._write(incoming, file)
            if digest != file.sha256:
                message = "The registry gave other bytes than were uploaded; they are not loaded."
                raise BrokenWeightsError(message)
            await asyncio.to_thread(_appear, incoming, path)
        except OSError as exc:
            if exc.errno in _FULL:
                raise _no_room(file.size) from exc
            raise
        finally:
            self._announced_bytes -= file.size
            with suppress(OSError):
                incoming.unlink(missing_ok=True)
        _log.info("weights_put_together", sha256=file.sha256, size=file.size)
        return path

    async def _write(self, path: Path, file: WeightFile) -> str:
        digest = hashlib.sha256()

        def keep(out: BufferedWriter, pieces: list[bytes]) -> None:
            for piece in pieces:
                digest.update(piece)
                out.write(piece)

        with path.open("xb") as out:
            async with aclosing(self._weights.read(file)) as chunks:
                async for pieces in _gather(chunks):
                    await asyncio.to_thread(keep, out, pieces)
            await asyncio.to_thread(_sync, out)
        return digest.hexdigest()

    def _make_room(self, needed: int) -> None:
        """Free what the file needs, of the folder's share and of the disk.

        Raises:
            RuntimeStorageFullError: what is left is in use.
        """
        kept = sorted(
            ((entry.stat(), Path(entry)) for entry in os.scandir(self._files)),
            key=lambda each: each[0].st_mtime,
        )
        held = sum(status.st_size for status, _ in kept)
        for status, path in kept:
            if self._fits(held, needed):
                return
            if path.stem not in self._taken:
                path.unlink()
                held -= status.st_size
                _log.info("weights_dropped", sha256=path.stem, size=status.st_size)
        if not self._fits(held, needed):
            raise _no_room(needed)

    def _fits(self, held: int, needed: int) -> bool:
        coming = self._announced_bytes + needed
        free = shutil.disk_usage(self._files).free
        return held + coming <= self._max_bytes and coming + SPARE_BYTES <= free


def _no_room(needed: int) -> RuntimeStorageFullError:
    return RuntimeStorageFullError(
        f"The runtime's folder has no room for {needed} more bytes: give it more "
        "(MAAS_RUNTIME__CACHE_BYTES), or its disk."
    )


async def _gather(chunks: AsyncGenerator[bytes, None]) -> AsyncGenerator[list[bytes], None]:
    """Gather small pieces, for each hop to a thread costs as much as writing one."""
    pieces: list[bytes] = []
    size = 0
    async for chunk in chunks:
        pieces.append(chunk)
        size += len(chunk)
        if size >= WRITTEN_AT_ONCE:
            yield pieces
            pieces, size = [], 0
    if pieces:
        yield pieces


def _sync(out: BufferedWriter) -> None:
    out.flush()
    os.fsync(out.fileno())


def _appear(incoming: Path, path: Path) -> None:
    incoming.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
