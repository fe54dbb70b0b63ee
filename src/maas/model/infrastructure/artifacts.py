"""The artifact store: bodies stored in durable, digested parts; parts checked and joined again."""

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
    StoredFolder,
)
from maas.model.domain.blob import Blob, Digest, Part, Upload
from maas.model.infrastructure.buffers import MAX_BUFFERED_BYTES, MemoryBudget, new_buffer
from maas.model.infrastructure.object_store import DurableObjects, MissingObjectError
from maas.model.infrastructure.part_stream import PARTS, ObjectPartStream, folder_of, parent_of
from maas.shared.domain.ids import new_id
from maas.shared.infrastructure.settings import StorageSettings

FOLDER = "artifacts"
MARK = ".corrupt"

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
    """Keeps files as parts; `stream` takes in whatever comes, uploads in pieces as well.

    While a file goes out, one part is sent and the next one read and checked. So two parts are in
    memory.
    """

    def __init__(
        self, objects: DurableObjects, *, part_bytes: int, buffered_bytes: int = MAX_BUFFERED_BYTES
    ) -> None:
        self.stream = ObjectPartStream(
            objects, part_bytes=part_bytes, buffered_bytes=buffered_bytes
        )
        self._objects = objects
        self._outgoing_memory = MemoryBudget(buffered_bytes)

    async def receive(self, body: AsyncIterable[bytes], *, limit_bytes: int) -> Upload:
        upload_id, whole = new_id(), hashlib.sha256()
        stored = self.stream.store(
            f"{folder_of(upload_id)}/",
            body,
            limit_bytes=limit_bytes,
            whole=whole,
            keeps_rest=False,
        )
        parts: list[Part] = []
        try:
            async with aclosing(stored):
                async for each in stored:
                    parts.append(each.part)  # noqa: PERF401  what is there counts if it breaks off
        except BaseException:
            # Whoever hangs up cancels this, and nobody else knows of these parts.
            await finish(self.stream.discard([part.key for part in parts]))
            raise
        size = sum(part.size for part in parts)
        blob = Blob(sha256=Digest(whole.digest()), size=size, parts=tuple(parts))
        return Upload(id=upload_id, blob=blob)

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
        await self.stream.discard(
            [key for part in blob.parts for key in (part.key, _mark_of(part))]
        )

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
        for folder, inside in groupby(sorted(keys), key=parent_of):
            both = [each for key in inside for each in (key, f"{key}{MARK}")]
            await self._objects.delete(both, folder=folder)

    async def list_folders(self, *, after: str, before: str, limit: int) -> list[StoredFolder]:
        found = await self._objects.list_folders(PARTS, after=after, before=before, limit=limit)
        return [_as_parts(folder) for folder in found]


def _as_parts(folder: StoredFolder) -> StoredFolder:
    """Name parts instead of marks; a folder in which no part was finished, by its first one."""
    keys = {key.removesuffix(MARK) for key in folder.keys} or {f"{PARTS}/{folder.name}/0"}
    return replace(folder, keys=tuple(sorted(keys)))


def _folders_of(blob: Blob) -> list[str]:
    """List where its parts are: what was put together of several uploads is in those of each."""
    return list(dict.fromkeys(parent_of(part.key) for part in blob.parts))


def _mark_of(part: Part) -> str:
    return f"{part.key}{MARK}"


def _digest(data: memoryview) -> bytes:
    return hashlib.sha256(data).digest()
