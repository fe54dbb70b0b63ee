"""Holds whose lease has passed are settled, so that nothing stays held for a caller who is gone."""

import asyncio
import time
from typing import Final

import structlog

from maas.shared.infrastructure.database import Database
from maas.shared.infrastructure.settings import DatabaseSettings
from maas.user.infrastructure.quota_batches import CallBatches

log = structlog.get_logger(__name__)

EXPIRED: Final = "SELECT * FROM quota_expired(clock_timestamp(), $1)"
SLICE: Final = 500
RUN_SECONDS: Final = 20.0
WORTH_SECONDS: Final = 5.0


async def expire_holds(settings: DatabaseSettings) -> int:
    """Settle what has expired to its last progress, else in full; tell how many holds that were.

    Two who do so at once settle each hold once.
    """
    database = Database(settings)
    await database.open()
    batches = CallBatches(database)
    try:
        return await _expire_for(database, batches, began=time.monotonic())
    finally:
        await batches.close()
        await database.close()


async def _expire_for(database: Database, batches: CallBatches, *, began: float) -> int:
    expired = 0
    while time.monotonic() - began < RUN_SECONDS:
        async with database.acquire() as connection:
            found = await connection.fetch(EXPIRED, SLICE)
        asks = [
            batches.ask(
                row["tenant_id"],
                {"op": "expire", "id": str(row["id"])},
                worth_seconds=WORTH_SECONDS,
                made=row["created_at"],
            )
            for row in found
        ]
        answers = await asyncio.gather(*(ask.future for ask in asks), return_exceptions=True)
        failed = [answer for answer in answers if isinstance(answer, BaseException)]
        expired += sum(
            not isinstance(answer, BaseException)
            and answer is not None
            and answer["outcome"] == "done"
            for answer in answers
        )
        if failed:
            # They are the oldest, so they would be found again and again.
            log.error("holds_not_expired", holds=len(failed), error=type(failed[0]).__name__)
            break
        if len(found) < SLICE:
            break
    if expired:
        log.info("holds_expired", holds=expired)
    return expired
