"""Looks after targets whose circuit is open, so that no call is spent on what is still down.

A look costs nothing at any supplier and needs no key: whatever answers HTTP without failing is
there. It only ever puts off the next try; that a target works, a call alone can show.
"""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Final, Protocol

from maas.inference.application.target_states import TargetState
from maas.inference.domain.circuit import Circuit
from maas.inference.domain.route import Endpoint, RouteTarget
from maas.inference.public import TargetId

LOOK_SECONDS: Final = 2.0
"""For so long an answer is waited for."""

LOOKS_AT_A_TIME: Final = 8
LOOKS: Final = 60
"""After so many in a row nobody looks any more, until a call fails there again."""


class Lookout(Protocol):
    async def is_there(self, endpoint: Endpoint, *, seconds: float) -> bool:
        """Tell whether something answers at an endpoint without failing."""
        ...


class HealthWatch:
    """One background task for each target that is down, and none for the others: `close()` it."""

    def __init__(
        self,
        lookout: Lookout,
        *,
        every_seconds: float,
        seconds: Callable[[], float],
        look_seconds: float = LOOK_SECONDS,
    ) -> None:
        """Prepare; with 0 seconds between looks there is never one."""
        self._lookout = lookout
        self._every_seconds = every_seconds
        self._look_seconds = look_seconds
        self._seconds = seconds
        self._at_a_time = asyncio.Semaphore(LOOKS_AT_A_TIME)
        self._tasks: dict[TargetId, asyncio.Task[None]] = {}

    def __len__(self) -> int:
        return len(self._tasks)

    def follow(self, target: RouteTarget, state: TargetState) -> None:
        """Look at a target until calls may try it."""
        if self._every_seconds <= 0 or target.id in self._tasks:
            return
        # Keys are not kept for longer than their route is, and a look needs none.
        endpoint = replace(target.endpoint, headers={})
        task = asyncio.create_task(self._look_after(endpoint, state.health.circuit))
        self._tasks[target.id] = task
        task.add_done_callback(lambda _: self._tasks.pop(target.id, None))

    async def close(self) -> None:
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _look_after(self, endpoint: Endpoint, circuit: Circuit) -> None:
        for _ in range(LOOKS):
            if circuit.state(self._seconds()) != "open":
                return
            async with self._at_a_time:
                is_there = await self._lookout.is_there(endpoint, seconds=self._look_seconds)
            if not is_there:
                again = self._every_seconds + self._look_seconds
                circuit.found_down(self._seconds(), again_seconds=again)
            await asyncio.sleep(self._every_seconds)
