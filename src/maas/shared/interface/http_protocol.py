"""uvicorn's HTTP protocol with the limits it lacks: on the time and the size of a request's head.

ASGI sees a request only once its head is complete, so a client that never finishes one can be
stopped here alone.
"""

import asyncio
import json
from typing import Final

from typing_extensions import override
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD_BYTES: Final = 64 * 1024

_TITLES: Final = {
    400: "Bad Request",
    408: "Request Timeout",
    431: "Request Header Fields Too Large",
}


class HeaderTimeoutProtocol(HttpToolsProtocol):
    """Closes a connection whose request head is late, too large, or not HTTP."""

    head_timeout_seconds = 10.0

    _timer: asyncio.TimerHandle | None = None
    _head_bytes: int = 0
    _is_in_head: bool = True

    @override
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        # The base class narrows the argument likewise.
        super().connection_made(transport)
        self._await_head()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        super().connection_lost(exc)

    @override
    def data_received(self, data: bytes) -> None:
        if self._is_in_head:
            if self._timer is None:
                self._await_head()
            self._head_bytes += len(data)
            # What follows the head in the same chunk is at most one read, so it may count.
            if self._head_bytes > MAX_HEAD_BYTES + len(data):
                self._refuse(431, f"A request's head has at most {MAX_HEAD_BYTES} bytes.")
                return
        super().data_received(data)

    @override
    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._is_in_head = True

    @override
    def on_headers_complete(self) -> None:
        self._is_in_head = False
        self._head_bytes = 0
        self._stop_timer()
        super().on_headers_complete()

    @override
    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._is_in_head = True

    @override
    def send_400_response(self, msg: str) -> None:
        self._refuse(400, "This is not a well-formed HTTP/1.1 request.")

    def _await_head(self) -> None:
        self._timer = self.loop.call_later(self.head_timeout_seconds, self._give_up)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up(self) -> None:
        self._timer = None
        if self._head_bytes:
            self._refuse(408, "The request's head did not arrive in time.")
        else:
            self.transport.close()

    def _refuse(self, status: int, detail: str) -> None:
        """Answer without the application, which never saw a request, and close."""
        title = _TITLES[status]
        problem = {
            "type": "about:blank",
            "title": title,
            "status": status,
            "detail": detail,
            "code": title.lower().replace(" ", "-"),
        }
        body = json.dumps(problem).encode()
        head = (
            f"HTTP/1.1 {status} {title}\r\ncontent-type: application/problem+json\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()
