"""Looks at all balances all the time, past row-level security, and keeps what may not be."""

import asyncio
import time
from dataclasses import dataclass, field
from typing import Final

import asyncpg

from tests.quota.rig import Rig

EVERY_SECONDS: Final = 0.005
ADD_UP_EVERY_SECONDS: Final = 1.0
KEPT: Final = 20
GONE: Final = (
    OSError,
    TimeoutError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)
"""What asyncpg raises of a server that went in the middle of anything."""

ABOVE: Final = """
    SELECT q.scope, q.meter, q.period, q.limit_amount, b.settled, b.held
    FROM quotas q JOIN quota_balances b ON b.quota_id = q.id
    WHERE b.settled::numeric + b.held > q.limit_amount OR b.settled < 0 OR b.held < 0
    LIMIT 20
"""

# One statement sees one moment. What a hold lies on is every quota of its payer.
DIFFERENT: Final = """
    WITH parts AS (
        SELECT tenant_id, account_id, api_key_id, date_trunc('month', at AT TIME ZONE 'UTC')::date
                AS month, requests, input_tokens + output_tokens + reasoning_tokens AS tokens,
            cost_nanos AS cost, 0 AS held_requests, 0 AS held_tokens, 0 AS held_cost
        FROM usage
        UNION ALL
        SELECT tenant_id, account_id, api_key_id,
            date_trunc('month', created_at AT TIME ZONE 'UTC')::date,
            0, 0, 0, requests, tokens, cost_nanos
        FROM quota_holds
    ), payers AS (
        SELECT tenant_id, account_id, api_key_id, month, sum(requests) AS requests,
            sum(tokens) AS tokens, sum(cost) AS cost, sum(held_requests) AS held_requests,
            sum(held_tokens) AS held_tokens, sum(held_cost) AS held_cost
        FROM parts GROUP BY 1, 2, 3, 4
    ), counted AS (
        SELECT q.id, CASE q.period WHEN 'total' THEN date '1970-01-01' ELSE p.month END AS start,
            sum(CASE q.meter WHEN 'requests' THEN p.requests WHEN 'tokens' THEN p.tokens
                ELSE p.cost END) AS settled,
            sum(CASE q.meter WHEN 'requests' THEN p.held_requests WHEN 'tokens' THEN p.held_tokens
                ELSE p.held_cost END) AS held
        FROM quotas q JOIN payers p
            ON q.subject_id IN (p.tenant_id, p.account_id, p.api_key_id)
        GROUP BY 1, 2
    )
    SELECT q.scope, q.meter, b.settled, c.settled AS in_ledger, b.held, c.held AS in_holds
    FROM quota_balances b FULL JOIN counted c ON c.id = b.quota_id AND c.start = b.period_start
    JOIN quotas q ON q.id = coalesce(b.quota_id, c.id)
    WHERE coalesce(b.settled, 0) <> coalesce(c.settled, 0)
        OR coalesce(b.held, 0) <> coalesce(c.held, 0)
    LIMIT 20
"""


@dataclass(slots=True)
class Watch:
    """What was seen; `samples` are of all balances at one moment each."""

    rig: Rig
    samples: int = 0
    sums: int = 0
    above: list[str] = field(default_factory=list)
    different: list[str] = field(default_factory=list)
    has_seen: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once something is above its limit."""

    async def look(self) -> None:
        """Look until cancelled, through every restart of PostgreSQL."""
        while True:
            try:
                async with self.rig.superuser() as connection:
                    await self._look_with(connection)
            except GONE:
                await asyncio.sleep(0.02)

    async def _look_with(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        added_up = time.monotonic()
        while True:
            self.above += await _ask(connection, ABOVE, room=KEPT - len(self.above))
            self.samples += 1
            if self.above:
                self.has_seen.set()
            if time.monotonic() - added_up > ADD_UP_EVERY_SECONDS:
                self.different += await add_up(connection, room=KEPT - len(self.different))
                self.sums += 1
                added_up = time.monotonic()
            await asyncio.sleep(EVERY_SECONDS)


async def add_up(
    connection: "asyncpg.Connection[asyncpg.Record]", *, room: int = KEPT
) -> list[str]:
    """Name balances that are not what the ledger and the holds add up to, at one moment."""
    return await _ask(connection, DIFFERENT, room=room)


async def _ask(
    connection: "asyncpg.Connection[asyncpg.Record]", query: str, *, room: int
) -> list[str]:
    rows = await connection.fetch(query)
    return [", ".join(f"{name} {value}" for name, value in row.items()) for row in rows][:room]
