"""Idempotency-Keys of calls in PostgreSQL: a statement to take one, and none for who brings none.

Keys and bodies are kept as digests under the server's secret, so nobody who reads the table can try
out what a prompt was.
"""

import asyncio
import hmac
import time
from contextvars import Context
from datetime import datetime, timedelta
from typing import Final, TypeAlias
from uuid import UUID

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

INSISTENCE_SECONDS: Final = 60.0
"""For so long a key is given back again and again, whoever waits for it."""

PAUSE_SECONDS: Final = 1.0
MARGIN_SECONDS: Final = 1.0
"""So long after its time-out a statement that was given up on is done or undone."""

CLOSE_SECONDS: Final = 2.0

RUN_SECONDS: Final = 20.0
SLICE: Final = 5_000

_PRUNE: Final = """
DELETE FROM inference_replays WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM inference_replays WHERE made_at <= $1 LIMIT $2))
"""
_CLAIM: Final = "SELECT * FROM replay_claim($1, $2, $3, $4, $5)"
_FREE: Final = "SELECT replay_free($1, $2, $3, $4)"
_FAULTS: Final = (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError)

_Taken: TypeAlias = tuple[UUID, UUID, bytes, str]
"""A row as it is given back: the key, and whose claim it is."""


class PostgresReplays:
    """The port, over the pool of hot reads; `close` it, so that what was taken is given back."""

    def __init__(self, database: Database, *, secret_key: str) -> None:
        self._database = database
        self._secret = hmac.digest(secret_key.encode(), b"maas replays", "sha256")
        self._giving_back = set[asyncio.Task[None]]()

    async def close(self) -> None:
        if self._giving_back:
            await asyncio.wait(self._giving_back, timeout=CLOSE_SECONDS)
        for task in self._giving_back:
            task.cancel()

    async def claim(self, key: ReplayKey, *, request_id: str) -> None:
        *whose, claim = taken = self._row_of(key, request_id)
        is_sent = False
        try:
            async with asyncio.timeout(PATIENCE_SECONDS), self._database.acquire() as connection:
                is_sent = True
                first = await connection.fetchrow(
                    _CLAIM, *whose, self._digest(key.body_digest), claim
                )
        except _FAULTS as exc:
            if is_sent:
                # It may be done all the same, or be done yet.
                known_in = self._database.statement_timeout_seconds + MARGIN_SECONDS
                self._insist(taken, known_in=known_in)
            raise ReplaysUnavailableError from exc
        if first is None:
            return
        if not first["is_same"]:
            raise IdempotencyKeyReusedError("Make a new key for a new request.")
        raise AlreadyProcessedError(first["first_request"].partition(" ")[0])

    async def free(self, key: ReplayKey, *, request_id: str) -> None:
        taken = self._row_of(key, request_id)
        if not await self._give_back(taken):
            self._insist(taken, known_in=0.0)

    def _insist(self, taken: _Taken, *, known_in: float) -> None:
        # It outlives the call, and is no part of it.
        task = asyncio.create_task(
            self._give_back_at_last(taken, known_in=known_in),
            name="replays-given-back",
            context=Context(),
        )
        self._giving_back.add(task)
        task.add_done_callback(self._giving_back.discard)

    async def _give_back_at_last(self, taken: _Taken, *, known_in: float) -> None:
        """Give it back as soon as may be, and once more when no claim can come any more."""
        clock = asyncio.get_running_loop().time
        known_at = clock() + known_in
        give_up_at = known_at + INSISTENCE_SECONDS
        while clock() < give_up_at:
            await asyncio.sleep(PAUSE_SECONDS)
            is_known = clock() >= known_at
            if await self._give_back(taken) and is_known:
                return
        log.warning("replay_not_freed", request_id=taken[-1].partition(" ")[0])

    async def _give_back(self, taken: _Taken) -> bool:
        try:
            async with asyncio.timeout(PATIENCE_SECONDS), self._database.acquire() as connection:
                await connection.execute(_FREE, *taken)
        except _FAULTS:
            return False
        return True

    def _row_of(self, key: ReplayKey, request_id: str) -> _Taken:
        # Request ids are the callers' choice: what is given back late is no later call's.
        claim = f"{request_id} {key.attempt}"
        return key.tenant_id, key.credential_id, self._digest(key.key.encode()), claim

    def _digest(self, content: bytes) -> bytes:
        return hmac.digest(self._secret, content, "sha256")


async def prune_replays(settings: DatabaseSettings, *, clock: Clock) -> int:
    """Forget keys of over a day ago, of all tenants, as `maas_system`; tell how many."""
    connection = await asyncpg.connect(**system_arguments(settings))
    try:
        return await _prune(connection, clock.now() - LIFETIME)
    finally:
        await connection.close()


async def _prune(connection: "asyncpg.Connection[asyncpg.Record]", until: datetime) -> int:
    """Delete in slices, each well within a statement's time; the next run deletes what is left."""
    pruned, run_until = 0, time.monotonic() + RUN_SECONDS
    while time.monotonic() < run_until:
        done = await connection.execute(_PRUNE, until, SLICE)
        count = int(done.rpartition(" ")[2])
        pruned += count
        if count < SLICE:
            break
    return pruned
