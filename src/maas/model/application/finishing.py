"""Clean-up that a cancelled caller must not stop half-way."""

import asyncio
from collections.abc import Coroutine

_under_way: set[asyncio.Task[None]] = set()
"""Held here, for asyncio itself forgets tasks that nobody refers to."""


async def finish(work: Coroutine[object, object, None]) -> None:
    """Await the work; it goes on even if the caller is cancelled meanwhile."""
    task = asyncio.create_task(_run(work))
    _under_way.add(task)
    task.add_done_callback(_under_way.discard)
    await asyncio.shield(task)


async def _run(work: Coroutine[object, object, None]) -> None:
    await work
