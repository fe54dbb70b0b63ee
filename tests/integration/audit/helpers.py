"""The trail from all its sides, for tests that fill it, flush it and look at it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import asyncpg
from redis.typing import EncodableT

from maas.audit.application.events import QueuedEvent
from maas.audit.application.flush import FlushService
from maas.audit.domain.chain import GENESIS, leaf_of, micros, row_hash
from maas.audit.infrastructure.stream import GROUP, STREAM, entry_fields
from maas.audit.public import AuditScope, audit_scope
from maas.audit.wiring import AuditContext
from maas.shared.domain.call import Call, serving
from maas.shared.infrastructure.redis import RedisGate

Superuser: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


@dataclass(frozen=True, slots=True)
class Trail:
    """`make` composes an event, `flush` makes the flush of another process each time."""

    make: Callable[..., QueuedEvent]
    flush: Callable[..., FlushService]
    redis: RedisGate
    superuser: Superuser

    async def add(self, *events: QueuedEvent) -> None:
        """Append to the stream, as the producers do."""
        for event in events:
            await self.redis.client.xadd(STREAM, entry_fields(event))

    async def add_raw(self, **fields: bytes | str) -> None:
        raw: dict[EncodableT, EncodableT] = dict(fields.items())
        await self.redis.client.xadd(STREAM, raw)

    async def keep(self, *events: QueuedEvent) -> None:
        """Put into the outbox, long enough ago for the flush to look at."""
        await self.superuser.executemany(
            "INSERT INTO audit_outbox (event_id, tenant_id, payload, personal, created_at)"
            " VALUES ($1, $2, $3, $4, clock_timestamp() - interval '5 s')",
            [(e.id, e.tenant_id, e.payload, e.personal.to_json()) for e in events],
        )

    async def age(self) -> None:
        """Make the outbox's rows old enough for the flush to look at."""
        await self.superuser.execute(
            "UPDATE audit_outbox SET created_at = created_at - interval '5 s'"
        )

    async def entries(self) -> list[tuple[bytes, dict[bytes, bytes]]]:
        return cast(
            "list[tuple[bytes, dict[bytes, bytes]]]", await self.redis.client.xrange(STREAM)
        )

    async def logged(self) -> list[str]:
        rows = await self.superuser.fetch("SELECT event_id::text AS id FROM audit_log ORDER BY seq")
        return [row["id"] for row in rows]

    async def count(self, table: str) -> int:
        return cast("int", await self.superuser.fetchval(f"SELECT count(*) FROM {table}"))

    async def nothing_waits(self) -> bool:
        pending: Any = await self.redis.client.xpending(STREAM, GROUP)
        return (
            await self.redis.client.xlen(STREAM) == 0
            and pending["pending"] == 0
            and await self.count("audit_outbox") == 0
        )

    async def until(self, holds: Callable[[], bool], *, seconds: float = 10) -> None:
        """Wait until something holds that another task or process brings about."""
        async with asyncio.timeout(seconds):
            while not holds():  # noqa: ASYNC110  nothing of ours is told when it does
                await asyncio.sleep(0.02)

    async def check_chain(self) -> int:
        """Recompute every hash from the log's own bytes; return how many rows there are."""
        rows = await self.superuser.fetch(
            "SELECT c.*, l.payload, l.recorded_at AS log_recorded_at FROM audit_chain c"
            " JOIN audit_log l ON l.seq = c.seq ORDER BY c.seq"
        )
        last = GENESIS
        for number, row in enumerate(rows, start=1):
            at, leaf = micros(row["recorded_at"]), leaf_of(row["payload"])
            last = row_hash(last, seq=number, recorded_micros=at, leaf=leaf)
            assert row["seq"] == number
            assert row["log_recorded_at"] == row["recorded_at"]
            assert (row["leaf"], row["row_hash"]) == (leaf, last)
        head = await self.superuser.fetchrow("SELECT seq, hash FROM audit_head")
        assert head is not None
        assert (head["seq"], head["hash"]) == (len(rows), last)
        for table in ("audit_chain", "audit_log", "audit_dedup", "audit_personal"):
            assert await self.count(table) == len(rows)
        return len(rows)


def names(*events: QueuedEvent) -> list[str]:
    return [str(event.id) for event in events]


@asynccontextmanager
async def acting(audit: AuditContext, action: str = "model.created") -> AsyncIterator[AuditScope]:
    with serving(Call(request_id="r", recorder=audit.recorder, address="192.0.2.7")):
        async with audit_scope(action) as scope:
            yield scope
