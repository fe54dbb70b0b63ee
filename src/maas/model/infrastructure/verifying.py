"""Which uploads wait for their digest, as the system role: they are those of all tenants."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

import asyncpg

from maas.model.domain.resumable import UploadId
from maas.shared.domain.ids import TenantId
from maas.shared.infrastructure.database import system_arguments
from maas.shared.infrastructure.settings import DatabaseSettings

CANDIDATES: Final = 10

# Whoever had all bytes in order, or few enough, is about to complete it without us.
_WAITING: Final = """
    SELECT id, tenant_id FROM uploads
    WHERE state = 'verifying' AND updated_at < clock_timestamp() - interval '2 seconds'
      AND id <> ALL ($1::uuid[])
    ORDER BY updated_at LIMIT $2
"""
_TAKE: Final = "SELECT pg_try_advisory_lock(hashtextextended('maas.model.digest:' || $1::text, 0))"


class PostgresVerifyingUploads:
    def __init__(self, settings: DatabaseSettings) -> None:
        self._settings = settings

    @asynccontextmanager
    async def claim(
        self, *, but: Sequence[UploadId]
    ) -> AsyncIterator[tuple[TenantId, UploadId] | None]:
        # The lock lives as long as the connection, so it ends with a process that is killed.
        connection = await asyncpg.connect(**system_arguments(self._settings))
        try:
            yield await self._find(connection, but)
        finally:
            await connection.close()

    async def _find(
        self, connection: "asyncpg.Connection[asyncpg.Record]", but: Sequence[UploadId]
    ) -> tuple[TenantId, UploadId] | None:
        for row in await connection.fetch(_WAITING, list(but), CANDIDATES):
            if await connection.fetchval(_TAKE, str(row["id"])):
                return TenantId(row["tenant_id"]), UploadId(row["id"])
        return None
