"""The least speed of a transfer: who is slower gives up its memory to others."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send
from typing_extensions import override

from maas.shared.domain.errors import SlowRequestError

LEAST_BYTES = 64 * 1024
UPLOAD_SECONDS = 30.0
DOWNLOAD_SECONDS = 60.0
"""Longer, for the system takes in what is sent, and lets us see it leave in large steps only."""


class Pace:
    """Demands `LEAST_BYTES` for every so many seconds spent on waiting for the other side."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._waited = 0.0
        self._bytes = 0

    @asynccontextmanager
    async def waiting(self) -> AsyncIterator[None]:
        """Wait for the other side in this block; what we do meanwhile is not on its account.

        Raises:
            SlowRequestError: it had its time.
        """
        clock = asyncio.get_running_loop().time
        began = clock()
        try:
            async with asyncio.timeout(self._seconds - self._waited):
                yield
        except TimeoutError:
            raise SlowRequestError(
                f"Fewer than {LEAST_BYTES} bytes went through in {self._seconds:.0f} s."
            ) from None
        self._waited += clock() - began

    def moved(self, size: int) -> None:
        self._bytes += size
        if self._bytes >= LEAST_BYTES:
            self._waited, self._bytes = 0.0, 0


class PacedResponse(StreamingResponse):
    """Breaks the connection to a caller who takes too little of what it asked for."""

    @override
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        pace = Pace(DOWNLOAD_SECONDS)

        async def send_in_time(message: Message) -> None:
            async with pace.waiting():
                await send(message)
            pace.moved(len(message.get("body", b"")))

        await super().__call__(scope, receive, send_in_time)
