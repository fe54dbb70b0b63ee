"""The artifact store over a local folder: everything or nothing, and never other bytes."""

import asyncio
import hashlib
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from maas.model.application.ports import (
    ArtifactStoreFullError,
    BodyCutOffError,
    CorruptBlobError,
    FileTooLargeError,
    TooManyTransfersError,
)
from maas.model.domain.blob import Upload
from maas.model.infrastructure.artifacts import PartedArtifactStore
from maas.model.infrastructure.object_store import DurableObjects
from tests.integration.model.conftest import PART_BYTES

pytestmark = pytest.mark.integration

CONTENT = os.urandom(3 * PART_BYTES + 17)
LIMIT = 100 * PART_BYTES


async def in_chunks(content: bytes, *, size: int = 10_000) -> AsyncIterator[bytes]:
    for start in range(0, len(content), size):
        yield content[start : start + size]


async def read_all(
    store: PartedArtifactStore, upload: Upload, start: int = 0, stop: int | None = None
) -> bytes:
    end = upload.blob.size if stop is None else stop
    return b"".join([chunk async for chunk in store.read(upload.blob, start=start, stop=end)])


def files_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def folders_in(folder: Path) -> list[Path]:
    return [path for path in folder.glob("parts/*") if path.is_dir()]


@pytest.fixture
def store(folder: Path) -> PartedArtifactStore:
    return PartedArtifactStore(DurableObjects(folder.as_uri()), part_bytes=PART_BYTES)


class TestReceive:
    @pytest.mark.parametrize(
        "content", [b"", b"x", CONTENT, CONTENT[:PART_BYTES], CONTENT[: 2 * PART_BYTES]]
    )
    @pytest.mark.parametrize("size", [7_777, 10 * PART_BYTES])
    async def test_what_comes_out_is_what_went_in(
        self, store: PartedArtifactStore, folder: Path, content: bytes, size: int
    ) -> None:
        upload = await store.receive(in_chunks(content, size=size), limit_bytes=LIMIT)

        assert upload.blob.sha256.value == hashlib.sha256(content).digest()
        assert upload.blob.size == len(content)
        assert len(upload.blob.parts) == -(-len(content) // PART_BYTES)
        for index, part in enumerate(upload.blob.parts):
            piece = content[index * PART_BYTES :][:PART_BYTES]
            assert part.key == f"parts/{upload.id}/{index}"
            assert part.sha256.value == hashlib.sha256(piece).digest()
            assert (folder / part.key).read_bytes() == piece
        assert await read_all(store, upload) == content

    async def test_too_many_bytes_leave_nothing(
        self, store: PartedArtifactStore, folder: Path
    ) -> None:
        with pytest.raises(FileTooLargeError):
            await store.receive(in_chunks(CONTENT), limit_bytes=len(CONTENT) - 1)

        assert files_in(folder) == folders_in(folder) == []

    async def test_a_body_that_breaks_off_leaves_nothing(
        self, store: PartedArtifactStore, folder: Path
    ) -> None:
        async def broken() -> AsyncIterator[bytes]:
            async for chunk in in_chunks(CONTENT):
                yield chunk
            raise BodyCutOffError

        with pytest.raises(BodyCutOffError):
            await store.receive(broken(), limit_bytes=LIMIT)

        assert files_in(folder) == folders_in(folder) == []

    @pytest.mark.parametrize("after", [0, PART_BYTES, 2 * PART_BYTES + 1])
    async def test_a_cancelled_task_leaves_nothing(
        self, store: PartedArtifactStore, folder: Path, after: int
    ) -> None:
        is_waiting = asyncio.Event()

        async def endless() -> AsyncIterator[bytes]:
            yield CONTENT[:after]
            is_waiting.set()
            await asyncio.Event().wait()

        task = asyncio.create_task(store.receive(endless(), limit_bytes=LIMIT))
        await is_waiting.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

        assert files_in(folder) == folders_in(folder) == []

    async def test_a_task_cancelled_twice_still_cleans_up(
        self, store: PartedArtifactStore, folder: Path
    ) -> None:
        is_waiting = asyncio.Event()

        async def endless() -> AsyncIterator[bytes]:
            yield CONTENT
            is_waiting.set()
            await asyncio.Event().wait()

        task = asyncio.create_task(store.receive(endless(), limit_bytes=LIMIT))
        await is_waiting.wait()
        task.cancel()
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with asyncio.timeout(20):
            while files_in(folder) or folders_in(folder):  # noqa: ASYNC110  a folder tells nobody
                await asyncio.sleep(0.01)

    async def test_memory_for_all_transfers_is_bounded(self, folder: Path) -> None:
        store = PartedArtifactStore(
            DurableObjects(folder.as_uri()), part_bytes=PART_BYTES, buffered_bytes=3 * PART_BYTES
        )
        upload = await store.receive(in_chunks(CONTENT), limit_bytes=LIMIT)
        small = await store.receive(in_chunks(b"small"), limit_bytes=5)
        reading = store.read(upload.blob, start=0, stop=upload.blob.size)
        await anext(reading)

        with pytest.raises(TooManyTransfersError):
            await read_all(store, upload)
        assert await read_all(store, small) == b"small"
        await reading.aclose()

        assert await read_all(store, upload) == CONTENT

    async def test_discarding_leaves_other_uploads_alone(
        self, store: PartedArtifactStore, folder: Path
    ) -> None:
        one = await store.receive(in_chunks(CONTENT), limit_bytes=LIMIT)
        two = await store.receive(in_chunks(CONTENT), limit_bytes=LIMIT)

        await store.discard(one.blob)
        await store.discard(one.blob)

        assert await read_all(store, two) == CONTENT
        assert len(folders_in(folder)) == 1


class TestFullDisk:
    @pytest.fixture
    def small_disk(self, tmp_path: Path) -> Iterator[Path]:
        disk = tmp_path / "disk"
        disk.mkdir()
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", disk],
            check=False,
            capture_output=True,
        )
        if mounted.returncode:
            pytest.skip("mounting a small disk needs root")
        yield disk
        subprocess.run(["umount", disk], check=True)

    async def test_a_full_disk_is_said_so_and_leaves_nothing(self, small_disk: Path) -> None:
        store = PartedArtifactStore(DurableObjects(small_disk.as_uri()), part_bytes=PART_BYTES)

        with pytest.raises(ArtifactStoreFullError):
            await store.receive(in_chunks(os.urandom(512 * 1024)), limit_bytes=LIMIT)

        assert files_in(small_disk) == folders_in(small_disk) == []

    async def test_after_it_what_fits_is_taken(self, small_disk: Path) -> None:
        store = PartedArtifactStore(DurableObjects(small_disk.as_uri()), part_bytes=PART_BYTES)
        with pytest.raises(ArtifactStoreFullError):
            await store.receive(in_chunks(os.urandom(512 * 1024)), limit_bytes=LIMIT)

        upload = await store.receive(in_chunks(CONTENT), limit_bytes=LIMIT)

        assert await read_all(store, upload) == CONTENT


class TestRead:
    @pytest.fixture
    async def upload(self, store: PartedArtifactStore) -> Upload:
        return await store.receive(in_chunks(CONTENT), limit_bytes=LIMIT)

    @pytest.mark.parametrize(
        ("start", "stop"),
        [
            (0, 1),
            (PART_BYTES - 1, PART_BYTES + 1),
            (PART_BYTES, 2 * PART_BYTES),
            (5, len(CONTENT) - 5),
            (len(CONTENT) - 1, len(CONTENT)),
        ],
    )
    async def test_a_range_is_just_that(
        self, store: PartedArtifactStore, upload: Upload, start: int, stop: int
    ) -> None:
        assert await read_all(store, upload, start, stop) == CONTENT[start:stop]

    @pytest.mark.parametrize("damage", ["flip", "cut", "grow", "remove"])
    async def test_damaged_bytes_are_never_given_out(
        self, store: PartedArtifactStore, upload: Upload, folder: Path, damage: str
    ) -> None:
        path = folder / upload.blob.parts[1].key
        data = bytearray(path.read_bytes())
        data[100] ^= 1
        match damage:
            case "flip":
                path.write_bytes(data)
            case "cut":
                path.write_bytes(path.read_bytes()[:-1])
            case "grow":
                path.write_bytes(path.read_bytes() + b"\0")
            case _:
                path.unlink()
        given = bytearray()

        async def read() -> None:
            async for chunk in store.read(upload.blob, start=0, stop=upload.blob.size):
                given.extend(chunk)

        with pytest.raises(CorruptBlobError):
            await read()

        assert bytes(given) == CONTENT[:PART_BYTES]

    async def test_damage_elsewhere_does_not_matter_to_a_range(
        self, store: PartedArtifactStore, upload: Upload, folder: Path
    ) -> None:
        (folder / upload.blob.parts[1].key).unlink()

        assert await read_all(store, upload, 0, PART_BYTES) == CONTENT[:PART_BYTES]

    async def test_a_reader_that_leaves_early_leaves_nothing_behind(
        self, store: PartedArtifactStore, upload: Upload
    ) -> None:
        chunks = store.read(upload.blob, start=0, stop=upload.blob.size)

        first = await anext(chunks)
        await chunks.aclose()

        assert CONTENT.startswith(first)


async def test_a_store_in_memory_reads_back_through_the_cloud_path() -> None:
    store = PartedArtifactStore(DurableObjects("memory:///"), part_bytes=PART_BYTES)

    upload = await store.receive(in_chunks(CONTENT), limit_bytes=LIMIT)
    content = await read_all(store, upload)
    await store.discard(upload.blob)

    assert content == CONTENT
    with pytest.raises(CorruptBlobError):
        await read_all(store, upload)
