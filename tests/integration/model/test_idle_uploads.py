"""Transfers that take memory only for what arrived, and from a budget of their own."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from maas.model.application.ports import TooManyTransfersError
from maas.model.application.transfers import MAX_TRANSFERS_EACH, TooManyOwnTransfersError
from maas.model.infrastructure.artifacts import PartedArtifactStore
from maas.model.infrastructure.object_store import DurableObjects
from maas.shared.domain.ids import new_id
from maas.shared.domain.principal import Principal
from tests.integration.model.conftest import PART_BYTES, Registry
from tests.integration.model.test_files import CONTENT, chunks_of, incoming, make_draft

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]

LIMIT = 100 * PART_BYTES


async def silent_after(content: bytes) -> AsyncIterator[bytes]:
    yield content
    await asyncio.Event().wait()


async def stop(tasks: list[asyncio.Task[object]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture
def store(registry: Registry) -> PartedArtifactStore:
    return PartedArtifactStore(
        DurableObjects(registry.folder.as_uri()),
        part_bytes=PART_BYTES,
        buffered_bytes=3 * PART_BYTES,
    )


async def test_idle_uploads_take_no_memory_from_others(store: PartedArtifactStore) -> None:
    idle: list[asyncio.Task[object]] = [
        asyncio.create_task(store.receive(silent_after(b"x"), limit_bytes=LIMIT)) for _ in range(50)
    ]
    await asyncio.sleep(0)

    upload = await store.receive(chunks_of(CONTENT), limit_bytes=LIMIT)

    assert upload.blob.size == len(CONTENT)
    await stop(idle)


async def test_memory_that_is_taken_is_refused_and_given_back(store: PartedArtifactStore) -> None:
    full = asyncio.create_task(
        store.receive(silent_after(bytes(2 * PART_BYTES)), limit_bytes=LIMIT)
    )
    await asyncio.sleep(0)
    with pytest.raises(TooManyTransfersError):
        await store.receive(chunks_of(CONTENT), limit_bytes=LIMIT)

    await stop([full])

    assert (await store.receive(chunks_of(CONTENT), limit_bytes=LIMIT)).blob.size == len(CONTENT)


async def test_uploads_in_pieces_and_files_in_one_request_share_a_budget(
    store: PartedArtifactStore,
) -> None:
    async def in_pieces() -> object:
        pieces = store.stream.append(
            new_id(), new_id(), silent_after(bytes(2 * PART_BYTES)), limit_bytes=LIMIT, whole=None
        )
        return [part async for part in pieces]

    full = asyncio.create_task(in_pieces())
    await asyncio.sleep(0)
    with pytest.raises(TooManyTransfersError):
        await store.receive(chunks_of(CONTENT), limit_bytes=LIMIT)

    await stop([full])

    assert (await store.receive(chunks_of(CONTENT), limit_bytes=LIMIT)).blob.size == len(CONTENT)


async def test_downloads_and_uploads_have_budgets_of_their_own(store: PartedArtifactStore) -> None:
    upload = await store.receive(chunks_of(CONTENT), limit_bytes=LIMIT)
    reading = store.read(upload.blob, start=0, stop=upload.blob.size)
    await anext(reading)

    again = await store.receive(chunks_of(CONTENT), limit_bytes=LIMIT)
    with pytest.raises(TooManyTransfersError):
        await anext(store.read(upload.blob, start=0, stop=upload.blob.size))
    await reading.aclose()

    assert again.blob.sha256 == upload.blob.sha256


async def test_one_caller_has_only_so_many_at_a_time(
    registry: Registry, principal: Principal
) -> None:
    draft = await make_draft(registry, principal)
    await draft.take(incoming())
    waiting = asyncio.Semaphore(0)

    async def silent() -> AsyncIterator[bytes]:
        waiting.release()
        await asyncio.Event().wait()
        yield b""

    idle: list[asyncio.Task[object]] = [
        asyncio.create_task(draft.take(incoming(body=silent()))) for _ in range(MAX_TRANSFERS_EACH)
    ]
    for _ in idle:
        await waiting.acquire()

    with pytest.raises(TooManyOwnTransfersError):
        await draft.take(incoming())
    with pytest.raises(TooManyOwnTransfersError):
        await draft.read()

    await stop(idle)
    assert await draft.read() == CONTENT
