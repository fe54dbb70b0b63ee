"""How far uploads have come, noted part by part by raw asyncpg."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from maas.model.domain.blob import Digest, Part
from maas.model.domain.resumable import ResumableUpload, UploadId, UploadNotFoundError
from maas.model.infrastructure.payers import act_in, read_hold, read_payer
from maas.model.infrastructure.upload_rows import read_upload
from maas.shared.domain.ids import AccountId, TenantId
from maas.shared.infrastructure.database import Database, PooledConnection
from maas.user.public import Hold

_COLUMNS: Final = """
id, tenant_id, account_id, actor_kind, api_key_id, kind, concat, metadata, model_id, version_id,
version, path, media_type, sha256, length, received, part_count, state, problem_code,
problem_detail, created_at, updated_at, expires_at
"""
GET: Final = f"""
SELECT {_COLUMNS} FROM uploads
WHERE id = $1 AND ($2::uuid IS NULL OR account_id = $2)
  AND (state <> 'uploading' OR expires_at > clock_timestamp())
"""  # noqa: S608  no input in it
FIND_FINAL: Final = f"""
SELECT {_COLUMNS} FROM uploads WHERE tenant_id = $1 AND account_id = $2 AND concat = $3
  AND metadata IS NOT DISTINCT FROM $4
ORDER BY created_at DESC LIMIT 1
"""  # noqa: S608  no input in it
BEGIN: Final = """
UPDATE uploads SET writer = $2, expires_at = $4, updated_at = clock_timestamp()
WHERE id = $1 AND received = $3 AND state = 'uploading' AND kind <> 'final'
"""
LEAVE: Final = """
UPDATE uploads SET expires_at = $4
WHERE id = $1 AND writer = $2 AND received = $3 AND state = 'uploading'
"""
ADD: Final = """
UPDATE uploads SET received = received + $4, part_count = part_count + $5,
    state = CASE WHEN kind <> 'partial' AND received + $4 = length THEN 'verifying'
        ELSE state END,
    updated_at = clock_timestamp(), expires_at = $6
WHERE id = $1 AND writer = $2 AND received = $3 AND state = 'uploading'
RETURNING part_count
"""
ADD_PART: Final = """
INSERT INTO upload_parts (upload_id, index, tenant_id, key, size, part_sha256)
VALUES ($1, $2, $3, $4, $5, $6)
"""
LIST_PARTS: Final = """
SELECT key, size, part_sha256 FROM upload_parts WHERE upload_id = $1 ORDER BY index
"""
LIST_HOLDS: Final = """
SELECT hold_id, tenant_id, account_id, actor_kind, api_key_id, size, made_at
FROM upload_holds WHERE upload_id = $1 AND NOT is_settled ORDER BY made_at, hold_id
"""
FAIL: Final = """
UPDATE uploads SET state = 'failed', problem_code = $2, problem_detail = $3,
    updated_at = clock_timestamp()
WHERE id = $1 AND state IN ('uploading', 'verifying')
"""
DROP_PARTS: Final = """
DELETE FROM upload_parts WHERE upload_id = $1 RETURNING index, key, size, part_sha256
"""
DROP_HOLDS: Final = "DELETE FROM upload_holds WHERE upload_id = $1"


class PostgresUploadJournal:
    """The journal."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(
        self, tenant_id: TenantId, upload_id: UploadId, account_id: AccountId | None
    ) -> ResumableUpload:
        async with self._database.tenant(tenant_id) as connection:
            row = await connection.fetchrow(GET, upload_id, account_id)
        if row is None:
            raise UploadNotFoundError
        return read_upload(row)

    async def find_final(
        self, tenant_id: TenantId, account_id: AccountId, concat: str, metadata: str | None
    ) -> ResumableUpload | None:
        async with self._database.tenant(tenant_id) as connection:
            row = await connection.fetchrow(FIND_FINAL, tenant_id, account_id, concat, metadata)
        return None if row is None else read_upload(row)

    async def begin(
        self, upload: ResumableUpload, *, writer: UUID, offset: int, expires_at: datetime
    ) -> bool:
        async with self._writing(upload.payer.tenant_id) as connection:
            done = await connection.execute(BEGIN, upload.id, writer, offset, expires_at)
        return bool(done == "UPDATE 1")

    async def leave(
        self, upload: ResumableUpload, *, writer: UUID, offset: int, expires_at: datetime
    ) -> None:
        async with self._writing(upload.payer.tenant_id) as connection:
            await connection.execute(LEAVE, upload.id, writer, offset, expires_at)

    async def add(
        self,
        upload: ResumableUpload,
        *,
        writer: UUID,
        offset: int,
        parts: Sequence[Part],
        expires_at: datetime,
    ) -> bool:
        tenant_id = upload.payer.tenant_id
        size = sum(part.size for part in parts)
        async with self._writing(tenant_id) as connection:
            count = await connection.fetchval(
                ADD, upload.id, writer, offset, size, len(parts), expires_at
            )
            if count is None:
                return False
            first = count - len(parts)
            await connection.executemany(
                ADD_PART,
                [
                    (upload.id, index, tenant_id, part.key, part.size, part.sha256.value)
                    for index, part in enumerate(parts, start=first)
                ],
            )
        return True

    async def list_parts(self, tenant_id: TenantId, upload_id: UploadId) -> list[Part]:
        async with self._database.tenant(tenant_id) as connection:
            rows = await connection.fetch(LIST_PARTS, upload_id)
        return [_part(row) for row in rows]

    async def list_holds(self, tenant_id: TenantId, upload_id: UploadId) -> list[Hold]:
        async with self._database.tenant(tenant_id) as connection:
            rows = await connection.fetch(LIST_HOLDS, upload_id)
        return [read_hold(row, read_payer(row)) for row in rows]

    async def fail(self, upload: ResumableUpload, *, code: str, detail: str) -> list[Part]:
        async with self._writing(upload.payer.tenant_id) as connection:
            if await connection.execute(FAIL, upload.id, code, detail) != "UPDATE 1":
                return []
            await connection.execute(DROP_HOLDS, upload.id)
            rows = await connection.fetch(DROP_PARTS, upload.id)
        return [_part(row) for row in sorted(rows, key=lambda row: int(row["index"]))]

    @asynccontextmanager
    async def _writing(self, tenant_id: TenantId) -> AsyncIterator[PooledConnection]:
        async with self._database.acquire() as connection, connection.transaction():
            await act_in(connection, tenant_id)
            yield connection


def _part(row: Any) -> Part:
    return Part(key=row["key"], size=row["size"], sha256=Digest(bytes(row["part_sha256"])))
