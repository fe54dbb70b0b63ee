"""Idempotency-Keys of calls in PostgreSQL: a statement to take one, and none for who brings none.

Keys and bodies are kept as digests under the server's secret, so nobody who reads the table can try
out what a prompt was.
"""

import asyncio
import hmac
from datetime import timedelta
from typing import Final

import asyncpg
import structlog

from maas.inference.application.replays import (
    AlreadyProcessedError,
    ReplayKey,
    ReplaysUnavailableError,
)
from maas.shared.domain.clock import Clock
from maas.shared.domain.idempotency import IdempotencyKeyReusedError
from maas.shared.infrastructure.database import Database, system_arguments
from maas.shared.infrastructure.settings import DatabaseSettings

log = structlog.get_logger(__name__)

LIFETIME: Final = timedelta(hours=24)
PATIENCE_SECONDS: Final = 1.9

_CLAIM: Final = "SELECT * FROM replay_claim($1, $2, $3, $4, $5)"
_FREE: Final = "SELECT replay_free($1, $2, $3, $4)"
_FAULTS: Final = (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError)


class PostgresReplays:
    """The port, over the pool of hot reads."""

    def __init__(self, database: Database, *, secret_key: str) -> None:
        self._database = database
        self._secret = hmac.digest(secret_key.encode(), b"maas replays", "sha256")

    async def claim(self, key: ReplayKey, *, request_id: str) -> None:
        whose = (key.tenant_id, key.credential_id, self._digest(key.key.encode()))
        try:
            async with asyncio.timeout(PATIENCE_SECONDS), self._database.acquire() as connection:
                first = await connection.fetchrow(
                    _CLAIM, *whose, self._digest(key.body_digest), request_id
                )
        except _FAULTS as exc:
            raise ReplaysUnavailableError from exc
        if first is None:
            return
        if not first["is_same"]:
            raise IdempotencyKeyReusedError("Make a new key for a new request.")
        raise AlreadyProcessedError(first["first_request"])

    async def free(self, key: ReplayKey, *, request_id: str) -> None:
        whose = (key.tenant_id, key.credential_id, self._digest(key.key.encode()))
        try:
            async with asyncio.timeout(PATIENCE_SECONDS), self._database.acquire() as connection:
                await connection.execute(_FREE, *whose, request_id)
        except _FAULTS as exc:
            log.warning("replay_not_freed", request_id=request_id, error=type(exc).__name__)

    def _digest(self, content: bytes) -> bytes:
        return hmac.digest(self._secret, content, "sha256")


async def prune_replays(settings: DatabaseSettings, *, clock: Clock) -> int:
    """Forget keys of over a day ago, of all tenants, as `maas_system`; tell how many."""
    connection = await asyncpg.connect(**system_arguments(settings))
    try:
        done = await connection.execute(
            "DELETE FROM inference_replays WHERE made_at <= $1", clock.now() - LIFETIME
        )
    finally:
        await connection.close()
    return int(done.rpartition(" ")[2])
