"""A client so light that the server is what is measured: prepared bytes over kept connections."""

import asyncio
import json
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Target:
    """One request, ready to send, to one server."""

    host: str
    port: int
    request: bytes

    @classmethod
    def get(cls, host: str, port: int, path: str, token: str | None = None) -> "Target":
        authorization = f"Authorization: Bearer {token}\r\n" if token else ""
        text = f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\n{authorization}\r\n"
        return cls(host, port, text.encode())

    @classmethod
    def post(cls, host: str, port: int, path: str, body: object) -> "Target":
        sent = json.dumps(body)
        text = (
            f"POST {path} HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(sent)}\r\n\r\n{sent}"
        )
        return cls(host, port, text.encode())


class UnexpectedAnswerError(RuntimeError):
    """A benchmark of refusals would say nothing."""


async def send(target: Target, *, requests: int, connections: int = 8) -> None:
    """Send the request so many times over so many connections, each waiting for its answers.

    Raises:
        UnexpectedAnswerError: an answer was not 200.
    """
    each = requests // connections
    await asyncio.gather(*(_send_over_one(target, each) for _ in range(connections)))


async def _send_over_one(target: Target, requests: int) -> None:
    reader, writer = await asyncio.open_connection(target.host, target.port)
    try:
        for _ in range(requests):
            writer.write(target.request)
            await _read_answer(reader)
    finally:
        writer.close()
        await writer.wait_closed()


async def _read_answer(reader: asyncio.StreamReader) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200 "):
        raise UnexpectedAnswerError(head.split(b"\r\n", 1)[0].decode())
    lowered = head.lower()
    start = lowered.index(b"content-length: ") + 16
    length = int(lowered[start : lowered.index(b"\r\n", start)])
    await reader.readexactly(length)
