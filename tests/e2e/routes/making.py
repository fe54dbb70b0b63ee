"""What the rows of all routes are made with."""

from collections.abc import Awaitable, Callable
from typing import Any

from tests.e2e.routes.world import Case, World

Make = Callable[[World], Awaitable[Case]]


def plain(**values: Any) -> Make:
    """A row whose call needs nothing made before it."""

    async def make(world: World) -> Case:
        return Case(caller=world.root, **values)

    return make


async def of_nobody(_world: World) -> Case:
    """Call as a stranger, who needs nothing made before it."""
    return Case(caller=None)
