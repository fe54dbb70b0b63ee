"""Single faults: what is done to the cluster, and undone. Each returns once its harm is over."""

import asyncio
import random
import signal
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, TypeAlias

import asyncpg
from redis.exceptions import RedisError

from tests.chaos.cluster import Cluster
from tests.chaos.programs import Program
from tests.fault_proxy import FaultProxy, Faults, cut_after

Do: TypeAlias = Callable[[Cluster, random.Random], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    name: str
    do: Do
    weight: int = 2


async def _kill(program: Program) -> None:
    """SIGKILL; whoever tends the cluster brings it back."""
    await asyncio.to_thread(program.kill)


async def kill_api(cluster: Cluster, dice: random.Random) -> None:
    await _kill(dice.choice(cluster.apis))


async def kill_worker(cluster: Cluster, dice: random.Random) -> None:
    dice.choice(cluster.workers).send(signal.SIGKILL)


async def kill_pool_child(cluster: Cluster, dice: random.Random) -> None:
    await asyncio.to_thread(dice.choice(cluster.workers).kill_a_child, dice.randrange(8))


async def kill_beat(cluster: Cluster, _dice: random.Random) -> None:
    await _kill(cluster.beat)


async def kill_valkey(cluster: Cluster, _dice: random.Random) -> None:
    await _kill(cluster.valkey)


async def keep_valkey_down(cluster: Cluster, dice: random.Random) -> None:
    cluster.valkey.wanted = False
    await _kill(cluster.valkey)
    await asyncio.sleep(dice.uniform(0.5, 3))
    await asyncio.to_thread(cluster.valkey.start)


async def freeze_valkey(cluster: Cluster, dice: random.Random) -> None:
    cluster.valkey.send(signal.SIGSTOP)
    await asyncio.sleep(dice.uniform(0.3, 2))
    cluster.valkey.send(signal.SIGCONT)


async def crash_postgres(cluster: Cluster, _dice: random.Random) -> None:
    """SIGKILL to the postmaster; its children notice, and the next start recovers."""
    cluster.postgres.wanted = False
    cluster.postgres.send(signal.SIGKILL)
    cluster.postgres.reap()
    await asyncio.sleep(0.5)
    await asyncio.to_thread(cluster.postgres.kill)
    cluster.postgres.wanted = True
    await asyncio.to_thread(cluster.postgres.start)


async def kill_backend(cluster: Cluster, dice: random.Random) -> None:
    """SIGKILL to one backend, at which PostgreSQL throws out all and recovers."""
    await asyncio.to_thread(cluster.postgres.kill_a_child, dice.randrange(50))
    await asyncio.sleep(0.5)


async def end_all_connections(cluster: Cluster, _dice: random.Random) -> None:
    with suppress(OSError, asyncpg.PostgresError, TimeoutError):
        async with cluster.superuser() as connection:
            await connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
            )


async def lock_a_table(cluster: Cluster, dice: random.Random) -> None:
    with suppress(OSError, asyncpg.PostgresError, TimeoutError):
        async with cluster.superuser() as connection, connection.transaction():
            table = dice.choice(["models", "sessions", "audit_outbox", "roles"])
            await connection.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
            await asyncio.sleep(dice.uniform(0.5, 2.5))


async def _with_links(links: list[FaultProxy], faults: Faults, seconds: float) -> None:
    for link in links:
        link.become(faults)
    await asyncio.sleep(seconds)
    for link in links:
        link.heal()


def on_links(server: str, make: Callable[[random.Random], Faults], longest: float) -> Do:
    """Make a fault of the links to `postgres` or `valkey`: of one, or of all."""

    async def do(cluster: Cluster, dice: random.Random) -> None:
        links = cluster.links_to(server)
        chosen = links if dice.random() < 0.4 else [dice.choice(links)]
        await _with_links(chosen, make(dice), dice.uniform(0.3, longest))

    return do


async def reset_links(cluster: Cluster, dice: random.Random) -> None:
    for link in cluster.links.values():
        if dice.random() < 0.5:
            link.reset()


async def half_close_links(cluster: Cluster, dice: random.Random) -> None:
    dice.choice(list(cluster.links.values())).half_close()


async def roll_restart(cluster: Cluster, dice: random.Random) -> None:
    """Stop one API process as a deployment does, and bring it back."""
    api = dice.choice(cluster.apis)
    api.wanted = False
    await asyncio.to_thread(api.stop)
    await asyncio.to_thread(api.start)


async def freeze_worker(cluster: Cluster, dice: random.Random) -> None:
    worker = dice.choice(cluster.workers)
    worker.send_to_all(signal.SIGSTOP)
    await asyncio.sleep(dice.uniform(0.5, 7))
    worker.send_to_all(signal.SIGCONT)


async def pause_valkey(cluster: Cluster, dice: random.Random) -> None:
    with suppress(RedisError, OSError):
        await asyncio.to_thread(_pause, cluster, round(dice.uniform(300, 1500)))


def _pause(cluster: Cluster, milliseconds: int) -> None:
    with cluster.redis() as redis:
        redis.execute_command("CLIENT", "PAUSE", milliseconds, "ALL")


FAULTS: Final[Mapping[str, Fault]] = {
    fault.name: fault
    for fault in (
        Fault(name="kill -9 an API process", do=kill_api),
        Fault(name="kill -9 a worker", do=kill_worker),
        Fault(name="kill -9 a pool child", do=kill_pool_child, weight=3),
        Fault(name="kill -9 beat", do=kill_beat, weight=1),
        Fault(name="kill -9 Valkey", do=kill_valkey, weight=3),
        Fault(name="Valkey away", do=keep_valkey_down),
        Fault(name="Valkey frozen", do=freeze_valkey, weight=3),
        Fault(name="Valkey paused", do=pause_valkey),
        Fault(name="kill -9 postmaster", do=crash_postgres, weight=1),
        Fault(name="kill -9 a backend", do=kill_backend, weight=1),
        Fault(name="all connections ended", do=end_all_connections, weight=3),
        Fault(name="a table locked", do=lock_a_table),
        Fault(name="links reset", do=reset_links, weight=4),
        Fault(name="a link half closed", do=half_close_links, weight=3),
        Fault(
            name="PostgreSQL slow",
            do=on_links("postgres", lambda _: Faults(latency_seconds=0.1, jitter_seconds=0.1), 1.5),
        ),
        Fault(
            name="PostgreSQL swallowed",
            do=on_links("postgres", lambda _: Faults(swallow=True), 1.5),
        ),
        Fault(
            name="PostgreSQL refused",
            do=on_links("postgres", lambda _: Faults(accepting="refuse"), 1),
        ),
        Fault(
            name="PostgreSQL cut short",
            do=on_links(
                "postgres",
                lambda dice: cut_after(
                    dice.randrange(200, 20_000), toward=dice.choice(["client", "server"])
                ),
                1.5,
            ),
            weight=3,
        ),
        Fault(
            name="PostgreSQL in slices",
            do=on_links("postgres", lambda dice: Faults(slice_bytes=dice.randrange(1, 50)), 1),
        ),
        Fault(
            name="Valkey slow",
            do=on_links("valkey", lambda _: Faults(latency_seconds=0.2, jitter_seconds=0.2), 1.5),
        ),
        Fault(name="Valkey swallowed", do=on_links("valkey", lambda _: Faults(swallow=True), 2)),
        Fault(
            name="Valkey cut short",
            do=on_links(
                "valkey",
                lambda dice: cut_after(
                    dice.randrange(50, 5_000), toward=dice.choice(["client", "server"])
                ),
                1.5,
            ),
            weight=3,
        ),
        Fault(name="rolling restart", do=roll_restart, weight=1),
        Fault(name="a worker frozen", do=freeze_worker),
    )
}


def draw(dice: random.Random) -> Fault:
    faults = list(FAULTS.values())
    return dice.choices(faults, [fault.weight for fault in faults])[0]
