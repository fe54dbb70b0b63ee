"""Which models are loaded, and which make room."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import pytest

from maas.inference.application.runtime_pool import PoolLimits, RuntimePool, estimate_memory
from maas.inference.application.runtime_ports import (
    BrokenWeightsError,
    ModelProcess,
    ModelProcessDiedError,
    RuntimeBusyError,
    RuntimeMemoryError,
    UnfitWeightsError,
    VersionNotServedError,
)
from maas.model.public import VersionId
from tests.fakes.runtime import FakeCache, FakeProcesses, FakeWeights, version, weight_file

LIMITS = PoolLimits(
    memory_bytes=10 * 1024**3,
    max_models=2,
    idle=timedelta(minutes=5),
    context_length=1024,
    answers_at_once=2,
    threads=1,
)


class Pool(RuntimePool):
    """A pool with everything about it at hand."""

    def __init__(self, limits: PoolLimits = LIMITS) -> None:
        self.weights = FakeWeights()
        self.cache = FakeCache()
        self.processes = FakeProcesses()
        self.seconds = 100.0
        for number in range(1, 6):
            self.weights.add(version(number), str(number).encode())
        super().__init__(
            weights=self.weights,
            cache=self.cache,
            processes=self.processes,
            limits=limits,
            now=lambda: self.seconds,
        )

    async def ask(self, number: int) -> ModelProcess:
        self.seconds += 1
        async with self.using(version(number), "generate") as process:
            return process

    @property
    def loaded(self) -> list[VersionId]:
        return [each.version_id for each in self.list_loaded()]


@pytest.fixture
async def pool() -> AsyncIterator[Pool]:
    pool = Pool()
    yield pool
    await pool.close()


async def settle() -> None:
    """Let everything run that can."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_model_is_loaded_once_for_all_who_wait(pool: Pool) -> None:
    pool.processes.may_start.clear()
    callers = [asyncio.create_task(pool.ask(1)) for _ in range(5)]
    await settle()
    pool.processes.may_start.set()

    found = await asyncio.gather(*callers)

    assert len(pool.processes.started) == 1
    assert all(each is pool.processes.started[0] for each in found)


async def test_a_model_that_is_loaded_is_used_again(pool: Pool) -> None:
    assert await pool.ask(1) is await pool.ask(1)


async def test_text_and_embeddings_are_processes_of_their_own(pool: Pool) -> None:
    async with pool.using(version(1), "generate"), pool.using(version(1), "embed"):
        modes = [each.started.mode for each in pool.processes.started]

    assert modes == ["generate", "embed"]


async def test_the_least_used_model_makes_room(pool: Pool) -> None:
    await pool.ask(1)
    await pool.ask(2)
    await pool.ask(1)

    await pool.ask(3)

    assert pool.loaded == [version(1), version(3)]
    assert pool.processes.started[1].ended.is_set()
    assert len(pool.cache.taken) == 2


async def test_what_is_answering_makes_no_room(pool: Pool) -> None:
    async with pool.using(version(1), "generate"), pool.using(version(2), "generate"):
        with pytest.raises(RuntimeBusyError):
            await pool.ask(3)

    assert (await pool.ask(3)) is pool.processes.started[-1]


async def test_memory_bounds_what_is_loaded() -> None:
    needed = estimate_memory(1, LIMITS)
    pool = Pool(replace(LIMITS, max_models=9, memory_bytes=2 * needed))

    for number in (1, 2, 3):
        await pool.ask(number)

    assert pool.loaded == [version(2), version(3)]
    await pool.close()


async def test_a_model_larger_than_the_memory_is_refused() -> None:
    pool = Pool(replace(LIMITS, memory_bytes=estimate_memory(1, LIMITS) - 1))

    with pytest.raises(RuntimeMemoryError):
        await pool.ask(1)

    await pool.close()


async def test_longer_contexts_need_more_memory() -> None:
    longer = replace(LIMITS, context_length=2 * LIMITS.context_length)

    assert estimate_memory(2**32, longer) - estimate_memory(2**32, LIMITS) == 2048 * 2**17


async def test_what_nobody_asks_for_is_unloaded(pool: Pool) -> None:
    await pool.ask(1)
    pool.seconds += 200
    await pool.ask(2)
    pool.seconds += 101

    await pool.unload_idle()

    assert pool.loaded == [version(2)]


async def test_a_process_that_dies_is_started_again_at_once(pool: Pool) -> None:
    await pool.ask(1)
    pool.processes.started[0].ended.set()
    await settle()

    assert pool.loaded == []
    assert await pool.ask(1) is pool.processes.started[1]


async def test_a_process_that_dies_again_waits_before_it_is_started(pool: Pool) -> None:
    for _ in range(2):
        await pool.ask(1)
        pool.processes.started[-1].ended.set()
        await settle()

    with pytest.raises(ModelProcessDiedError) as refused:
        await pool.ask(1)

    assert refused.value.retry_after is not None
    pool.seconds += refused.value.retry_after.total_seconds()
    assert await pool.ask(1) is pool.processes.started[2]


async def test_weights_that_cannot_be_loaded_are_not_tried_at_each_call(pool: Pool) -> None:
    pool.processes.refusal = BrokenWeightsError()
    with pytest.raises(BrokenWeightsError):
        await pool.ask(1)
    pool.processes.refusal = None

    with pytest.raises(BrokenWeightsError):
        await pool.ask(1)

    pool.seconds += 2
    assert await pool.ask(1) is pool.processes.started[0]
    assert pool.cache.taken == [weight_file(b"1").sha256]


async def test_whoever_leaves_while_it_loads_stops_nothing(pool: Pool) -> None:
    pool.processes.may_start.clear()
    caller = asyncio.create_task(pool.ask(1))
    await settle()
    caller.cancel()
    await settle()
    pool.processes.may_start.set()

    await pool.ask(1)

    assert len(pool.processes.started) == 1


async def test_a_version_that_is_not_served_is_looked_up_each_time(pool: Pool) -> None:
    with pytest.raises(VersionNotServedError):
        await pool.ask(9)
    pool.weights.add(version(9), b"9")

    assert await pool.ask(9) is pool.processes.started[0]


@pytest.mark.parametrize("contents", [(), (b"a", b"b")])
async def test_one_file_of_weights_is_wanted(pool: Pool, contents: tuple[bytes, ...]) -> None:
    pool.weights.add(version(7), *contents)

    with pytest.raises(UnfitWeightsError):
        await pool.ask(7)


async def test_closing_ends_all_processes_and_what_is_being_loaded(pool: Pool) -> None:
    await pool.ask(1)
    pool.processes.may_start.clear()
    caller = asyncio.create_task(pool.ask(2))
    await settle()

    await pool.close()

    assert pool.processes.started[0].ended.is_set()
    assert pool.loaded == []
    with pytest.raises(asyncio.CancelledError):
        await caller
