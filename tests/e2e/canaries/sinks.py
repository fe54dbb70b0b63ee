"""Everywhere a secret could have ended up: tables, Redis, and what the processes wrote."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import asyncpg
from redis.asyncio import Redis

Texts = Mapping[str, bytes]
"""All that a sink holds, by the sink's name."""


async def read_tables(connection: "asyncpg.Connection[asyncpg.Record]") -> dict[str, bytes]:
    """Read every column of every table as text, and bytes as they are."""
    texts: dict[str, bytes] = {}
    columns = await connection.fetch(
        """SELECT c.relname, a.attname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
             JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
           WHERE n.nspname = 'public' AND c.relkind IN ('r', 'p') AND NOT c.relispartition"""
    )
    for table, column in columns:
        rows = await connection.fetch(f'SELECT "{column}"::text FROM "{table}"')
        text = "\n".join(row[0] for row in rows if row[0] is not None)
        texts[f"{table}.{column}"] = _unhexed(text)
    return texts


def _unhexed(text: str) -> bytes:
    """Spell out bytea, which PostgreSQL shows as hex digits after an `x`."""
    lines = text.splitlines()
    return b"\n".join(
        bytes.fromhex(line[2:]) if line.startswith("\\x") else line.encode() for line in lines
    )


async def read_redis(redis: "Redis") -> dict[str, bytes]:
    """Read every key with all it holds: queues, streams, sessions, counters."""
    texts: dict[str, bytes] = {}
    async for key in redis.scan_iter(count=500):
        name = f"redis {key.decode(errors='replace')}"
        texts[name] = key + b"\n" + _flat(await _value_of(redis, key))
    return texts


async def _value_of(redis: "Redis", key: bytes) -> Any:
    client: Any = redis
    match await client.type(key):
        case b"string":
            return await client.get(key)
        case b"hash":
            return await client.hgetall(key)
        case b"list":
            return await client.lrange(key, 0, -1)
        case b"set":
            return await client.smembers(key)
        case b"zset":
            return await client.zrange(key, 0, -1)
        case b"stream":
            return await client.xrange(key)
        case kind:
            message = f"a key of a kind nobody reads: {kind!r}"
            raise AssertionError(message)


def _flat(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, dict):
        value = [part for pair in value.items() for part in pair]
    if isinstance(value, list | tuple | set):
        return b"\n".join(_flat(part) for part in value)
    return str(value).encode()


def read_logs(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.log")}
