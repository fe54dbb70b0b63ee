"""Bytes that were lost or damaged in the store: sending them again mends every file with them."""

from hashlib import sha256
from pathlib import Path

import pytest

from maas.model.application.ports import CorruptBlobError
from maas.model.domain.blob import Digest
from maas.model.domain.file import FilePath
from maas.shared.domain.principal import Principal
from maas.shared.infrastructure.clock import SystemClock
from tests.integration.model.conftest import PART_BYTES, Registry, acting_as
from tests.integration.model.test_files import CONTENT, PATH, Draft, chunks_of, incoming, make_draft

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]

OTHER = FilePath("copy.bin")


@pytest.fixture
async def draft(registry: Registry, principal: Principal) -> Draft:
    draft = await make_draft(registry, principal)
    await draft.take(incoming())
    return draft


def part_of(registry: Registry, index: int) -> Path:
    [path] = registry.folder.glob(f"parts/*/{index}")
    return path


async def test_a_lost_part_comes_back_for_every_file(draft: Draft) -> None:
    part_of(draft.registry, 1).unlink()
    with pytest.raises(CorruptBlobError):
        await draft.read()

    await draft.take(incoming(path=OTHER))

    assert await draft.read() == CONTENT
    assert await draft.read(OTHER) == CONTENT
    assert len(draft.registry.stored()) == 3, "the old parts are gone"


async def test_a_part_cut_short_is_as_good_as_lost(draft: Draft) -> None:
    path = part_of(draft.registry, 0)
    path.write_bytes(path.read_bytes()[:-1])

    await draft.take(incoming(path=OTHER))

    assert await draft.read() == CONTENT


async def test_a_damaged_part_that_a_download_has_found_is_replaced(draft: Draft) -> None:
    path = part_of(draft.registry, 1)
    path.write_bytes(bytes(PART_BYTES))
    with pytest.raises(CorruptBlobError):
        await draft.read()

    await draft.take(incoming())

    assert await draft.read() == CONTENT
    assert len(draft.registry.stored()) == 3, "neither old parts nor marks are left"


async def test_parts_of_another_size_replace_lost_ones(draft: Draft) -> None:
    part_of(draft.registry, 0).unlink()
    draft.registry.part_bytes = PART_BYTES // 2

    await draft.take(incoming(path=OTHER))

    assert await draft.read() == CONTENT
    assert len(draft.registry.stored()) == 5


async def test_intact_parts_are_kept_and_the_new_ones_thrown_away(draft: Draft) -> None:
    before = sorted(draft.registry.stored())

    await draft.take(incoming(path=OTHER))

    assert sorted(draft.registry.stored()) == before


async def test_of_two_who_mend_one_is_kept_and_nothing_else_left(draft: Draft) -> None:
    registry = draft.registry
    part_of(registry, 0).unlink()
    async with acting_as(draft.principal), registry.make_unit_of_work() as uow:
        lost = await uow.blobs.find(Digest(sha256(CONTENT).digest()))

    await draft.take(incoming(path=OTHER))
    mended = sorted(registry.stored())
    upload = await registry.store.receive(chunks_of(CONTENT), limit_bytes=len(CONTENT))
    async with acting_as(draft.principal), registry.make_unit_of_work() as uow:
        is_kept = await uow.blobs.keep(upload.blob, at=SystemClock().now(), instead_of=lost)
    await registry.store.discard(upload.blob)

    assert not is_kept
    assert sorted(registry.stored()) == mended
    assert await draft.read(PATH) == CONTENT
