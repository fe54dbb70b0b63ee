"""The last resort: events in a file of this machine, synced before they are answered.

A file holds records of a length, a CRC-32 and that many bytes. The process that writes one keeps it
locked for as long as it lives; whoever gets the lock later drains what it left.
"""

import asyncio
import errno
import fcntl
import json
import os
import re
import secrets
import socket
import struct
import zlib
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias
from uuid import UUID

import structlog

from maas.audit.application.events import QueuedEvent
from maas.audit.domain.event import PersonalFields
from maas.shared.domain.ids import EventId, TenantId

SUFFIX: Final = ".spool"
TORN_SUFFIX: Final = ".torn"
FORMAT: Final = 1
MAX_RECORD_BYTES: Final = 16 * 1024 * 1024
"""More than any event has: a length beyond it is not one."""

SLICE: Final = 500
"""Events handed over in one transaction."""

_HEAD: Final = struct.Struct(">II")

log = structlog.get_logger(__name__)

Deliver: TypeAlias = Callable[[Sequence[QueuedEvent]], Awaitable[None]]
"""Makes events durable elsewhere, all or none; what it raises leaves them in the file."""


class SpoolUnavailableError(Exception):
    """The file does not take it: it is as large as it may be, or its disk is full or broken."""


def encode_record(event: QueuedEvent) -> bytes:
    body = json.dumps(
        {
            "v": FORMAT,
            "id": str(event.id),
            "tenant_id": str(event.tenant_id),
            "payload": event.payload.decode(),
            "personal": event.personal.to_mapping(),
            "duration_ms": event.duration_ms,
        }
    ).encode()
    return _HEAD.pack(len(body), zlib.crc32(body)) + body


def _decode(body: bytes) -> QueuedEvent:
    fields = json.loads(body)
    if fields["v"] != FORMAT:
        message = "the record has a version this code does not read"
        raise ValueError(message)
    personal = fields["personal"]
    return QueuedEvent(
        id=EventId(UUID(fields["id"])),
        tenant_id=TenantId(UUID(fields["tenant_id"])),
        payload=fields["payload"].encode(),
        personal=PersonalFields(**{**personal, "salt": bytes.fromhex(personal["salt"])}),
        duration_ms=fields["duration_ms"],
    )


@dataclass(frozen=True, slots=True)
class Slice:
    """Some of a file's events; `is_torn` if what follows `end` is no whole record."""

    events: list[QueuedEvent]
    end: int
    is_torn: bool


def read_slice(descriptor: int, begin: int, until: int, limit: int = SLICE) -> Slice:
    """Read up to `limit` events from an offset on; stops at the first record that is not whole."""
    events: list[QueuedEvent] = []
    while begin < until and len(events) < limit:
        head = os.pread(descriptor, _HEAD.size, begin)
        end = begin + _HEAD.size
        if end > until or len(head) < _HEAD.size:
            return Slice(events, begin, is_torn=True)
        length, checksum = _HEAD.unpack(head)
        if length > MAX_RECORD_BYTES or end + length > until:
            return Slice(events, begin, is_torn=True)
        body = os.pread(descriptor, length, end)
        if zlib.crc32(body) != checksum:
            return Slice(events, begin, is_torn=True)
        try:
            events.append(_decode(body))
        except (ValueError, TypeError, KeyError, AttributeError):
            return Slice(events, begin, is_torn=True)
        begin = end + length
    return Slice(events, begin, is_torn=False)


@dataclass(slots=True)
class _OpenFile:
    path: Path
    descriptor: int
    length: int = 0
    drained: int = 0


class Spool:
    """The file of one process and one event loop, made when the first event needs it.

    Events that arrive while one write is under way share the next, and its one sync.
    """

    def __init__(self, folder: Path, *, max_bytes: int) -> None:
        """`max_bytes` bounds all the files of the folder together."""
        self._folder = folder
        self._max_bytes = max_bytes
        self._file: _OpenFile | None = None
        self._waiting: list[tuple[bytes, asyncio.Future[None]]] = []
        self._writer: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()

    @property
    def has_content(self) -> bool:
        return self._file is not None

    async def append(self, event: QueuedEvent) -> None:
        """Return once the event is synced to disk.

        Raises:
            SpoolUnavailableError: it is not, and will not be.
        """
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((encode_record(event), future))
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write_waiting())
        await future

    async def drain(self, deliver: Deliver) -> int:
        """Hand over what is in the file, and remove it once nothing is left in it.

        Events may go on arriving meanwhile. Raises what `deliver` does.
        """
        drained = 0
        while (file := self._file) is not None:
            reader = os.open(file.path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                drained += await self._drain_until(file, file.length, reader, deliver)
            finally:
                os.close(reader)
            async with self._turn:
                if self._file is file and file.drained == file.length:
                    await asyncio.to_thread(_remove, file.path)
                    self._let_go()
        return drained

    async def _drain_until(self, file: _OpenFile, until: int, reader: int, deliver: Deliver) -> int:
        drained = 0
        while file.drained < until:
            part = await asyncio.to_thread(read_slice, reader, file.drained, until)
            if part.events:
                await deliver(part.events)
            drained += len(part.events)
            file.drained = part.end
            if part.is_torn:
                # Its own process wrote and synced it, so the disk has lost what it took.
                async with self._turn:
                    if self._file is file:
                        await asyncio.to_thread(_set_aside, file.path, part.end, file.length)
                        self._let_go()
                break
        return drained

    async def close(self) -> None:
        """Finish what is under way and leave the file to whoever drains it."""
        if self._writer is not None:
            await self._writer
        self._let_go()

    async def _write_waiting(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, []
            taken = 0
            try:
                async with self._turn:
                    taken = await asyncio.to_thread(self._write, [record for record, _ in batch])
            except OSError as exc:
                log.warning("audit_spool_failed", error=errno.errorcode.get(exc.errno or 0))
            finally:
                for number, (_, future) in enumerate(batch):
                    if future.done():
                        continue
                    if number < taken:
                        future.set_result(None)
                    else:
                        future.set_exception(SpoolUnavailableError())

    def _write(self, records: Sequence[bytes]) -> int:
        """Write and sync as many as there is room for; return how many."""
        room = self._max_bytes - measure_spools(self._folder).bytes
        accepted: list[bytes] = []
        for record in records:
            if len(record) > room:
                break
            room -= len(record)
            accepted.append(record)
        if not accepted:
            log.warning("audit_spool_full", max_bytes=self._max_bytes)
            return 0
        if self._file is None:
            self._file = _create(self._folder)
        data = b"".join(accepted)
        try:
            _write_all(self._file.descriptor, data)
            os.fsync(self._file.descriptor)
        except OSError:
            self._give_up(self._file)
            raise
        self._file.length += len(data)
        return len(accepted)

    def _give_up(self, file: _OpenFile) -> None:
        """Cut off what was not acknowledged, and go on in another file.

        After a failed sync nobody knows what the disk has of this one.
        """
        try:
            os.ftruncate(file.descriptor, file.length)
            if file.length == 0:
                _remove(file.path)
        except OSError:
            log.warning("audit_spool_left_torn", file=file.path.name)
        self._let_go()

    def _let_go(self) -> None:
        if self._file is not None:
            _unlock_and_close(self._file.descriptor)
            self._file = None


async def drain_abandoned(folder: Path, deliver: Deliver) -> int:
    """Hand over what processes that are gone left in the folder; raises what `deliver` does."""
    drained = 0
    for path in await asyncio.to_thread(_list_spools, folder):
        with _claimed(path) as descriptor:
            if descriptor is not None:
                drained += await _drain_file(path, descriptor, deliver)
    return drained


async def _drain_file(path: Path, descriptor: int, deliver: Deliver) -> int:
    size, begin, drained = os.fstat(descriptor).st_size, 0, 0
    while True:
        part = await asyncio.to_thread(read_slice, descriptor, begin, size)
        if part.events:
            await deliver(part.events)
        drained += len(part.events)
        begin = part.end
        if part.is_torn:
            await asyncio.to_thread(_set_aside, path, begin, size)
            return drained
        if begin == size:
            await asyncio.to_thread(_remove, path)
            return drained


@dataclass(frozen=True, slots=True)
class SpoolSize:
    records: int
    bytes: int
    torn_files: int


def measure_spools(folder: Path, *, counting: bool = False) -> SpoolSize:
    """Tell how much lies in the folder; records are counted only on request, as it reads files."""
    records = size = torn = 0
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.suffix == TORN_SUFFIX:
            torn += 1
        elif path.suffix == SUFFIX:
            try:
                size += path.stat().st_size
                records += _count_records(path) if counting else 0
            except FileNotFoundError:
                continue
    return SpoolSize(records, size, torn)


def _count_records(path: Path) -> int:
    count = 0
    with path.open("rb") as file:
        while len(head := file.read(_HEAD.size)) == _HEAD.size:
            file.seek(_HEAD.unpack(head)[0], os.SEEK_CUR)
            count += 1
    return count


def _list_spools(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"*{SUFFIX}")) if folder.is_dir() else []


def _create(folder: Path) -> _OpenFile:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    host = re.sub(r"[^A-Za-z0-9.]+", "_", socket.gethostname())
    path = folder / f"{host}-{os.getpid()}-{secrets.token_hex(8)}{SUFFIX}"
    flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_APPEND | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o600)
    try:
        # Between these two lines another process may take it for an abandoned one, find it empty
        # and remove it; then this fails or leads nowhere, and the caller refuses.
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(descriptor).st_nlink == 0:
            raise FileNotFoundError(errno.ENOENT, "the new spool was taken away")
        _sync_folder(folder)
    except OSError:
        os.close(descriptor)
        raise
    return _OpenFile(path, descriptor)


@contextmanager
def _claimed(path: Path) -> Iterator[int | None]:
    """Open and lock a file whose owner is gone; `None` if it lives, or another was faster."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        yield None
        return
    except OSError as exc:
        # Another user's, say: it must not keep the others' events from being handed over.
        reason = errno.errorcode.get(exc.errno or 0)
        log.error("audit_spool_unreadable", file=path.name, error=reason)  # noqa: TRY400  the reason is all there is to say
        yield None
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
            return
        yield descriptor if os.fstat(descriptor).st_nlink else None
    finally:
        _unlock_and_close(descriptor)


def _unlock_and_close(descriptor: int) -> None:
    """Unlock by name: a forked child would otherwise go on holding the lock."""
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    os.close(descriptor)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)
    _sync_folder(path.parent)


def _set_aside(path: Path, end: int, size: int) -> None:
    log.error("audit_spool_torn", file=path.name, readable_bytes=end, bytes=size)
    path.rename(path.with_suffix(TORN_SUFFIX))
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
