"""What befalls Valkey: killed, gone, wiped, hung, full, and with its file torn."""

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final, TypeAlias

from redis.exceptions import RedisError

from tests.chaos.stage import Stage

Play: TypeAlias = Callable[[Stage], Awaitable[None]]
VISIBLE_SECONDS: Final = 10.0


async def kill_valkey(stage: Stage) -> None:
    for gap in (0.0, stage.dice.uniform(0, 2), stage.dice.uniform(2, 5)):
        async with stage.fault("kill -9 Valkey"):
            stage.cluster.valkey.wanted = False
            await asyncio.to_thread(stage.cluster.valkey.kill)
            await asyncio.sleep(gap)
            await asyncio.to_thread(stage.cluster.valkey.start)
            await asyncio.sleep(1)


def keep_valkey_down(seconds: float) -> Play:
    async def play(stage: Stage) -> None:
        """Events go on being seen, through the sweeper, with neither stream nor broker."""
        cluster = stage.cluster
        async with stage.fault(f"Valkey down for {seconds:.0f} s", lasts_at_most=seconds + 60):
            cluster.valkey.wanted = False
            await asyncio.to_thread(cluster.valkey.kill)
            ends, latest = time.monotonic() + seconds, 0.0
            await asyncio.sleep(VISIBLE_SECONDS)
            while time.monotonic() < ends:
                latest = max(latest, await _oldest_waiting(stage))
                await asyncio.sleep(0.5)
            stage.expect(
                latest <= VISIBLE_SECONDS, f"an event waited {latest:.1f} s while Valkey was down"
            )
            stage.notes.append(f"longest wait with Valkey down: {latest:.1f} s")
            await asyncio.to_thread(cluster.valkey.start)

    return play


async def _oldest_waiting(stage: Stage) -> float:
    async with stage.cluster.superuser() as connection:
        seconds = await connection.fetchval(
            "SELECT extract(epoch FROM clock_timestamp() - min(created_at)) FROM audit_outbox"
        )
    return float(seconds or 0)


async def wipe_valkey(stage: Stage) -> None:
    """All of Redis is forgotten. What had no transaction and was not flushed yet goes with it."""
    stage.excuse_class_b = True
    for _ in range(2):
        async with stage.fault("FLUSHALL"):
            with suppress(RedisError), stage.cluster.redis() as redis:
                redis.flushall()
            await asyncio.sleep(3)
    async with stage.fault("Valkey restarts on an empty folder"):
        valkey = stage.cluster.valkey
        valkey.wanted = False
        await asyncio.to_thread(valkey.kill)
        for file in (stage.cluster.folder / "valkey").rglob("*.aof"):
            file.unlink()
        for file in (stage.cluster.folder / "valkey").rglob("*.manifest"):
            file.unlink()
        await asyncio.to_thread(valkey.start)
        await asyncio.sleep(2)


async def hang_valkey(stage: Stage) -> None:
    async with stage.fault("CLIENT PAUSE"):
        with suppress(RedisError), stage.cluster.redis() as redis:
            redis.execute_command("CLIENT", "PAUSE", 10_000, "ALL")
        await asyncio.sleep(10)
    async with stage.fault("DEBUG SLEEP"):
        with suppress(RedisError), stage.cluster.redis() as redis:
            await asyncio.to_thread(redis.execute_command, "DEBUG", "SLEEP", "8")
    async with stage.fault("SIGSTOP of Valkey"):
        stage.cluster.valkey.send(signal.SIGSTOP)
        await asyncio.sleep(8)
        stage.cluster.valkey.send(signal.SIGCONT)


async def fill_valkey(stage: Stage) -> None:
    async with stage.fault("Valkey's memory is full"):
        with stage.cluster.redis() as redis:
            redis.config_set("maxmemory", "1mb")
            await asyncio.sleep(6)
            redis.config_set("maxmemory", "0")
            stats: Any = redis.info("stats")
            stage.expect(stats["evicted_keys"] == 0, "a key was evicted")


async def tear_the_aof(stage: Stage) -> None:
    """The last bytes of the append-only file never reached the disk."""
    stage.excuse_class_b = True
    for _ in range(2):
        async with stage.fault("the append-only file is torn"):
            valkey = stage.cluster.valkey
            valkey.wanted = False
            await asyncio.to_thread(valkey.kill)
            files = (stage.cluster.folder / "valkey").rglob("*.incr.aof")
            newest = max(files, key=lambda file: file.stat().st_mtime)
            size = newest.stat().st_size
            os.truncate(newest, max(0, size - stage.dice.randrange(1, 100)))
            await asyncio.to_thread(valkey.start)
            await asyncio.sleep(2)
