"""The tus protocol as an existing client of it speaks: tuspy, over a real socket."""

import asyncio
import base64
import hashlib
import os
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from tusclient.client import TusClient
from tusclient.exceptions import TusUploadFailed
from tusclient.uploader.uploader import Uploader

from maas.main import create_app
from maas.shared.infrastructure.database import Database
from maas.shared.infrastructure.settings import Settings
from tests.conftest import MakeSettings
from tests.e2e.conftest import MakePerson

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(60)]

PART_BYTES = 64 * 1024
MAX_FILE_BYTES = 160 * PART_BYTES
CONTENT = os.urandom(5 * PART_BYTES + 3)
TUS = {"Tus-Resumable": "1.0.0"}
CHUNK = {**TUS, "Content-Type": "application/offset+octet-stream"}


@pytest.fixture
def settings(make_settings: MakeSettings) -> Settings:
    return make_settings(storage={"part_bytes": PART_BYTES, "max_file_bytes": MAX_FILE_BYTES})


_apps: list[FastAPI] = []


def _app_of(settings: Settings) -> FastAPI:
    """Build the routes once for all tests here: that takes longer than most of them do."""
    if not _apps:
        _apps.append(create_app(settings))
    _apps[0].state.settings = settings
    return _apps[0]


@pytest.fixture
async def port(settings: Settings, database: Database) -> AsyncIterator[int]:
    """Serve the application on a port of its own."""
    del database
    app = _app_of(settings)
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="on"))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        while not server.started:  # noqa: ASYNC110  uvicorn sets no event
            await asyncio.sleep(0.01)
        yield listening.getsockname()[1]
        server.should_exit = True
        await serving


@dataclass(frozen=True)
class Line:
    """A version to upload to: by tuspy, or by hand where that cannot do it."""

    port: int
    api: httpx.AsyncClient
    model_id: str

    @property
    def url(self) -> str:
        return f"{self.api.base_url}uploads"

    def metadata(self, path: str = "a") -> dict[str, str]:
        return {"model_id": self.model_id, "version": "1", "path": path}

    def uploader(self, content: bytes = CONTENT, **options: Any) -> Uploader:
        client = TusClient(self.url, headers=dict(self.api.headers))
        return client.uploader(
            file_stream=BytesIO(content), **{"metadata": self.metadata(), **options}
        )

    async def begin(self, length: int, **headers: str) -> httpx.Response:
        pairs = {k: base64.b64encode(v.encode()).decode() for k, v in self.metadata().items()}
        metadata = ",".join(f"{key} {value}" for key, value in pairs.items())
        sent = {**TUS, "Upload-Length": str(length), "Upload-Metadata": metadata, **headers}
        return await self.api.post("uploads", headers=sent)

    async def read(self, path: str = "a") -> bytes:
        answer = await self.api.get(f"models/{self.model_id}/versions/1/files/{path}")
        assert answer.status_code == 200, answer.text
        return answer.content


@pytest.fixture
async def line(port: int, settings: Settings, make_person: MakePerson) -> AsyncIterator[Line]:
    del settings
    ada = await make_person("ada")
    base = f"http://127.0.0.1:{port}/api/v1/"
    async with httpx.AsyncClient(base_url=base, headers=ada.headers, timeout=20) as api:
        model = (await api.post("models", json={"name": "m", "framework": "other"})).json()
        await api.post(f"models/{model['id']}/versions", json={"version": "1"})
        yield Line(port, api, model["id"])


async def test_tuspy_uploads_a_file_in_chunks_with_checksums(line: Line) -> None:
    uploader = await asyncio.to_thread(
        lambda: line.uploader(chunk_size=2 * PART_BYTES + 1, upload_checksum=True)
    )

    await asyncio.to_thread(uploader.upload)

    assert await line.read() == CONTENT
    state = (await line.api.get(url_of(uploader))).json()
    assert (state["state"], state["offset"]) == ("done", len(CONTENT))


async def test_tuspy_goes_on_where_it_broke_off(line: Line) -> None:
    first = await asyncio.to_thread(lambda: line.uploader(chunk_size=PART_BYTES + 5))
    await asyncio.to_thread(first.upload_chunk)
    url = url_of(first)
    await hang_up(line, url, offset=first.offset, sent=2 * PART_BYTES + 9)

    second = await asyncio.to_thread(lambda: line.uploader(url=url))
    resumed_at = second.offset
    await asyncio.to_thread(second.upload)

    assert resumed_at == 3 * PART_BYTES + 14
    assert await line.read() == CONTENT


def url_of(uploader: Uploader) -> str:
    """Tell where an upload goes; in tuspy's own types it is never anywhere."""
    return str(vars(uploader)["url"])


async def hang_up(line: Line, url: str, *, offset: int, sent: int) -> None:
    """Send some of the rest, break the connection, and wait until what came is told."""
    _, writer = await asyncio.open_connection("127.0.0.1", line.port)
    head = {
        **CHUNK,
        "Host": "test",
        "Authorization": line.api.headers["authorization"],
        "Upload-Offset": str(offset),
        "Content-Length": str(len(CONTENT) - offset),
    }
    lines = "\r\n".join(f"{name}: {value}" for name, value in head.items())
    path = httpx.URL(url).path
    writer.write(f"PATCH {path} HTTP/1.1\r\n{lines}\r\n\r\n".encode())
    writer.write(CONTENT[offset : offset + sent])
    await writer.drain()
    writer.close()
    async with asyncio.timeout(10):
        while await offset_of(line, url) < offset + sent:  # noqa: ASYNC110  the server tells nobody
            await asyncio.sleep(0.01)


async def offset_of(line: Line, url: str) -> int:
    return int((await line.api.head(url, headers=TUS)).headers["upload-offset"])


async def test_tuspy_uploads_an_empty_file(line: Line) -> None:
    uploader = await asyncio.to_thread(lambda: line.uploader(b""))

    await asyncio.to_thread(uploader.upload)

    assert await line.read() == b""


async def test_tuspy_is_told_of_a_file_that_is_refused(line: Line) -> None:
    metadata = {**line.metadata(), "sha256": "00" * 32}
    uploader = await asyncio.to_thread(lambda: line.uploader(metadata=metadata))

    with pytest.raises(TusUploadFailed) as caught:
        await asyncio.to_thread(uploader.upload)

    assert caught.value.status_code == 422
    state = (await line.api.get(url_of(uploader))).json()
    assert (state["state"], state["problem"]["code"]) == ("failed", "digest-mismatch")


async def test_parts_sent_side_by_side_by_tuspy_make_one_file(line: Line) -> None:
    cut = 2 * PART_BYTES + 1
    pieces = (CONTENT[:cut], CONTENT[cut:])
    urls = [
        (await line.begin(len(piece), **{"Upload-Concat": "partial"})).headers["location"]
        for piece in pieces
    ]
    base = line.api.base_url.copy_with(path="/")

    async def send(piece: bytes, url: str) -> None:
        uploader = await asyncio.to_thread(
            lambda: line.uploader(piece, url=f"{str(base).rstrip('/')}{url}")
        )
        await asyncio.to_thread(uploader.upload)

    await asyncio.gather(*map(send, pieces, urls))
    pairs = {k: base64.b64encode(v.encode()).decode() for k, v in line.metadata().items()}
    final = await line.api.post(
        "uploads",
        headers={
            **TUS,
            "Upload-Concat": f"final;{' '.join(urls)}",
            "Upload-Metadata": ",".join(f"{key} {value}" for key, value in pairs.items()),
        },
    )

    assert final.status_code == 201, final.text
    assert await line.read() == CONTENT
    head = await line.api.head(f"{base}{final.headers['location'][1:]}", headers=TUS)
    assert head.headers["upload-length"] == head.headers["upload-offset"] == str(len(CONTENT))
    assert head.headers["upload-concat"] == f"final;{' '.join(urls)}"


async def test_what_is_spoken_is_told_to_strangers(line: Line) -> None:
    async with httpx.AsyncClient() as stranger:
        answer = await stranger.options(line.url)

    assert answer.status_code == 204
    assert answer.headers["tus-version"] == answer.headers["tus-resumable"] == "1.0.0"
    assert answer.headers["tus-max-size"] == str(MAX_FILE_BYTES)
    assert answer.headers["tus-checksum-algorithm"] == "sha256,sha1"
    wanted = {"creation", "creation-with-upload", "expiration", "checksum", "termination"}
    assert set(answer.headers["tus-extension"].split(",")) == {*wanted, "concatenation"}


async def test_another_version_is_refused_with_ours(line: Line) -> None:
    for headers in ({}, {"Tus-Resumable": "0.2.2"}):
        answer = await line.api.post("uploads", headers={"Upload-Length": "1", **headers})

        assert (answer.status_code, answer.json()["code"]) == (412, "tus-version")
        assert answer.headers["tus-version"] == "1.0.0"


async def test_it_answers_as_the_protocol_says(line: Line) -> None:
    made = await line.begin(10)
    url = httpx.URL(line.url).join(made.headers["location"])
    there = {**CHUNK, "Upload-Offset": "0"}

    head = await line.api.head(url, headers=TUS)
    elsewhere = await line.api.patch(url, headers={**CHUNK, "Upload-Offset": "5"}, content=b"12345")
    typed = await line.api.patch(url, headers={**TUS, "Upload-Offset": "0"}, content=b"1")
    long = await line.api.patch(url, headers=there, content=bytes(11))
    wrong = base64.b64encode(hashlib.sha1(b"other", usedforsecurity=False).digest()).decode()
    other = await line.api.patch(
        url, headers={**there, "Upload-Checksum": f"sha1 {wrong}"}, content=b"12345"
    )
    half = await line.api.patch(url, headers=there, content=b"12345")
    gone = await line.api.delete(url, headers=TUS)
    after = await line.api.head(url, headers=TUS)

    assert made.status_code == 201
    assert made.headers["upload-expires"].endswith(" GMT")
    assert (head.status_code, head.headers["cache-control"]) == (200, "no-store")
    assert (head.headers["upload-offset"], head.headers["upload-length"]) == ("0", "10")
    assert head.headers["upload-metadata"].startswith("model_id ")
    assert (elsewhere.status_code, elsewhere.json()["offset"]) == (409, 0)
    assert (typed.status_code, long.status_code, other.status_code) == (415, 413, 460)
    assert (half.status_code, half.headers["upload-offset"]) == (204, "5")
    assert half.headers["upload-expires"].endswith(" GMT")
    assert (gone.status_code, after.status_code) == (204, 404)
    assert "upload-offset" not in after.headers
    answers = (made, head, elsewhere, typed, long, other, half, gone, after)
    assert {answer.headers["tus-resumable"] for answer in answers} == {"1.0.0"}


async def test_the_first_bytes_may_come_with_the_beginning(line: Line) -> None:
    made = await line.api.post(
        "uploads",
        headers={
            **CHUNK,
            "Upload-Length": "5",
            "Upload-Metadata": ",".join(
                f"{key} {base64.b64encode(value.encode()).decode()}"
                for key, value in line.metadata().items()
            ),
        },
        content=b"12345",
    )

    assert (made.status_code, made.headers["upload-offset"]) == (201, "5")
    assert made.headers["upload-state"] == "done"
    assert await line.read() == b"12345"
