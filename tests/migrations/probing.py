"""Work of others while the schema changes: who waits, for how long, and what for.

It runs in a process of its own, one connection a table, and does what requests do: read a row,
write a row, commit. A watcher beside it asks PostgreSQL how long any of them waits for a lock.
"""

import asyncio
import multiprocessing
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection as Pipe
from typing import Any, Final, Self

import asyncpg

NAME: Final = "prober"
PAUSE_SECONDS: Final = 0.01
LOOK_SECONDS: Final = 0.01
PATIENCE: Final = "30s"

_WAITS: Final = """
    SELECT a.pid, l.relation::regclass::text AS name,
        extract(epoch FROM clock_timestamp() - l.waitstart)::float8 AS seconds
    FROM pg_locks l JOIN pg_stat_activity a USING (pid)
    WHERE NOT l.granted AND l.waitstart IS NOT NULL AND a.application_name = $1
"""


@dataclass(slots=True, kw_only=True)
class Seen:
    """What happened to others: the longest wait for a lock, and the longest for anything."""

    lock_seconds: float = 0.0
    lock_table: str = ""
    stall_seconds: float = 0.0
    stall_table: str = ""
    steps: int = 0
    failures: list[str] = field(default_factory=list)


class Prober:
    """The process that probes; nothing of it is there when the block ends."""

    def __init__(self, dsn: dict[str, Any]) -> None:
        # Not forked: it has a loop of its own, and this process may have threads.
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_run, args=(theirs, dsn), daemon=True)

    def __enter__(self) -> Self:
        self._process.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._pipe.send(None)
        self._process.join(10)
        self._process.kill()

    @contextmanager
    def probing(self, tables: Sequence[str], seen: Seen) -> Iterator[None]:
        """Probe these tables until the block ends, and add what was seen."""
        self._pipe.send(list(tables))
        self._pipe.recv()
        try:
            yield
        finally:
            self._pipe.send("end")
            found = self._pipe.recv()
            for name in Seen.__slots__:
                setattr(seen, name, getattr(found, name))


def _run(pipe: Pipe, dsn: dict[str, Any]) -> None:
    asyncio.run(_serve(pipe, dsn))


async def _serve(pipe: Pipe, dsn: dict[str, Any]) -> None:
    while (tables := await asyncio.to_thread(pipe.recv)) is not None:
        await _probe(pipe, dsn, tables)


async def _probe(pipe: Pipe, dsn: dict[str, Any], tables: list[str]) -> None:
    seen, is_over = Seen(), asyncio.Event()
    watcher, *others = [await _connect(dsn) for _ in range(len(tables) + 1)]
    await watcher.execute("SET application_name = 'watcher'")
    tasks = [asyncio.create_task(_watch(watcher, seen, is_over))]
    tasks += [
        asyncio.create_task(_work(each, table, seen, is_over))
        for each, table in zip(others, tables, strict=True)
    ]
    pipe.send("begun")
    await asyncio.to_thread(pipe.recv)
    is_over.set()
    await asyncio.gather(*tasks)
    for connection in (watcher, *others):
        await connection.close()
    pipe.send(seen)


async def _connect(dsn: dict[str, Any]) -> "asyncpg.Connection[asyncpg.Record]":
    # The trail and the ledger refuse changes but of a replica; a lock is waited for all the same.
    return await asyncpg.connect(
        **dsn,
        server_settings={
            "application_name": NAME,
            "session_replication_role": "replica",
            "statement_timeout": PATIENCE,
        },
        statement_cache_size=0,
    )


async def _work(
    connection: "asyncpg.Connection[asyncpg.Record]",
    table: str,
    seen: Seen,
    is_over: asyncio.Event,
) -> None:
    column = await connection.fetchval(
        "SELECT attname FROM pg_attribute WHERE attrelid = $1::regclass AND attnum > 0"
        " AND NOT attisdropped AND attname = ANY(ARRAY['created_at', 'recorded_at', 'tenant_id'])"
        " ORDER BY attname DESC LIMIT 1",
        table,
    )
    read = f"SELECT ctid, tableoid FROM {table} LIMIT 1"
    write = f"UPDATE {table} SET {column} = {column} WHERE (tableoid, ctid) = ($1, $2)"
    while not is_over.is_set():
        began = time.monotonic()
        try:
            async with connection.transaction():
                row = await connection.fetchrow(read)
                if row is not None:
                    await connection.execute(write, row["tableoid"], row["ctid"])
            seen.steps += 1
        except asyncpg.UndefinedTableError:
            # Taken back with the revision that made it.
            return
        except asyncpg.PostgresError as exc:
            seen.failures.append(f"{table}: {type(exc).__name__}: {exc}")
        took = time.monotonic() - began
        if took > seen.stall_seconds:
            seen.stall_seconds, seen.stall_table = took, table
        await asyncio.sleep(PAUSE_SECONDS)


async def _watch(
    connection: "asyncpg.Connection[asyncpg.Record]", seen: Seen, is_over: asyncio.Event
) -> None:
    while not is_over.is_set():
        for row in await connection.fetch(_WAITS, NAME):
            if row["seconds"] > seen.lock_seconds:
                seen.lock_seconds, seen.lock_table = row["seconds"], row["name"] or "a row"
        await asyncio.sleep(LOOK_SECONDS)
