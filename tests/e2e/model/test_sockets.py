"""What only a real server and a real socket can do: hang up, wait for 100, break off."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import uvicorn

from maas.main import create_app
from maas.shared.infrastructure.database import Database
from maas.shared.infrastructure.settings import Settings
from tests.conftest import MakeSettings
from tests.e2e.conftest import MakePerson

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(60)]

PART_BYTES = 64 * 1024
MAX_FILE_BYTES = 160 * PART_BYTES
CONTENT = os.urandom(20 * PART_BYTES + 5)


@pytest.fixture
def settings(make_settings: MakeSettings) -> Settings:
    return make_settings(storage={"part_bytes": PART_BYTES, "max_file_bytes": MAX_FILE_BYTES})


@pytest.fixture
async def port(settings: Settings, database: Database) -> AsyncIterator[int]:
    """Serve the application on a port of its own."""
    config = uvicorn.Config(create_app(settings), log_config=None, lifespan="on")
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        while not server.started:  # noqa: ASYNC110  uvicorn sets no event
            await asyncio.sleep(0.01)
        yield listening.getsockname()[1]
        server.should_exit = True
        await serving


@dataclass(frozen=True)
class Wire:
    """A version to upload to, and raw requests to it."""

    port: int
    api: httpx.AsyncClient
    version: str
    folder: Path

    async def send(
        self, head: str, body: bytes = b"", *, path: str = "a"
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        authorization = self.api.headers["authorization"]
        writer.write(
            f"PUT /api/v1/{self.version}/files/{path} HTTP/1.1\r\nHost: test\r\n"
            f"Authorization: {authorization}\r\n{head}\r\n\r\n".encode()
            + body
        )
        await writer.drain()
        return reader, writer

    def parts(self) -> list[Path]:
        return [path for path in self.folder.rglob("*") if path.is_file()]

    async def wait_for(self, *, count: int) -> None:
        async with asyncio.timeout(10):
            while len(self.parts()) != count:  # noqa: ASYNC110  a folder tells nobody
                await asyncio.sleep(0.01)


@pytest.fixture
async def wire(port: int, settings: Settings, make_person: MakePerson) -> AsyncIterator[Wire]:
    ada = await make_person("ada")
    base = f"http://127.0.0.1:{port}/api/v1/"
    async with httpx.AsyncClient(base_url=base, headers=ada.headers, timeout=20) as api:
        model = (await api.post("models", json={"name": "m", "framework": "other"})).json()
        versions = f"models/{model['id']}/versions"
        await api.post(versions, json={"version": "1"})
        assert settings.data_dir is not None
        yield Wire(port, api, f"{versions}/1", settings.data_dir / "artifacts")


async def test_a_caller_who_hangs_up_leaves_nothing(wire: Wire) -> None:
    _, writer = await wire.send(f"Content-Length: {len(CONTENT)}", CONTENT[: 5 * PART_BYTES + 1])
    await wire.wait_for(count=5)

    writer.close()
    await writer.wait_closed()

    await wire.wait_for(count=0)
    assert (await wire.api.get(f"{wire.version}/files")).json()["items"] == []
    assert (await wire.api.get(wire.version)).json()["status"] == "pending"


async def test_a_chunked_body_past_the_limit_leaves_nothing(wire: Wire) -> None:
    piece = b"%x\r\n%s\r\n" % (PART_BYTES, bytes(PART_BYTES))

    reader, writer = await wire.send(
        "Transfer-Encoding: chunked", piece * (MAX_FILE_BYTES // PART_BYTES) + b"1\r\n\0\r\n"
    )
    first = await reader.readline()
    writer.close()

    assert first.startswith(b"HTTP/1.1 413 ")
    await wire.wait_for(count=0)


async def test_a_caller_who_waits_for_100_is_refused_before_sending(wire: Wire) -> None:
    await wire.api.put(f"{wire.version}/files/a", content=b"a")
    await wire.api.post(f"{wire.version}/transition", json={"status": "ready"})

    reader, writer = await wire.send("Content-Length: 9\r\nExpect: 100-continue")
    first = await reader.readline()
    writer.close()

    assert first.startswith(b"HTTP/1.1 409 ")


async def test_a_caller_who_waits_for_100_is_let_through(wire: Wire) -> None:
    reader, writer = await wire.send("Content-Length: 3\r\nExpect: 100-continue")
    first = await reader.readline()
    writer.write(b"abc")
    await reader.readline()
    second = await reader.readline()
    writer.close()

    assert first.startswith(b"HTTP/1.1 100 ")
    assert second.startswith(b"HTTP/1.1 201 ")


async def test_a_large_file_comes_down_as_it_went_up(wire: Wire) -> None:
    up = await wire.api.put(f"{wire.version}/files/a", content=CONTENT)
    down = await wire.api.get(f"{wire.version}/files/a")

    assert up.status_code == 201
    assert down.content == CONTENT


async def test_damage_in_the_first_part_is_a_problem_document(wire: Wire) -> None:
    await wire.api.put(f"{wire.version}/files/a", content=CONTENT)
    damage(wire, index=0)

    answer = await wire.api.get(f"{wire.version}/files/a")

    assert (answer.status_code, answer.json()["code"]) == (503, "blob-corrupt")


async def test_damage_further_on_breaks_the_connection(wire: Wire) -> None:
    await wire.api.put(f"{wire.version}/files/a", content=CONTENT)
    damage(wire, index=10)
    given = bytearray()

    async def read() -> None:
        async with wire.api.stream("GET", f"{wire.version}/files/a") as answer:
            async for chunk in answer.aiter_raw():
                given.extend(chunk)

    with pytest.raises(httpx.RemoteProtocolError):
        await read()

    assert len(given) <= 10 * PART_BYTES
    assert CONTENT.startswith(bytes(given))


def damage(wire: Wire, *, index: int) -> None:
    (path,) = (path for path in wire.parts() if path.name == str(index))
    data = bytearray(path.read_bytes())
    data[7] ^= 1
    path.write_bytes(data)
