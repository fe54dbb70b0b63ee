"""Who gets what comes back to a pool."""

import asyncio

import pytest

from maas.shared.infrastructure.fair_pool import FairQueue


async def wait_in_line(queue: FairQueue[int]) -> "asyncio.Task[int]":
    waiting = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    return waiting


async def test_what_is_put_is_for_who_waits() -> None:
    queue = FairQueue[int]()
    first, second = await wait_in_line(queue), await wait_in_line(queue)

    queue.put_nowait(1)
    queue.put_nowait(2)

    with pytest.raises(asyncio.QueueEmpty):
        queue.get_nowait()
    assert await first == 1
    assert await second == 2


async def test_who_left_is_passed_over() -> None:
    queue = FairQueue[int]()
    left, stayed = await wait_in_line(queue), await wait_in_line(queue)
    left.cancel()
    await asyncio.wait([left])

    queue.put_nowait(1)

    assert await stayed == 1


async def test_what_was_handed_to_one_who_leaves_goes_to_the_next() -> None:
    queue = FairQueue[int]()
    leaves, next_one = await wait_in_line(queue), await wait_in_line(queue)
    queue.put_nowait(1)

    leaves.cancel()
    await asyncio.wait([leaves])

    assert leaves.cancelled()
    assert await next_one == 1


async def test_what_nobody_waits_for_is_kept() -> None:
    queue = FairQueue[int](1)

    queue.put_nowait(1)

    assert await queue.get() == 1
    assert queue.empty()
