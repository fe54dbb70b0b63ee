"""One file on its way down, in stretches side by side, each going on where the line broke."""

import asyncio
import os
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import aiohttp
from pydantic import BaseModel, Field, ValidationError

from maas.client.api import Api
from maas.client.board import Bar
from maas.client.errors import ClientError, RefusedError, StrangeAnswerError, TransientError
from maas.client.folder import digest_stream, in_thread
from maas.client.groups import run_all
from maas.client.landing import Landing
from maas.client.registry import RemoteFile

STRETCH_BYTES = 64 * 1024 * 1024
"""No shorter stretches: each is a request, and a row in the trail."""

WRITE_BYTES = 1024 * 1024
NOTE_BYTES = 8 * 1024 * 1024

_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-\d{1,18}/(\d{1,18}|\*)")
_PARTIAL, _WHOLE = 206, 200


class Stretch(BaseModel):
    """Bytes `at` up to `stop` are still missing."""

    at: int = Field(ge=0)
    stop: int = Field(ge=0)


class _Journal(BaseModel):
    size: int
    stretches: list[Stretch]


@dataclass(slots=True, kw_only=True)
class Download:
    """A file that lies beside its journal, under its digest, until it is whole."""

    api: Api
    landing: Landing
    location: str
    file: RemoteFile
    bar: Bar
    slots: asyncio.Semaphore
    most_stretches: int
    stretch_bytes: int

    @property
    def part(self) -> str:
        return f"{self.file.sha256}.part"

    @property
    def _journal(self) -> str:
        return f"{self.file.sha256}.json"

    async def run(self) -> None:
        """Fetch what is missing, and compare the digest; then `part` is the whole file.

        Raises:
            LineBrokenError: what arrived stays.
            ClientError: the bytes are not those that were announced, or there is no room.
        """
        goes_on = self._missing() is not None
        # What was left of an earlier pull may be what is wrong.
        if not (await self._fetch() or (goes_on and await self._fetch())):
            message = (
                f"The server's bytes of {self.file.path} are not those it announces by their "
                "SHA-256. Nothing of them was kept."
            )
            raise ClientError(message)
        self.landing.drop_work(self._journal)

    async def _fetch(self) -> bool:
        """Fetch what is missing; tell whether the bytes are right, and forget them if not."""
        stretches = self._missing()
        if stretches is None:
            stretches = self._cut()
            self.landing.drop_work(self.part)
        with os.fdopen(self.landing.open_work(self.part), "r+b", buffering=0) as file:
            descriptor = file.fileno()
            with self.landing.explained(self.part):
                os.ftruncate(descriptor, self.file.size)
            self.bar.set(0)
            self.bar.resume(self.file.size - sum(each.stop - each.at for each in stretches))
            notes = _Notes(lambda: self._note(stretches))
            try:
                await run_all(
                    [partial(self._fetch_stretch, each, descriptor, notes) for each in stretches],
                    at_once=self.most_stretches,
                )
            finally:
                self._note(stretches)
            self.bar.say("checking")
            digest = await self._digest(descriptor)
            self.bar.say("")
        if digest == self.file.sha256:
            return True
        self.landing.drop_work(self._journal)
        self.landing.drop_work(self.part)
        return False

    async def _digest(self, descriptor: int) -> str:
        """Have the bytes put on the disk and hashed, through a number of the thread's own."""
        own = os.dup(descriptor)

        def work(is_over: Callable[[], bool]) -> str:
            with os.fdopen(own, "rb", buffering=0) as file:
                os.fsync(own)
                file.seek(0)
                return digest_stream(file, is_over)

        with self.landing.explained(self.part):
            return await in_thread(work)

    def _missing(self) -> list[Stretch] | None:
        """Read what an earlier pull left to do; `None` if there was none."""
        try:
            journal = _Journal.model_validate_json(self.landing.read_work(self._journal))
        except ValidationError:
            return None
        is_fit = journal.size == self.file.size and all(
            each.at <= each.stop <= journal.size for each in journal.stretches
        )
        return journal.stretches if is_fit else None

    def _cut(self) -> list[Stretch]:
        size = self.file.size
        count = max(1, min(self.most_stretches, size // self.stretch_bytes))
        bounds = [size * index // count for index in range(count + 1)]
        return [Stretch(at=start, stop=stop) for start, stop in pairwise(bounds)]

    def _note(self, stretches: list[Stretch]) -> None:
        journal = _Journal(size=self.file.size, stretches=stretches)
        self.landing.keep_work(self._journal, journal.model_dump_json().encode())

    async def _fetch_stretch(self, stretch: Stretch, descriptor: int, notes: "_Notes") -> None:
        patience = self.api.patience(self.bar.warn)
        while stretch.at < stretch.stop:
            async with self.slots:
                before = stretch.at
                try:
                    await self._fetch_once(stretch, descriptor, notes)
                    reason = TransientError("the connection broke")
                except TransientError as exc:
                    reason = exc
            if stretch.at > before:
                patience.moved()
            if stretch.at < stretch.stop:
                await patience.wait(reason)
                self.bar.say("")

    async def _fetch_once(self, stretch: Stretch, descriptor: int, notes: "_Notes") -> None:
        """Ask for the rest of a stretch, and write what comes of it."""
        async with self._asking(stretch) as answer, aclosing(_gathered(answer)) as chunks:
            async for chunk in chunks:
                fitting = chunk[: stretch.stop - stretch.at]
                # Not in a thread: one that outlives its task writes where the number now leads.
                with self.landing.explained(self.part):
                    _write_all(descriptor, fitting, stretch.at)
                stretch.at += len(fitting)
                self.bar.moved(len(fitting))
                notes.moved(len(fitting))
                if stretch.at == stretch.stop:
                    return

    @asynccontextmanager
    async def _asking(self, stretch: Stretch) -> AsyncIterator[aiohttp.ClientResponse]:
        headers = {
            "Range": f"bytes={stretch.at}-{stretch.stop - 1}",
            "If-Range": f'"{self.file.sha256}"',
        }
        try:
            async with self.api.request(
                "GET", self.api.url(self.location), headers=headers
            ) as answer:
                self._check(answer, stretch)
                yield answer
        except RefusedError as exc:
            raise RefusedError(
                status=exc.status,
                code=exc.code,
                text=f"{self.file.path} cannot be pulled. {exc.message}",
            ) from None

    def _check(self, answer: aiohttp.ClientResponse, stretch: Stretch) -> None:
        if answer.headers.get("Content-Encoding", "identity") != "identity":
            raise StrangeAnswerError("a file comes compressed, which nobody asked for")
        found = _CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", ""))
        if answer.status == _PARTIAL and found is not None and int(found[1]) == stretch.at:
            return
        if answer.status == _WHOLE and stretch.at == 0:
            return
        raise StrangeAnswerError(
            f"it has other bytes under {self.file.path} than a moment ago, or gives no ranges"
        )


class _Notes:
    """Has the journal written every so many bytes, whichever stretch they are of."""

    def __init__(self, write: Callable[[], None]) -> None:
        self._write = write
        self._since = 0

    def moved(self, size: int) -> None:
        self._since += size
        if self._since >= NOTE_BYTES:
            self._since = 0
            self._write()


async def _gathered(answer: aiohttp.ClientResponse) -> AsyncGenerator[bytes, None]:
    """Join what comes to pieces worth a write; what came before a break is given, too."""
    pending = bytearray()
    broken: aiohttp.ClientError | TimeoutError | None = None
    chunks = answer.content.iter_any()
    while True:
        try:
            chunk = await anext(chunks, b"")
        except (aiohttp.ClientError, TimeoutError) as exc:
            chunk, broken = b"", exc
        pending += chunk
        if len(pending) >= WRITE_BYTES or (not chunk and pending):
            yield bytes(pending)
            pending.clear()
        if broken is not None:
            raise broken
        if not chunk:
            return


def _write_all(descriptor: int, data: bytes, at: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, at)
        view, at = view[written:], at + written
