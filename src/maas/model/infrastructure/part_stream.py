"""Bytes as they come, in one request or in pieces, cut into parts that are durable one by one."""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable
from itertools import groupby
from typing import Final
from uuid import UUID

import structlog

from maas.model.application.finishing import finish
from maas.model.application.ports import (
    ArtifactStoreUnavailableError,
    BodyCutOffError,
    FileTooLargeError,
)
from maas.model.application.upload_ports import RunningDigest, StoredPart
from maas.model.domain.blob import Digest, Part
from maas.model.infrastructure.buffers import MAX_BUFFERED_BYTES, MemoryBudget, new_buffer
from maas.model.infrastructure.object_store import DurableObjects
from maas.shared.domain.errors import SlowRequestError

PARTS: Final = "parts"
_NOTHING: Final = hashlib.sha256().digest()
_BROKEN: Final = (BodyCutOffError, SlowRequestError)
"""What ends a body before its time; what came until then is good."""

_log = structlog.get_logger(__name__)


class ObjectPartStream:
    """Stores whatever comes in, as parts of at most `part_bytes`, each an object of its own.

    While one part is digested and stored, the next one fills up: so two are in memory, and all
    bodies that come in share one budget of it.
    """

    def __init__(
        self, objects: DurableObjects, *, part_bytes: int, buffered_bytes: int = MAX_BUFFERED_BYTES
    ) -> None:
        self._objects = objects
        self._part_bytes = part_bytes
        self._memory = MemoryBudget(buffered_bytes)

    def append(
        self,
        upload_id: UUID,
        writer: UUID,
        body: AsyncIterable[bytes],
        *,
        limit_bytes: int,
        whole: RunningDigest | None,
    ) -> AsyncGenerator[StoredPart, None]:
        # Under keys that no other request to the upload has, whoever repeats it.
        prefix = f"{folder_of(upload_id)}/{writer.hex[-16:]}-"
        return self.store(prefix, body, limit_bytes=limit_bytes, whole=whole, keeps_rest=True)

    async def store(
        self,
        prefix: str,
        body: AsyncIterable[bytes],
        *,
        limit_bytes: int,
        whole: RunningDigest | None,
        keeps_rest: bool,
    ) -> AsyncGenerator[StoredPart, None]:
        """Store a body under keys of this prefix and a number, and give each part once it is there.

        With `keeps_rest`, what has come of a body that breaks off is stored before its error is
        raised. Of a part that nobody was given nothing is left. `whole` goes on with the bytes.

        Raises:
            Exception: as `PartStream.append`.
        """
        part_bytes = max(1, min(self._part_bytes, limit_bytes))
        with self._memory.growing() as grow:
            cutting = _Cutting(
                body,
                part_bytes=part_bytes,
                limit_bytes=limit_bytes,
                grow=grow,
                kept_at=_BROKEN if keeps_rest else (),
            )
            storing: asyncio.Task[StoredPart] | None = None
            index, key = 0, ""
            try:
                async for data in cutting.parts():
                    if storing is not None:
                        # Shielded: a write that is cancelled goes on unseen in a thread.
                        stored = await asyncio.shield(storing)
                        storing = None
                        yield stored
                    key = f"{prefix}{index}"
                    storing = asyncio.create_task(self._store(key, data, whole, first=index == 0))
                    index += 1
                if storing is not None:
                    stored = await asyncio.shield(storing)
                    storing = None
                    yield stored
            finally:
                if storing is not None:
                    await finish(self._abandon(storing, key))
        if cutting.broken is not None:
            raise cutting.broken

    async def discard(self, keys: list[str]) -> None:
        """Remove what nothing refers to; what cannot be removed is logged and stays."""
        for folder, inside in groupby(sorted(keys), key=parent_of):
            try:
                await self._objects.delete(list(inside), folder=folder)
            except ArtifactStoreUnavailableError as exc:
                _log.warning("upload_parts_left", folder=folder, error=repr(exc.__cause__))

    async def _store(
        self, key: str, data: memoryview, whole: RunningDigest | None, *, first: bool
    ) -> StoredPart:
        loop, threads = asyncio.get_running_loop(), self._objects.threads
        digesting = loop.run_in_executor(threads, _digest, data, whole)
        try:
            await self._objects.put(key, data, is_first=first)
        finally:
            digest, after = await digesting
        return StoredPart(part=Part(key=key, size=len(data), sha256=Digest(digest)), whole=after)

    async def _abandon(self, storing: "asyncio.Task[StoredPart]", key: str) -> None:
        """Remove a part that nobody waits for any more, once nothing writes it."""
        await asyncio.wait([storing])
        if not storing.cancelled():
            # Looked at, so that asyncio does not call it forgotten.
            storing.exception()
        await self.discard([key])


class _Cutting:
    """Collects a body in two buffers by turns: one fills up while the other is stored."""

    def __init__(
        self,
        body: AsyncIterable[bytes],
        *,
        part_bytes: int,
        limit_bytes: int,
        grow: Callable[[int], None],
        kept_at: tuple[type[Exception], ...],
    ) -> None:
        self._body = body
        self._part_bytes = part_bytes
        self._limit_bytes = limit_bytes
        self._grow = grow
        self._kept_at = kept_at
        self._filling, self._spare = new_buffer(part_bytes), new_buffer(part_bytes)
        self._filled = 0
        self.broken: Exception | None = None

    async def parts(self) -> AsyncIterator[memoryview]:
        """Give whole parts, and what is left when the body ends or breaks off.

        Raises:
            FileTooLargeError: the body is longer than the limit.
        """
        arrived = 0
        try:
            async for chunk in self._body:
                arrived += len(chunk)
                if arrived > self._limit_bytes:
                    raise FileTooLargeError(self._limit_bytes)
                # Memory is taken as bytes come: who sends nothing keeps nobody else waiting.
                self._grow(min(arrived, 2 * self._part_bytes))
                rest = memoryview(chunk)
                while rest:
                    taken = min(len(rest), self._part_bytes - self._filled)
                    self._filling[self._filled : self._filled + taken] = rest[:taken]
                    self._filled += taken
                    rest = rest[taken:]
                    if self._filled == self._part_bytes:
                        yield self._turn()
        except self._kept_at as exc:
            self.broken = exc
        if self._filled:
            yield self._turn()

    def _turn(self) -> memoryview:
        data = self._filling[: self._filled]
        self._filling, self._spare, self._filled = self._spare, self._filling, 0
        return data


def folder_of(upload_id: UUID) -> str:
    return f"{PARTS}/{upload_id}"


def parent_of(key: str) -> str:
    return key.rpartition("/")[0]


def _digest(data: memoryview, whole: RunningDigest | None) -> tuple[bytes, RunningDigest | None]:
    if whole is None:
        return hashlib.sha256(data).digest(), None
    # The first part's digest is that of the file so far: many files have no other part.
    is_first = whole.digest() == _NOTHING
    whole.update(data)
    after = whole.copy()
    return (after.digest() if is_first else hashlib.sha256(data).digest()), after
