"""A uvicorn server in this loop, and connections to it that say any bytes at all."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import uvicorn
from starlette.types import ASGIApp

from maas.shared.interface.http_protocol import HeaderTimeoutProtocol


@dataclass(slots=True)
class Connection:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def read_answer(self) -> tuple[bytes, bytes]:
        """Read one answer with a Content-Length: its head and its body."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
        return head, await self.reader.readexactly(int(length))

    async def read_all(self) -> bytes:
        """Read until the server closes; a reset after its answer is a close too."""
        received = b""
        with suppress(ConnectionResetError):
            while chunk := await self.reader.read(65536):
                received += chunk
        return received


@asynccontextmanager
async def serve(
    app: ASGIApp,
    protocol: type[HeaderTimeoutProtocol] = HeaderTimeoutProtocol,
) -> AsyncIterator[int]:
    """Serve an application on a port of the loopback interface, and tell which."""
    config = uvicorn.Config(
        app,
        port=0,
        http=protocol,
        lifespan="off",
        log_config=None,
        interface="asgi3",
        proxy_headers=False,
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110  uvicorn offers no event to wait for
        await asyncio.sleep(0.01)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        await serving


@asynccontextmanager
async def connect(port: int) -> AsyncIterator[Connection]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    yield Connection(reader, writer)
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()
