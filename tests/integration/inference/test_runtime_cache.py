"""Files of the registry on the runtime host's disk."""

import asyncio
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from maas.inference.application.runtime_ports import BrokenWeightsError, RuntimeStorageFullError
from maas.inference.infrastructure.runtime_cache import FolderTakenError, FolderWeightCache
from maas.model.public import WeightFile
from tests.fakes.runtime import FakeWeights, version


def content(number: int, size: int = 10_000) -> bytes:
    return bytes([number]) * size


@pytest.fixture
def weights() -> FakeWeights:
    weights = FakeWeights()
    for number in (1, 2, 3):
        weights.add(version(number), content(number))
    return weights


@pytest.fixture
def cache(weights: FakeWeights, tmp_path: Path) -> Iterator[FolderWeightCache]:
    cache = FolderWeightCache(tmp_path, max_bytes=25_000, weights=weights)
    cache.open()
    yield cache
    cache.close()


def file_of(weights: FakeWeights, number: int) -> WeightFile:
    return weights.versions[version(number)][0]


async def fetch(cache: FolderWeightCache, file: WeightFile, *, used_at: int) -> Path:
    """Have a file, and let it go as if that had been then."""
    path = await cache.take(file)
    cache.give_back(file)
    os.utime(path, (used_at, used_at))
    return path


async def test_a_file_is_put_together_once_for_all_who_want_it(
    cache: FolderWeightCache, weights: FakeWeights
) -> None:
    file = file_of(weights, 1)

    paths = await asyncio.gather(*(cache.take(file) for _ in range(5)))

    assert len(set(paths)) == 1
    assert paths[0].read_bytes() == content(1)
    assert weights.reads == 1


async def test_a_file_that_is_there_is_not_read_again(
    cache: FolderWeightCache, weights: FakeWeights
) -> None:
    await fetch(cache, file_of(weights, 1), used_at=1)

    path = await cache.take(file_of(weights, 1))

    assert weights.reads == 1
    assert path.stat().st_mtime > 1


async def test_the_name_of_a_file_is_its_digest_and_nothing_from_outside(
    cache: FolderWeightCache, weights: FakeWeights, tmp_path: Path
) -> None:
    sha256 = file_of(weights, 1).sha256
    file = WeightFile(path="../../evil.gguf", size=10_000, sha256=sha256)

    path = await cache.take(file)

    assert path == tmp_path / "files" / f"{sha256}.gguf"


async def test_the_file_that_was_not_used_longest_makes_room(
    cache: FolderWeightCache, weights: FakeWeights
) -> None:
    older = await fetch(cache, file_of(weights, 1), used_at=200)
    oldest = await fetch(cache, file_of(weights, 2), used_at=100)

    await cache.take(file_of(weights, 3))

    assert older.exists()
    assert not oldest.exists()


async def test_files_in_use_make_no_room(cache: FolderWeightCache, weights: FakeWeights) -> None:
    await cache.take(file_of(weights, 1))
    await cache.take(file_of(weights, 2))

    with pytest.raises(RuntimeStorageFullError):
        await cache.take(file_of(weights, 3))

    cache.give_back(file_of(weights, 1))
    assert (await cache.take(file_of(weights, 3))).exists()


async def test_files_on_their_way_have_their_room(
    cache: FolderWeightCache, weights: FakeWeights
) -> None:
    weights.may_read.clear()
    coming = [asyncio.create_task(cache.take(file_of(weights, number))) for number in (1, 2)]
    for _ in coming:
        await weights.begun.acquire()

    with pytest.raises(RuntimeStorageFullError):
        await cache.take(file_of(weights, 3))

    weights.may_read.set()
    assert all(path.exists() for path in await asyncio.gather(*coming))


async def test_other_bytes_than_were_uploaded_are_not_kept(
    cache: FolderWeightCache, weights: FakeWeights, tmp_path: Path
) -> None:
    file = file_of(weights, 1)
    weights.contents[file.sha256] = content(9)

    with pytest.raises(BrokenWeightsError):
        await cache.take(file)

    assert list((tmp_path / "files").iterdir()) == list((tmp_path / "incoming").iterdir()) == []


async def test_a_disk_without_room_is_told(
    cache: FolderWeightCache, weights: FakeWeights, tmp_path: Path
) -> None:
    with files_of_at_most(5_000), pytest.raises(RuntimeStorageFullError):
        await cache.take(file_of(weights, 1))

    assert list((tmp_path / "files").iterdir()) == list((tmp_path / "incoming").iterdir()) == []
    assert (await cache.take(file_of(weights, 1))).exists()


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Have the system refuse to write more into a file, as it does on a disk without room."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_a_folder_is_one_hosts_alone(
    cache: FolderWeightCache, weights: FakeWeights, tmp_path: Path
) -> None:
    second = FolderWeightCache(tmp_path, max_bytes=25_000, weights=weights)

    with pytest.raises(FolderTakenError):
        second.open()

    cache.close()
    second.open()
    second.close()


async def test_what_a_killed_host_left_half_written_goes(
    weights: FakeWeights, tmp_path: Path
) -> None:
    (tmp_path / "incoming").mkdir()
    (tmp_path / "incoming" / "left").write_bytes(b"half")
    cache = FolderWeightCache(tmp_path, max_bytes=25_000, weights=weights)

    cache.open()

    assert list((tmp_path / "incoming").iterdir()) == []
    cache.close()
