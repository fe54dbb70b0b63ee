"""A client so light that the server is what is measured: prepared bytes over kept connections."""

import asyncio
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_GOOD = (b"HTTP/1.1 200 ", b"HTTP/1.1 201 ")


@dataclass(frozen=True, slots=True)
class Target:
    """One request, ready to send, to one server."""

    host: str
    port: int
    request: bytes

    @classmethod
    def get(cls, host: str, port: int, path: str, token: str | None = None) -> "Target":
        head = f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\n{_authorization(token)}\r\n"
        return cls(host, port, head.encode())

    @classmethod
    def post(
        cls, host: str, port: int, path: str, body: object, token: str | None = None
    ) -> "Target":
        sent = json.dumps(body)
        head = (
            f"POST {path} HTTP/1.1\r\nHost: {host}:{port}\r\n{_authorization(token)}"
            f"Content-Type: application/json\r\nContent-Length: {len(sent)}\r\n\r\n"
        )
        return cls(host, port, f"{head}{sent}".encode())


class UnexpectedAnswerError(RuntimeError):
    """A benchmark of refusals would say nothing."""


async def send(target: Target, *, requests: int, connections: int = 8) -> None:
    """Send the request so many times over so many connections, each waiting for its answers.

    Raises:
        UnexpectedAnswerError: an answer was neither 200 nor 201.
    """
    each = requests // connections
    await asyncio.gather(*(_send_over_one([target] * each) for _ in range(connections)))


async def send_each(targets: Sequence[Target], *, connections: int) -> None:
    """Send each request once, over so many connections, all to the server of the first.

    Raises:
        UnexpectedAnswerError: an answer was neither 200 nor 201.
    """
    await asyncio.gather(
        *(_send_over_one(targets[number::connections]) for number in range(connections))
    )


async def _send_over_one(targets: Sequence[Target]) -> None:
    reader, writer = await asyncio.open_connection(targets[0].host, targets[0].port)
    try:
        await _send_all(targets, reader, writer)
    finally:
        writer.close()
        await writer.wait_closed()


async def _send_all(
    targets: Iterable[Target], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    for target in targets:
        writer.write(target.request)
        await _read_answer(reader)


async def _read_answer(reader: asyncio.StreamReader) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    if not head.startswith(_GOOD):
        raise UnexpectedAnswerError(head.split(b"\r\n", 1)[0].decode())
    lowered = head.lower()
    start = lowered.index(b"content-length: ") + 16
    length = int(lowered[start : lowered.index(b"\r\n", start)])
    await reader.readexactly(length)


def _authorization(token: str | None) -> str:
    return f"Authorization: Bearer {token}\r\n" if token else ""
