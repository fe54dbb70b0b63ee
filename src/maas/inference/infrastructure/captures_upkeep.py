"""Captures that go, as `maas_system`: those whose time is over, and those of who is erased."""

import time
from datetime import datetime
from typing import Final

import asyncpg

from maas.shared.domain.clock import Clock
from maas.shared.domain.ids import AccountId
from maas.shared.infrastructure.database import system_arguments
from maas.shared.infrastructure.settings import DatabaseSettings

RUN_SECONDS: Final = 20.0
ERASURE_SECONDS: Final = 10.0
SLICE: Final = 500

_PRUNE: Final = """
DELETE FROM inference_captures WHERE id IN (
    SELECT id FROM inference_captures WHERE keep_until <= $1
    ORDER BY keep_until LIMIT $2 FOR UPDATE SKIP LOCKED)
"""
_ERASE: Final = """
DELETE FROM inference_captures WHERE id IN (
    SELECT id FROM inference_captures WHERE account_id = $1 LIMIT $2)
"""
# After it nobody writes who had not seen the row.
_WAIT_FOR_WRITERS: Final = "SELECT pg_advisory_xact_lock(hashtextextended('maas.captures', 0))"
_NOTE: Final = """
INSERT INTO inference_erasures (account_id, erased_at) VALUES ($1, $2) ON CONFLICT DO NOTHING
"""


async def prune_captures(
    settings: DatabaseSettings, *, clock: Clock, run_seconds: float = RUN_SECONDS
) -> int:
    """Delete captures of all tenants whose time is over; tell how many.

    What is left when time is up, the next run deletes.
    """
    connection = await asyncpg.connect(**system_arguments(settings))
    try:
        return await _delete(connection, _PRUNE, clock.now(), run_seconds=run_seconds)
    finally:
        await connection.close()


async def erase_captures(
    settings: DatabaseSettings,
    account_id: AccountId,
    *,
    clock: Clock,
    run_seconds: float = ERASURE_SECONDS,
) -> None:
    """Delete what is kept of a person's calls, in all tenants, and keep nothing more of them.

    Raises:
        TimeoutError: there is more than could be deleted in time; begin again.
    """
    connection = await asyncpg.connect(**system_arguments(settings))
    try:
        async with connection.transaction():
            await connection.execute(_WAIT_FOR_WRITERS)
            await connection.execute(_NOTE, account_id, clock.now())
        await _delete(connection, _ERASE, account_id, run_seconds=run_seconds)
        if await connection.fetchval(
            "SELECT EXISTS (SELECT FROM inference_captures WHERE account_id = $1)", account_id
        ):
            raise TimeoutError
    finally:
        await connection.close()


async def _delete(
    connection: "asyncpg.Connection[asyncpg.Record]",
    statement: str,
    which: AccountId | datetime,
    *,
    run_seconds: float,
) -> int:
    deleted, until = 0, time.monotonic() + run_seconds
    while time.monotonic() < until:
        done = await connection.execute(statement, which, SLICE)
        count = int(done.rpartition(" ")[2])
        deleted += count
        if count < SLICE:
            break
    return deleted
