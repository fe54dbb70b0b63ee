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
        patience = _Patience(send, watch)
        try:
            async with aclosing(self._answer.rest):
                await self._send_all(patience.send, scope[BODY_KEY])
        except asyncio.CancelledError:
            if not watch.is_why_cancelled():
                with suppress(TimeoutError):
                    async with asyncio.timeout(LAST_WORDS_SECONDS):
                        await _send_error(send, ServerStoppedError())
                raise
        finally:
            patience.stop()
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
    await send({"type": "http.response.body", "body": piece, "more_body": True})


class _Patience:
    """Sends as long as the reader takes it: one who takes nothing for too long has left.

    One clock looks after all pieces of an answer: a time limit of its own costs each more than
    all else that is done to send it.
    """

    __slots__ = ("_loop", "_send", "_since", "_timer", "_watch")

    def __init__(self, send: Send, watch: LeaveWatch) -> None:
        self._send = send
        self._watch = watch
        self._since: float | None = None
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(PATIENCE_SECONDS, self._look)

    async def send(self, message: Message) -> None:
        self._since = self._loop.time()
        try:
            await self._send(message)
        finally:
            self._since = None

    def stop(self) -> None:
        self._timer.cancel()

    def _look(self) -> None:
        now, since = self._loop.time(), self._since
        left = PATIENCE_SECONDS if since is None else since + PATIENCE_SECONDS - now
        if left > 0:
            self._timer = self._loop.call_later(left, self._look)
        else:
            _log.info("stream_reader_stalled")
            self._watch.give_up()
