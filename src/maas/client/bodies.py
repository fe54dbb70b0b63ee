"""A stretch of a file as the body of a request."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass, field

import aiohttp

from maas.client.api import CONNECT_SECONDS, Api
from maas.client.errors import ClientError, TransientError
from maas.client.folder import LocalFile

CHUNK_BYTES = 512 * 1024
SETTLE_SECONDS = 300.0
"""The server may have to put all of it on its disk before it answers."""


@dataclass(slots=True, kw_only=True)
class Body:
    """Bytes `start` up to `stop` of a file; `moved` is told of what was handed to the line."""

    file: LocalFile
    start: int
    stop: int
    moved: Callable[[int], None]
    stall_seconds: float
    fault: OSError | None = field(default=None, init=False)
    """What went wrong on our side, which aiohttp would take for a broken line."""

    @property
    def size(self) -> int:
        return self.stop - self.start

    async def chunks(self, deadline: asyncio.Timeout) -> AsyncIterator[bytes]:
        """Give the bytes, and move the deadline on with each chunk that the line took."""
        clock = asyncio.get_running_loop().time
        left = self.size
        try:
            with self.file.place.open("rb", buffering=0) as file:
                file.seek(self.start)
                while left:
                    chunk = await asyncio.to_thread(file.read, min(CHUNK_BYTES, left))
                    if not chunk:
                        break
                    left -= len(chunk)
                    _move(deadline, clock() + self.stall_seconds)
                    yield chunk
                    self.moved(len(chunk))
        except OSError as exc:
            self.fault = exc
            raise
        _move(deadline, clock() + SETTLE_SECONDS)


def _move(deadline: asyncio.Timeout, to: float) -> None:
    # Bodies are read in a task of aiohttp's, which may run on when the block has been left.
    with suppress(RuntimeError):
        deadline.reschedule(to)


async def send_body(
    api: Api, method: str, location: str, body: Body, headers: dict[str, str]
) -> aiohttp.ClientResponse:
    """Send a body once, and return the answer, which is read to its end.

    Raises:
        TransientError: the line broke, or took nothing for too long.
        RefusedError: the server refused.
        ClientError: the file cannot be read, or changed.
    """
    sent = {**headers, "Content-Length": str(body.size)}
    try:
        async with (
            asyncio.timeout(CONNECT_SECONDS + body.stall_seconds) as deadline,
            api.request(
                method,
                api.own_url(location),
                headers=sent,
                data=body.chunks(deadline),
                silence_seconds=SETTLE_SECONDS,
            ) as answer,
        ):
            await answer.read()
            return answer
    except (TimeoutError, TransientError) as exc:
        if body.fault is not None:
            message = f"{body.file.place} cannot be read: {body.fault.strerror}."
            raise ClientError(message) from None
        body.file.check_unchanged()
        if isinstance(exc, TransientError):
            raise
        raise TransientError("the line took nothing for too long") from exc
