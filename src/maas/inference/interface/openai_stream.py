"""Sending a streamed answer: piece by piece as it comes, until it ends or its reader leaves."""

import asyncio
from collections.abc import Mapping
from contextlib import aclosing, suppress
from typing import Final

import structlog
from pydantic_core import to_json
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send
from typing_extensions import override

from maas.inference.application.calls import StreamedAnswer
from maas.inference.domain.failures import ServerStoppedError
from maas.inference.interface.leaving import LeaveWatch, Presence
from maas.inference.interface.openai_errors import error_document
from maas.shared.domain.errors import MaasError
from maas.shared.interface.problems import problem_of
from maas.shared.interface.traffic import BODY_KEY, IncomingBody

PATIENCE_SECONDS: Final = 60.0
"""A reader who takes nothing for that long has left."""

LAST_WORDS_SECONDS: Final = 1.0
"""So long a server that is stopped waits for a reader to take its error."""

EVENT_STREAM: Final = "text/event-stream; charset=utf-8"

_END: Final[Message] = {"type": "http.response.body", "body": b"", "more_body": False}

_log = structlog.get_logger(__name__)


class EventStreamResponse(Response):
    """Passes on the pieces of an answer; what follows a break is an error event, and no `[DONE]`.

    Starlette's own streams start three tasks each; this one starts one, which waits for the reader
    to leave.
    """

    def __init__(
        self, answer: StreamedAnswer, presence: Presence, *, headers: Mapping[str, str]
    ) -> None:
        self._answer = answer
        self._presence = presence
        self.status_code = 200
        self.background = None
        self.init_headers({**headers, "content-type": EVENT_STREAM, "x-accel-buffering": "no"})

    @override
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        watch = LeaveWatch(receive, self._presence, after=0)
        try:
            async with aclosing(self._answer.rest):
                try:
                    await self._send_all(send, scope[BODY_KEY])
                except TimeoutError:
                    self._presence.is_gone = True
                    _log.info("stream_reader_stalled")
        except asyncio.CancelledError:
            if not watch.is_why_cancelled():
                with suppress(TimeoutError):
                    async with asyncio.timeout(LAST_WORDS_SECONDS):
                        await _send_error(send, ServerStoppedError())
                raise
        finally:
            watch.stop()

    async def _send_all(self, send: Send, incoming: IncomingBody) -> None:
        await send(
            {
                "type": "http.response.start",
                "status": self.status_code,
                "headers": self.raw_headers,
            }
        )
        await _send_piece(send, self._answer.first)
        try:
            while True:
                # A stream has a place of the process only while there is something to do for it.
                with incoming.waiting_elsewhere():
                    piece = await anext(self._answer.rest, None)
                if piece is None:
                    break
                await _send_piece(send, piece)
        except MaasError as exc:
            _log.info("stream_broke_off", code=exc.code)
            await _send_error(send, exc)
        else:
            await send(_END)


async def _send_error(send: Send, error: MaasError) -> None:
    told = to_json(error_document(problem_of(error)))
    await _send_piece(send, b"data: " + told + b"\n\n")
    await send(_END)


async def _send_piece(send: Send, piece: bytes) -> None:
    message: Message = {"type": "http.response.body", "body": piece, "more_body": True}
    async with asyncio.timeout(PATIENCE_SECONDS):
        await send(message)
