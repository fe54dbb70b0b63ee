"""Holds whose lease has passed are settled, so that nothing stays held for a caller who is gone."""

import asyncio
import time
from collections import Counter
from datetime import datetime
from typing import Final
from uuid import UUID

import structlog

from maas.shared.infrastructure.database import Database
from maas.shared.infrastructure.settings import DatabaseSettings
from maas.user.infrastructure.quota_batches import CallBatches

log = structlog.get_logger(__name__)

EXPIRED: Final = "SELECT * FROM quota_expired($1, $2, $3, $4)"
SLICE: Final = 500
RUN_SECONDS: Final = 20.0
WORTH_SECONDS: Final = 5.0

MAX_FAILURES: Final = 100
"""Of one tenant in one run: whoever has more leaves the time to the others."""


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
    failures: Counter[UUID] = Counter()
    after: tuple[datetime | None, UUID | None] = None, None
    while time.monotonic() - began < RUN_SECONDS:
        async with database.acquire() as connection:
            skipped = [tenant for tenant, count in failures.items() if count >= MAX_FAILURES]
            found = await connection.fetch(EXPIRED, SLICE, *after, skipped)
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
        failed: list[BaseException] = []
        for row, answer in zip(found, answers, strict=True):
            if isinstance(answer, BaseException):
                failed.append(answer)
                failures[row["tenant_id"]] += 1
            elif answer is not None and answer["outcome"] == "done":
                expired += 1
        if failed:
            log.error("holds_not_expired", holds=len(failed), error=type(failed[0]).__name__)
        if len(found) < SLICE:
            break
        # What failed is still there, before whatever expired later.
        after = found[-1]["lease_until"], found[-1]["id"]
    if expired:
        log.info("holds_expired", holds=expired)
    return expired
