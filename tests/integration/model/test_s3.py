"""The artifact store over a server that speaks S3: the same promises as over a folder."""

import hashlib
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from maas.model.application.ports import (
    ArtifactStoreUnavailableError,
    BodyCutOffError,
    CorruptBlobError,
)
from maas.model.infrastructure.artifacts import CollectableParts, PartedArtifactStore
from maas.model.infrastructure.object_store import DurableObjects
from tests.integration.model.conftest import PART_BYTES
from tests.integration.model.test_store import CONTENT, LIMIT, in_chunks, read_all
from tests.moto_server import BUCKET, S3Server, run_moto

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with run_moto(tmp_path_factory.mktemp("moto")) as server:
        yield server


@pytest.fixture
def objects(server: S3Server) -> DurableObjects:
    # A prefix of its own for each test: none sees what another left.
    prefix = os.urandom(8).hex()
    return DurableObjects(f"s3://{BUCKET}/{prefix}", options=server.options)


@pytest.fixture
def store(objects: DurableObjects) -> PartedArtifactStore:
    return PartedArtifactStore(objects, part_bytes=PART_BYTES)


async def everything(objects: DurableObjects) -> list[str]:
    folders = await CollectableParts(objects).list_folders(after="", before="g", limit=1_000)
    return [key for folder in folders for key in folder.keys]


@pytest.mark.parametrize("content", [b"", b"x", CONTENT])
async def test_what_comes_out_is_what_went_in(store: PartedArtifactStore, content: bytes) -> None:
    upload = await store.receive(in_chunks(content), limit_bytes=LIMIT)

    assert await store.has_all(upload.blob)
    assert await read_all(store, upload) == content
    assert await read_all(store, upload, 0, len(content) // 2) == content[: len(content) // 2]
    assert (await store.digest(upload.blob.parts)).value == hashlib.sha256(content).digest()


async def test_a_body_that_breaks_off_leaves_nothing(
    store: PartedArtifactStore, objects: DurableObjects
) -> None:
    async def broken() -> AsyncIterator[bytes]:
        async for chunk in in_chunks(CONTENT):
            yield chunk
        raise BodyCutOffError

    with pytest.raises(BodyCutOffError):
        await store.receive(broken(), limit_bytes=LIMIT)

    assert await everything(objects) == []


async def test_discarded_parts_are_gone_and_missed(
    store: PartedArtifactStore, objects: DurableObjects
) -> None:
    upload = await store.receive(in_chunks(CONTENT), limit_bytes=LIMIT)

    await store.discard(upload.blob)
    await store.discard(upload.blob)

    assert await everything(objects) == []
    assert not await store.has_all(upload.blob)
    with pytest.raises(CorruptBlobError):
        await read_all(store, upload)


async def test_folders_are_listed_slice_by_slice_with_all_that_is_in_them(
    store: PartedArtifactStore, objects: DurableObjects
) -> None:
    uploads = [await store.receive(in_chunks(CONTENT), limit_bytes=LIMIT) for _ in range(5)]
    ids = sorted(str(upload.id) for upload in uploads)
    parts = CollectableParts(objects)

    first = await parts.list_folders(after="", before="g", limit=2)
    rest = await parts.list_folders(after=first[-1].name, before="g", limit=10)
    before = await parts.list_folders(after="", before=ids[3], limit=10)

    assert [folder.name for folder in first + rest] == ids
    assert [folder.name for folder in before] == ids[:3]
    assert {len(folder.keys) for folder in first + rest} == {4}


async def test_doomed_parts_go_with_their_marks_and_again_without_complaint(
    store: PartedArtifactStore, objects: DurableObjects
) -> None:
    upload = await store.receive(in_chunks(CONTENT), limit_bytes=LIMIT)
    keys = [part.key for part in upload.blob.parts]
    await objects.put(f"{keys[0]}.corrupt", memoryview(b""), is_first=False)

    await CollectableParts(objects).delete(keys)
    await CollectableParts(objects).delete(keys)

    assert await everything(objects) == []


async def test_a_store_that_is_away_is_said_to_be(tmp_path: Path) -> None:
    with run_moto(tmp_path) as server:
        options = server.options
    store = PartedArtifactStore(
        DurableObjects(f"s3://{BUCKET}", options=options), part_bytes=PART_BYTES
    )

    with pytest.raises(ArtifactStoreUnavailableError):
        await store.receive(in_chunks(CONTENT), limit_bytes=LIMIT)
