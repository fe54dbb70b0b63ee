"""Callers who send or take too little: they are cut off, and others go on."""

import asyncio
import socket

import asyncpg
import pytest

from maas.model.interface import bodies, pace
from tests.e2e.conftest import Flush
from tests.e2e.model.test_sockets import MAX_FILE_BYTES, Wire, port, settings, wire

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(60)]
__all__ = ("port", "settings", "wire")


async def test_an_upload_that_falls_silent_ends(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "UPLOAD_SECONDS", 0.3)

    reader, writer = await wire.send("Content-Length: 9", b"x")
    first = await asyncio.wait_for(reader.readline(), 5)
    writer.close()

    assert first.startswith(b"HTTP/1.1 408 ")
    await wire.wait_for(count=0)


async def test_a_download_that_nobody_reads_is_broken_off(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "DOWNLOAD_SECONDS", 0.3)
    await wire.api.put(f"{wire.version}/files/a", content=bytes(MAX_FILE_BYTES))
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.settimeout(0)
    await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", wire.port))
    reader, writer = await asyncio.open_connection(sock=client, limit=4096)

    writer.write(
        f"GET /api/v1/{wire.version}/files/a HTTP/1.1\r\nHost: test\r\n"
        f"Authorization: {wire.api.headers['authorization']}\r\n\r\n".encode()
    )
    await asyncio.sleep(1.5)
    received = 0
    while chunk := await asyncio.wait_for(reader.read(65_536), 5):
        received += len(chunk)
    writer.close()

    assert 0 < received < MAX_FILE_BYTES


async def test_the_seventeenth_at_a_time_is_told_to_wait(wire: Wire) -> None:
    streams = [await wire.send("Content-Length: 9", b"x", path=f"f{n}") for n in range(16)]
    await asyncio.sleep(1)

    answer = await wire.api.put(f"{wire.version}/files/a", content=b"a")
    for _, writer in streams:
        writer.close()

    assert answer.status_code == 429
    assert answer.json()["code"] == "too-many-own-transfers"
    assert answer.headers["retry-after"] == "5"


async def test_a_download_beyond_the_slots_costs_no_look_and_no_event(
    wire: Wire, flush: Flush, superuser: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    file = f"{wire.version}/files/a"
    etag = (await wire.api.put(file, content=b"a")).headers["etag"]
    streams = [await wire.send("Content-Length: 9", b"x", path=f"f{n}") for n in range(16)]
    await asyncio.sleep(1)

    refused = await wire.api.get(file)
    unknown = await wire.api.get(f"{wire.version}/files/unknown")
    same = await wire.api.get(file, headers={"If-None-Match": etag})
    head = await wire.api.head(file)
    for _, writer in streams:
        writer.close()
    await flush()

    assert refused.headers["retry-after"] == "5"
    assert (refused.status_code, unknown.status_code) == (429, 429)
    assert (same.status_code, head.status_code) == (304, 200)
    downloads = "SELECT count(*) FROM audit_log WHERE action = 'model_file.downloaded'"
    assert await superuser.fetchval(downloads) == 0
