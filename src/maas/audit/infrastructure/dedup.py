"""Forgetting event ids that no redelivery will bring back soon."""

import time
from typing import Final

import asyncpg

from maas.audit.application.flush import LogUnavailableError
from maas.audit.infrastructure.ledger import REMEMBERED
from maas.shared.infrastructure.database import system_arguments
from maas.shared.infrastructure.settings import DatabaseSettings

SLICE: Final = 10_000
RUN_SECONDS: Final = 30.0

# In the order of the index, so that a slice costs what it deletes and no more.
_PRUNE: Final = """
    DELETE FROM audit_dedup WHERE event_id = ANY (ARRAY(
        SELECT event_id FROM audit_dedup WHERE recorded_at < clock_timestamp() - $1::interval
        ORDER BY recorded_at LIMIT $2))
"""


async def prune_dedup(
    settings: DatabaseSettings, *, slice_size: int = SLICE, run_seconds: float = RUN_SECONDS
) -> tuple[int, bool]:
    """Forget ids of events recorded over seven days ago; return how many, and if more are left.

    The log itself is asked about anything older that is delivered again.

    Raises:
        LogUnavailableError: PostgreSQL does not answer; what is gone stays gone.
    """
    until = time.monotonic() + run_seconds
    pruned, last = 0, slice_size
    try:
        connection = await asyncpg.connect(**system_arguments(settings))
        try:
            while last == slice_size and time.monotonic() < until:
                done = await connection.execute(_PRUNE, REMEMBERED, slice_size)
                last = int(done.rpartition(" ")[2])
                pruned += last
        finally:
            await connection.close()
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as exc:
        raise LogUnavailableError(type(exc).__name__) from exc
    return pruned, last == slice_size
