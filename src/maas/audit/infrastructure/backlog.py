"""What waits to be flushed: read when the metrics are, and watched for an alarm."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import asyncpg
import structlog
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from maas.audit.infrastructure.retention import PARTITIONS_AHEAD
from maas.audit.infrastructure.spool import measure_spools
from maas.audit.infrastructure.stream import GROUP, STREAM
from maas.shared.infrastructure.database import Database
from maas.shared.infrastructure.redis import RedisGate, RedisUnavailableError

OLDEST_SECONDS: Final = 30.0
"""An event that waits longer than this is too late, whatever the reason."""

LOOK_SECONDS: Final = 0.5
"""A server that hangs must not keep the sweep from the outbox."""

CLOCKS_APART_SECONDS: Final = 5.0
ALARM_SECONDS: Final = 60.0
FRESH_SECONDS: Final = 2.0

Figures: TypeAlias = Mapping[str, float]

log = structlog.get_logger(__name__)


async def read_backlog(
    database: Database, redis: RedisGate, folder: Path | None = None
) -> dict[str, float]:
    """Count what waits in outbox, stream and spool, and age the oldest of each in seconds.

    What cannot be asked leaves its figures out.
    """
    figures: dict[str, float] = {}
    try:
        row = await database.fetchrow("SELECT * FROM audit_backlog()")
        ahead = await database.fetchrow(PARTITIONS_AHEAD)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError):
        row = ahead = None
    if row is not None and ahead is not None:
        figures["partitions_ahead"] = float(ahead["months"])
        figures["outbox_rows"] = float(row["waiting"])
        figures["outbox_oldest_seconds"] = float(row["oldest_seconds"])
        figures["dead_letters"] = float(row["dead_letters"])
        if "flush_lag_seconds" in row and row["flush_lag_seconds"] is not None:
            # A schema of the version before has no such column.
            figures["recorded_seconds_ago"] = float(row["recorded_seconds_ago"])
            figures["flush_lag_seconds"] = float(row["flush_lag_seconds"])
    if folder is not None:
        size = await asyncio.to_thread(measure_spools, folder, counting=True)
        figures["spool_records"] = float(size.records)
        figures["spool_bytes"] = float(size.bytes)
        figures["spool_torn_files"] = float(size.torn_files)
    try:
        return {**figures, **await redis.call(_look_at_stream)}
    except RedisUnavailableError:
        return figures


async def read_stream_age(redis: RedisGate) -> float:
    """Tell for how many seconds the oldest entry has waited; nothing waits where Redis is down."""
    try:
        return await redis.call(_age_of_stream)
    except RedisUnavailableError:
        return 0.0


async def is_stream_past(redis: RedisGate, since: datetime) -> bool:
    """Tell whether nothing in the stream is older; where Redis is down, nobody can."""

    async def first_entry(client: Redis) -> Any:
        async with asyncio.timeout(LOOK_SECONDS):
            return await client.xrange(STREAM, count=1)

    try:
        first = await redis.call(first_entry)
    except RedisUnavailableError:
        return False
    if not first:
        return True
    # Another server's clock gave it its id: both may be a little off.
    milliseconds = int(bytes(first[0][0]).partition(b"-")[0])
    return milliseconds / 1000 > since.timestamp() + CLOCKS_APART_SECONDS


async def _age_of_stream(client: Redis) -> float:
    async with asyncio.timeout(LOOK_SECONDS):
        first: Any = await client.xrange(STREAM, count=1)
        if not first:
            return 0.0
        # The server's own clock, which gave the entry its id.
        seconds, micros = await client.time()
    return max(0.0, seconds + micros / 1e6 - int(first[0][0].split(b"-")[0]) / 1000)


async def _look_at_stream(client: Redis) -> dict[str, float]:
    figures = {
        "stream_entries": float(await client.xlen(STREAM)),
        "stream_oldest_seconds": await _age_of_stream(client),
    }
    try:
        consumers: Any = await client.xinfo_consumers(STREAM, GROUP)
    except ResponseError:
        # Nobody has flushed yet.
        return figures
    if consumers:
        figures["flush_seconds_ago"] = min(consumer["idle"] for consumer in consumers) / 1000
    return figures


@dataclass(slots=True)
class _Alarm:
    """Says the same at most once a minute."""

    quiet_until: float = 0.0

    def is_due(self) -> bool:
        now = time.monotonic()
        if now < self.quiet_until:
            return False
        self.quiet_until = now + ALARM_SECONDS
        return True


class BacklogWatch:
    """Raises the alarm while events wait too long or are too many, or lie among the dead."""

    def __init__(self, read: Callable[[], Awaitable[Figures]], *, high_water: int) -> None:
        self._read = read
        self._high_water = high_water
        self._late, self._dead = _Alarm(), _Alarm()
        self._status: Literal["up", "behind"] = "up"
        self._looked_at = float("-inf")

    async def read(self) -> Figures:
        return await self._read()

    async def status(self) -> Literal["up", "behind"]:
        """Tell whether the trail keeps up, as of two seconds ago at most."""
        if time.monotonic() - self._looked_at > FRESH_SECONDS:
            await self.look()
        return self._status

    async def look(self) -> None:
        """Read the figures and log an error for what is wrong, each at most once a minute."""
        figures = await self._read()
        self._looked_at = time.monotonic()
        entries = sum(
            figures.get(name, 0.0) for name in ("stream_entries", "outbox_rows", "spool_records")
        )
        oldest = max(
            figures.get("stream_oldest_seconds", 0.0), figures.get("outbox_oldest_seconds", 0.0)
        )
        is_late = entries >= self._high_water or oldest > OLDEST_SECONDS
        self._status = "behind" if is_late else "up"
        if is_late and self._late.is_due():
            log.error("audit_backlog_high", entries=round(entries), oldest_seconds=round(oldest, 1))
        dead = figures.get("dead_letters", 0.0)
        if dead and self._dead.is_due():
            log.error("audit_dead_letters", entries=round(dead))
