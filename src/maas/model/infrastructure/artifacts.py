"""The artifact store: bodies cut into durable, digested parts; parts checked and joined again."""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterable, Sequence
from contextlib import aclosing
from dataclasses import replace
from itertools import groupby
from pathlib import Path

import structlog

from maas.model.application.finishing import finish
from maas.model.application.ports import (
    ArtifactStoreFullError,
    ArtifactStoreUnavailableError,
    CorruptBlobError,
    FileTooLargeError,
    StoredFolder,
)
from maas.model.domain.blob import Blob, Digest, Part, Upload
from maas.model.infrastructure.buffers import MemoryBudget, new_buffer
from maas.model.infrastructure.object_store import DurableObjects, MissingObjectError
from maas.shared.domain.ids import new_id
from maas.shared.infrastructure.settings import StorageSettings

FOLDER = "artifacts"
PARTS = "parts"
MARK = ".corrupt"
MAX_BUFFERED_BYTES = 1024**3
"""What the buffers of a process may take: of files in one request, of resumable uploads, and of
downloads, each.

With parts of 12 MiB that is 42 large files at once each way, more than twice what one caller may
have; five of them are everybody's share.
"""

SENT_BYTES = 256 * 1024
"""How much of a checked part is handed to the socket at once."""

_log = structlog.get_logger(__name__)


def open_objects(settings: StorageSettings, data_dir: Path) -> DurableObjects:
    """Tell the store where artifacts are kept: as set, else in a folder of the data folder."""
    url = settings.url or (data_dir.absolute() / FOLDER).as_uri()
    if not url.startswith("s3:"):
        return DurableObjects(url)
    key, secret = settings.s3_access_key_id, settings.s3_secret_access_key
    options = {
        "endpoint": settings.s3_endpoint,
        "region": settings.s3_region,
        "access_key_id": key and key.get_secret_value(),
        "secret_access_key": secret and secret.get_secret_value(),
    }
    return DurableObjects(url, options={name: text for name, text in options.items() if text})


class PartedArtifactStore:
    """Keeps files as parts of at most `part_bytes`, each an object of its own.

    While a body comes in, one part is digested and stored and the next one fills up; while a file
    goes out, one part is sent and the next one read and checked. So two parts are in memory.
    """

    def __init__(
        self, objects: DurableObjects, *, part_bytes: int, buffered_bytes: int = MAX_BUFFERED_BYTES
    ) -> None:
        self._objects = objects
        self._part_bytes = part_bytes
        self._incoming_memory = MemoryBudget(buffered_bytes)
        self._outgoing_memory = MemoryBudget(buffered_bytes)

    async def receive(self, body: AsyncIterable[bytes], *, limit_bytes: int) -> Upload:
        part_bytes = max(1, min(self._part_bytes, limit_bytes))
        # Memory is taken as bytes come, so that who sends nothing keeps nobody else waiting.
        with self._incoming_memory.growing() as grow:
            incoming = _Incoming(self._objects, part_bytes=part_bytes, limit_bytes=limit_bytes)
            arrived = 0
            try:
                async for chunk in body:
                    arrived += len(chunk)
                    grow(min(arrived, 2 * part_bytes))
                    await incoming.take(chunk)
                return await incoming.finish()
            except BaseException:
                await finish(incoming.abandon())
                raise

    async def has_all(self, blob: Blob) -> bool:
        if not blob.parts:
            return True
        try:
            sizes: dict[str, int] = {}
            for folder in _folders_of(blob):
                sizes |= await self._objects.list_sizes(folder)
        except ArtifactStoreUnavailableError as exc:
            _log.warning("blob_not_examined", sha256=str(blob.sha256), error=repr(exc.__cause__))
            return True
        return all(
            sizes.get(part.key) == part.size and _mark_of(part) not in sizes for part in blob.parts
        )

    async def discard(self, blob: Blob) -> None:
        for folder in _folders_of(blob):
            parts = [part for part in blob.parts if _parent_of(part.key) == folder]
            keys = [key for part in parts for key in (part.key, _mark_of(part))]
            await _delete(self._objects, keys, folder=folder)

    async def read(self, blob: Blob, *, start: int, stop: int) -> AsyncGenerator[bytes, None]:
        wanted = blob.parts_between(start, stop)
        largest = max((part.size for part, _, _ in wanted), default=0)
        with self._outgoing_memory.holding(2 * largest):
            async with aclosing(self._checked(wanted, largest)) as parts:
                async for data, begin, end in parts:
                    for offset in range(begin, end, SENT_BYTES):
                        # A copy, for the socket may hold it longer than the part stays here.
                        yield bytes(data[offset : min(offset + SENT_BYTES, end)])

    async def digest(self, parts: Sequence[Part]) -> Digest:
        whole, threads = hashlib.sha256(), self._objects.threads
        wanted = [(part, 0, part.size) for part in parts]
        largest = max((part.size for part in parts), default=0)
        with self._outgoing_memory.holding(2 * largest):
            async with aclosing(self._checked(wanted, largest)) as checked:
                async for data, _, end in checked:
                    loop = asyncio.get_running_loop()
                    await loop.run_in_executor(threads, whole.update, data[:end])
        return Digest(whole.digest())

    async def _checked(
        self, wanted: list[tuple[Part, int, int]], largest: int
    ) -> AsyncGenerator[tuple[memoryview, int, int], None]:
        """Give the parts one by one, the next one being read meanwhile."""
        room, spare = new_buffer(largest), new_buffer(largest)
        ahead: asyncio.Task[memoryview] | None = None
        try:
            for position, (part, begin, end) in enumerate(wanted):
                data = await (ahead or self._load(part, room))
                ahead, room, spare = None, spare, room
                if position + 1 < len(wanted):
                    ahead = asyncio.create_task(self._load(wanted[position + 1][0], room))
                yield data, begin, end
        finally:
            if ahead is not None:
                ahead.cancel()

    async def _load(self, part: Part, room: memoryview) -> memoryview:
        """Read a part into memory and check it.

        Raises:
            CorruptBlobError: it is missing or not what was stored.
        """
        data = room[: part.size]
        try:
            await self._objects.read(part.key, data)
        except MissingObjectError as exc:
            _log.error("blob_part_missing", key=part.key)
            raise CorruptBlobError from exc
        digest = await asyncio.get_running_loop().run_in_executor(
            self._objects.threads, _digest, data
        )
        if digest != part.sha256.value:
            _log.error("blob_part_corrupt", key=part.key)
            await self._mark(part)
            raise CorruptBlobError
        return data

    async def _mark(self, part: Part) -> None:
        """Note beside a damaged part what it is, for every process, until somebody replaces it."""
        try:
            await self._objects.put(_mark_of(part), memoryview(b""), is_first=False)
        except (ArtifactStoreFullError, ArtifactStoreUnavailableError) as exc:
            _log.warning("corrupt_part_not_marked", key=part.key, error=repr(exc.__cause__))


class CollectableParts:
    """The store as the collection sees it; a mark beside a part goes where the part goes."""

    def __init__(self, objects: DurableObjects) -> None:
        self._objects = objects

    async def delete(self, keys: Sequence[str]) -> None:
        for folder, inside in groupby(sorted(keys), key=_parent_of):
            both = [each for key in inside for each in (key, f"{key}{MARK}")]
            await self._objects.delete(both, folder=folder)

    async def list_folders(self, *, after: str, before: str, limit: int) -> list[StoredFolder]:
        found = await self._objects.list_folders(PARTS, after=after, before=before, limit=limit)
        return [_as_parts(folder) for folder in found]


class _Incoming:
    """An upload under way."""

    def __init__(self, objects: DurableObjects, *, part_bytes: int, limit_bytes: int) -> None:
        self._objects = objects
        self._part_bytes = part_bytes
        self._limit_bytes = limit_bytes
        self._id = new_id()
        self._whole = hashlib.sha256()
        self._size = 0
        self._parts: list[Part] = []
        self._filling, self._spare = new_buffer(part_bytes), new_buffer(part_bytes)
        self._filled = 0
        self._storing: asyncio.Task[Part] | None = None

    async def take(self, chunk: bytes) -> None:
        self._size += len(chunk)
        if self._size > self._limit_bytes:
            raise FileTooLargeError(self._limit_bytes)
        rest = memoryview(chunk)
        while rest:
            taken = min(len(rest), self._part_bytes - self._filled)
            self._filling[self._filled : self._filled + taken] = rest[:taken]
            self._filled += taken
            rest = rest[taken:]
            if self._filled == self._part_bytes:
                await self._hand_over()

    async def finish(self) -> Upload:
        if self._filled:
            await self._hand_over()
        await self._await_stored()
        digest = Digest(self._whole.digest())
        return Upload(
            id=self._id, blob=Blob(sha256=digest, size=self._size, parts=tuple(self._parts))
        )

    async def abandon(self) -> None:
        """Remove what was written; a part on its way is waited for, else it would come after."""
        index = len(self._parts)
        if self._storing is not None:
            await asyncio.wait([self._storing])
            index += 1
            if not self._storing.cancelled():
                # Looked at, so that asyncio does not call it forgotten.
                self._storing.exception()
        folder = f"{PARTS}/{self._id}"
        await _delete(self._objects, [f"{folder}/{n}" for n in range(index)], folder=folder)

    async def _hand_over(self) -> None:
        await self._await_stored()
        data = self._filling[: self._filled]
        # The part before is stored by now, so its memory is free for the next one.
        self._filling, self._spare, self._filled = self._spare, self._filling, 0
        self._storing = asyncio.create_task(self._store(len(self._parts), data))

    async def _await_stored(self) -> None:
        if self._storing is not None:
            # Shielded: a write that is cancelled goes on unseen in the store's own thread.
            self._parts.append(await asyncio.shield(self._storing))
            self._storing = None

    async def _store(self, index: int, data: memoryview) -> Part:
        key = f"{PARTS}/{self._id}/{index}"
        loop, threads = asyncio.get_running_loop(), self._objects.threads
        digesting = loop.run_in_executor(threads, self._digest_both, data, index)
        try:
            await self._objects.put(key, data, is_first=index == 0)
        finally:
            digest = await digesting
        return Part(key=key, size=len(data), sha256=Digest(digest))

    def _digest_both(self, data: memoryview, index: int) -> bytes:
        # The first part's digest is that of the file so far: many files have no other part.
        self._whole.update(data)
        return self._whole.copy().digest() if index == 0 else _digest(data)


def _as_parts(folder: StoredFolder) -> StoredFolder:
    """Name parts instead of marks; a folder in which no part was finished, by its first one."""
    keys = {key.removesuffix(MARK) for key in folder.keys} or {f"{PARTS}/{folder.name}/0"}
    return replace(folder, keys=tuple(sorted(keys)))


def _folders_of(blob: Blob) -> list[str]:
    """List where its parts are: what was put together of several uploads is in those of each."""
    return list(dict.fromkeys(_parent_of(part.key) for part in blob.parts))


def _parent_of(key: str) -> str:
    return key.rpartition("/")[0]


def _mark_of(part: Part) -> str:
    return f"{part.key}{MARK}"


def _digest(data: memoryview) -> bytes:
    return hashlib.sha256(data).digest()


async def _delete(objects: DurableObjects, keys: list[str], *, folder: str) -> None:
    if not keys:
        return
    try:
        await objects.delete(keys, folder=folder)
    except ArtifactStoreUnavailableError as exc:
        _log.warning("upload_parts_left", folder=folder, error=repr(exc.__cause__))
