"""Where the flush takes entries from: the stream's consumer group, and the outbox."""

import os
import secrets
import socket
from collections.abc import Sequence
from typing import Any, Final, TypeAlias

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from maas.audit.application.flush import Delivery
from maas.audit.infrastructure.ledger import PostgresLedger
from maas.audit.infrastructure.stream import FORMAT, GROUP, STREAM
from maas.shared.infrastructure.redis import RedisGate

ABANDONED_MS: Final = 5_000
"""After this long without an acknowledgement, another consumer's entries are taken over."""

IDLE_CONSUMER_MS: Final = 3_600_000
"""After this long without a sign of life, a consumer that holds nothing is forgotten."""

Fields: TypeAlias = dict[bytes, bytes]

# In one script, so that no entry can be handed to a consumer between the look and the removal.
_FORGET_CONSUMERS: Final = """
local gone = 0
for _, consumer in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
    local fields = {}
    for i = 1, #consumer, 2 do fields[consumer[i]] = consumer[i + 1] end
    if fields['pending'] == 0 and fields['idle'] > tonumber(ARGV[2]) then
        redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], fields['name'])
        gone = gone + 1
    end
end
return gone
"""

# A full server refuses the bare command, and would then never be emptied.
_CREATE_GROUP: Final = """#!lua flags=allow-oom
return redis.call('XGROUP', 'CREATE', KEYS[1], ARGV[1], '0', 'MKSTREAM')
"""


def consumer_name() -> str:
    """Make a name no other process has, nor a later one with the same number."""
    return f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"


class StreamInbox:
    """One consumer of the group; it reads its own unfinished entries before anything else."""

    def __init__(
        self, redis: RedisGate, *, consumer: str, forget_after_ms: int = IDLE_CONSUMER_MS
    ) -> None:
        self._redis = redis
        self._consumer = consumer
        self._forget_after_ms = forget_after_ms
        self._is_tidy = False

    async def take(self, limit: int) -> list[Delivery]:
        """Take own unfinished entries, else abandoned ones, else new ones.

        Raises:
            RedisUnavailableError: Redis does not answer.
        """
        return await self._redis.call(lambda client: self._take(client, limit))

    async def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        """Acknowledge and delete in one step: an entry is there and pending, or gone.

        Raises:
            RedisUnavailableError: Redis does not answer; the entries will be delivered again.
        """
        ids = [delivery.entry_id for delivery in deliveries]
        await self._redis.call(lambda client: _let_go(client, ids))

    async def _take(self, client: Redis, limit: int) -> list[Delivery]:
        for attempt in (1, 2):
            try:
                if not self._is_tidy:
                    await client.eval(
                        _FORGET_CONSUMERS, 1, STREAM, GROUP, str(self._forget_after_ms)
                    )
                    self._is_tidy = True
                return (
                    await self._read(client, "0", limit)
                    or await self._claim(client, limit)
                    or await self._read(client, ">", limit)
                )
            except ResponseError as exc:
                if attempt == 2 or not _is_group_missing(exc):  # noqa: PLR2004  the last one
                    raise
                await _create_group(client)
        return []

    async def _read(self, client: Redis, after: str, limit: int) -> list[Delivery]:
        while True:
            reply: Any = await client.xreadgroup(
                GROUP, self._consumer, {STREAM: after}, count=limit
            )
            entries: list[tuple[bytes, Fields]] = next(iter(reply.values()))[0] if reply else []
            deleted = [entry_id for entry_id, fields in entries if not fields]
            if deleted:
                # Pending, but deleted from the stream: someone else finished them.
                await _let_go(client, deleted)
            if len(deleted) < len(entries) or not entries:
                return _deliveries(entries)

    async def _claim(self, client: Redis, limit: int) -> list[Delivery]:
        cursor: bytes = b"0-0"
        while True:
            reply: Any = await client.xautoclaim(
                STREAM, GROUP, self._consumer, ABANDONED_MS, cursor, count=limit
            )
            cursor = reply[0]
            if reply[1] or cursor == b"0-0":
                return _deliveries(reply[1])


class OutboxInbox:
    """Rows of the outbox whose stream entry, if there was one, had a second to be flushed."""

    def __init__(self, ledger: PostgresLedger) -> None:
        self._ledger = ledger

    async def take(self, limit: int) -> list[Delivery]:
        """Take the oldest rows.

        Raises:
            LogUnavailableError: PostgreSQL does not answer.
        """
        return [_outbox_delivery(row) for row in await self._ledger.waiting(limit)]

    async def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        """Nothing is left to do: the rows went in the transaction that settled them."""


def _outbox_delivery(row: Any) -> Delivery:
    event_id = str(row["event_id"])
    fields = {
        b"v": FORMAT,
        b"id": event_id.encode(),
        b"payload": row["payload"],
        b"personal": row["personal"].encode(),
    }
    if row["duration_ms"] is not None:
        fields[b"duration_ms"] = str(row["duration_ms"]).encode()
    return Delivery("outbox", event_id, fields)


def _deliveries(entries: Sequence[tuple[bytes, Fields]]) -> list[Delivery]:
    return [Delivery("stream", entry_id.decode(), fields) for entry_id, fields in entries if fields]


async def _let_go(client: Redis, ids: Sequence[bytes | str]) -> None:
    async with client.pipeline(transaction=True) as pipeline:
        pipeline.xack(STREAM, GROUP, *ids)  # type: ignore[unused-awaitable]  # only collected
        pipeline.xdel(STREAM, *ids)  # type: ignore[unused-awaitable]  # only collected
        await pipeline.execute()


def _is_group_missing(error: ResponseError) -> bool:
    return "NOGROUP" in str(error) or "no such key" in str(error).lower()


async def _create_group(client: Redis) -> None:
    """Make the group from the stream's beginning: all that is there waits to be flushed."""
    try:
        await client.eval(_CREATE_GROUP, 1, STREAM, GROUP)
    except ResponseError as exc:
        if "BUSYGROUP" not in str(exc):
            raise
