"""Several pieces of work side by side, of which the first failure is the command's."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence


async def run_all(work: Sequence[Callable[[], Awaitable[None]]], *, at_once: int) -> None:
    """Do all of it, in this order, so many pieces at a time; one that fails stops the rest."""
    slots = asyncio.Semaphore(at_once)

    async def run(piece: Callable[[], Awaitable[None]]) -> None:
        async with slots:
            await piece()

    try:
        async with asyncio.TaskGroup() as group:
            for piece in work:
                group.create_task(run(piece))
    except BaseExceptionGroup as exc:
        # A Ctrl-C comes in one too.
        raise first_of(exc) from None


def first_of(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return what made a group fail; the rest was stopped for it, or failed of the same cause."""
    first: BaseException = group
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    return first
