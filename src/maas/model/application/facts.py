"""What files say of themselves: read once their bytes are durable, kept beside them."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from maas.model.application.ports import (
    ArtifactStore,
    CorruptBlobError,
    ModelUnitOfWork,
    TooManyTransfersError,
)
from maas.model.domain.blob import Blob
from maas.model.domain.facts import Facts, roll_up
from maas.model.domain.file import FilePath
from maas.model.domain.formats import SNIFFED_BYTES, PickleRefusedError, read_facts
from maas.model.domain.reading import Reading, Span
from maas.model.domain.version import ModelVersion

READERS = 2
"""How many files are read at a time: a reader keeps a processor busy, and holds a part or two."""

PAUSES_SECONDS = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
"""How long is waited, each time the memory for transfers is taken; the upload is in by then."""

T = TypeVar("T")


class FactsReader:
    """Reads files that are about to be referred to, and keeps what they say with the version."""

    def __init__(
        self,
        *,
        unit_of_work: Callable[[], ModelUnitOfWork],
        artifacts: ArtifactStore,
        max_unpacked_bytes: int,
    ) -> None:
        self._unit_of_work = unit_of_work
        self._artifacts = artifacts
        self._max_unpacked_bytes = max_unpacked_bytes
        self._turns = asyncio.Semaphore(READERS)

    async def read(self, path: FilePath, blob: Blob) -> Facts | None:
        """Read what a stored file says of itself; `None` if it is of no kind that is read.

        No transaction may be open: this reads from the store, and large headers take seconds.

        Raises:
            LyingHeaderError, ArchiveRefusedError: the file is not what it says, or could do harm.
            PickleRefusedError: it is a pickle, or has one in it, and the tenant allows none.
            CorruptBlobError, UnavailableError: the store does not give what it was given.
        """
        window = _Window(self._artifacts, blob)
        try:
            head = await window.fetch(Span(0, min(SNIFFED_BYTES, blob.size)))
            reading = read_facts(
                path, blob.size, head, limit_unpacked_bytes=self._max_unpacked_bytes
            )
            step = _advance(reading, None)
            if isinstance(step, Span):
                # Whoever waits for a turn holds no memory meanwhile.
                await window.close()
                async with self._turns:
                    facts = await _drive(reading, step, window.fetch)
            else:
                facts = step.value
        finally:
            await window.close()
        if facts is not None and facts.format == "pickle" and not await self.allows_pickle():
            raise PickleRefusedError
        return facts

    async def allows_pickle(self) -> bool:
        """Tell whether the caller's tenant lets pickles into its versions."""
        async with self._unit_of_work() as uow:
            return (await uow.settings.get()).allows_pickle


async def keep_facts(
    uow: ModelUnitOfWork, version: ModelVersion, path: FilePath, facts: Facts | None
) -> None:
    """Have the version say what its files say, in the transaction that changes the file.

    The version is locked by then, so that the sum is that of all its files. Of a file that goes,
    `facts` are `None`.
    """
    if await uow.facts.put_file(version.id, path, facts):
        version.facts = roll_up(await uow.facts.list_files(version.id))
        await uow.facts.put_version(version.id, version.facts)


class _Window:
    """Gives spans of a stored file, part by part; cheap as long as they lie one after the other."""

    def __init__(self, artifacts: ArtifactStore, blob: Blob) -> None:
        self._artifacts = artifacts
        self._blob = blob
        self._stream: AsyncGenerator[bytes, None] | None = None
        self._chunk = b""
        self._position = 0
        """Where the chunk begins in the file."""
        self._end = 0
        """Where the part ends that is open."""

    async def fetch(self, span: Span) -> bytes:
        pieces: list[bytes] = []
        at = span.start
        while at < span.stop:
            if not self._position <= at < self._end:
                await self._open(at)
            while at >= self._position + len(self._chunk):
                await self._advance()
            begin = at - self._position
            pieces.append(self._chunk[begin : begin + span.stop - at])
            at += len(pieces[-1])
        return b"".join(pieces)

    async def close(self) -> None:
        if self._stream is not None:
            await self._stream.aclose()
            self._stream, self._end = None, self._position

    async def _open(self, at: int) -> None:
        """Begin to read in the part that has the byte; wait a while if there is no memory for it.

        Raises:
            TooManyTransfersError: there is none after all.
        """
        for pause in PAUSES_SECONDS:
            try:
                await self._begin(at)
            except TooManyTransfersError:
                await asyncio.sleep(pause)
            else:
                return
        await self._begin(at)

    async def _begin(self, at: int) -> None:
        await self.close()
        part, begin, _ = self._blob.parts_between(at, at + 1)[0]
        self._position, self._end, self._chunk = at, at - begin + part.size, b""
        self._stream = self._artifacts.read(self._blob, start=at, stop=self._end)
        await self._advance()

    async def _advance(self) -> None:
        self._position += len(self._chunk)
        chunk = None if self._stream is None else await anext(self._stream, None)
        if chunk is None:
            raise CorruptBlobError
        self._chunk = chunk


async def _drive(reading: Reading[T], first: Span, fetch: Callable[[Span], Awaitable[bytes]]) -> T:
    """Run a reader in threads, step by step, and fetch in between; it can be left at any point."""
    step: Span | _Done[T] = first
    while isinstance(step, Span):
        step = await asyncio.to_thread(_advance, reading, await fetch(step))
    return step.value


@dataclass(frozen=True, slots=True)
class _Done(Generic[T]):
    """What a reader returned; a wrapper, for no `StopIteration` gets out of a thread."""

    value: T


def _advance(reading: Reading[T], sent: bytes | None) -> Span | _Done[T]:
    try:
        return next(reading) if sent is None else reading.send(sent)
    except StopIteration as done:
        return _Done(done.value)
