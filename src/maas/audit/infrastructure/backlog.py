"""What waits to be flushed, read when the metrics are."""

import time
from typing import Any

import asyncpg
from redis.asyncio import Redis

from maas.audit.infrastructure.stream import STREAM
from maas.shared.infrastructure.database import Database
from maas.shared.infrastructure.redis import RedisGate, RedisUnavailableError


async def read_backlog(database: Database, redis: RedisGate) -> dict[str, float]:
    """Count what waits in the outbox and in the stream, and age the oldest of each in seconds."""
    figures: dict[str, float] = {}
    try:
        row = await database.fetchrow("SELECT * FROM audit_backlog()")
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError):
        row = None
    if row is not None:
        figures["outbox_rows"] = float(row["waiting"])
        figures["outbox_oldest_seconds"] = float(row["oldest_seconds"])
        figures["dead_letters"] = float(row["dead_letters"])
    try:
        length, oldest_ms = await redis.call(_look_at_stream)
    except RedisUnavailableError:
        return figures
    figures["stream_entries"] = float(length)
    figures["stream_oldest_seconds"] = oldest_ms / 1000
    return figures


async def _look_at_stream(client: Redis) -> tuple[int, float]:
    length = int(await client.xlen(STREAM))
    first: Any = await client.xrange(STREAM, count=1)
    if not first:
        return length, 0.0
    added_ms = int(first[0][0].split(b"-")[0])
    return length, max(0.0, time.time() * 1000 - added_ms)
