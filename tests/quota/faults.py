"""What is done to callers and servers while they count. Each returns once its harm is over."""

import asyncio
import random
import signal
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import asyncpg

from tests.quota.rig import Rig


async def kill_callers(rig: Rig, dice: random.Random) -> None:
    """SIGKILL to a hundred of them at once; they come back with nothing in mind."""
    program = dice.choice(rig.callers)
    (rig.folder / f"ready-{program.name[-1]}").unlink(missing_ok=True)
    await asyncio.to_thread(program.kill)
    await rig.wait_for_callers()


async def freeze_callers(rig: Rig, dice: random.Random) -> None:
    """Halt a hundred of them until some leases have ended, so that they settle too late."""
    program = dice.choice(rig.callers)
    program.send(signal.SIGSTOP)
    await asyncio.sleep(rig.plan.lease_seconds * dice.uniform(0.5, 1.3))
    program.send(signal.SIGCONT)


async def crash_postgres(rig: Rig, _dice: random.Random) -> None:
    """SIGKILL to the postmaster; its children notice, and the next start recovers."""
    await _restart(rig, signal.SIGKILL)


async def restart_postgres(rig: Rig, _dice: random.Random) -> None:
    """Do what `pg_ctl restart -m immediate` does."""
    await _restart(rig, signal.SIGQUIT)


async def _restart(rig: Rig, number: signal.Signals) -> None:
    rig.postgres.send(number)
    await asyncio.to_thread(rig.postgres.reap)
    await asyncio.sleep(0.2)
    await asyncio.to_thread(rig.postgres.kill)
    await asyncio.to_thread(rig.postgres.start)


async def kill_backend(rig: Rig, dice: random.Random) -> None:
    """SIGKILL to one backend, at which PostgreSQL throws out all and recovers."""
    await asyncio.to_thread(rig.postgres.kill_a_child, dice.randrange(50))
    await asyncio.sleep(0.3)


async def end_connections(rig: Rig, _dice: random.Random) -> None:
    with suppress(OSError, asyncpg.PostgresError, TimeoutError):
        async with rig.superuser() as connection:
            await connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
            )


async def kill_valkey(rig: Rig, _dice: random.Random) -> None:
    await asyncio.to_thread(rig.valkey.kill)
    await asyncio.sleep(0.5)


async def kill_helper(rig: Rig, dice: random.Random) -> None:
    await asyncio.to_thread(dice.choice(rig.helpers).kill)


@dataclass(frozen=True, slots=True)
class Fault:
    name: str
    do: Callable[[Rig, random.Random], Awaitable[None]]
    weight: int


FAULTS: Final[Sequence[Fault]] = (
    Fault("callers killed", kill_callers, 4),
    Fault("PostgreSQL killed", crash_postgres, 3),
    Fault("PostgreSQL restarted at once", restart_postgres, 2),
    Fault("a backend killed", kill_backend, 1),
    Fault("connections ended", end_connections, 2),
    Fault("Valkey killed", kill_valkey, 2),
    Fault("callers frozen", freeze_callers, 1),
    Fault("who ends leases killed", kill_helper, 1),
)
"""By how often each is drawn."""


def draw(dice: random.Random) -> Fault:
    return dice.choices(FAULTS, [fault.weight for fault in FAULTS])[0]
