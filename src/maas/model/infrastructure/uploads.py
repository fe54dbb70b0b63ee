"""Uploads in the database: begun and ended in units of work, their parts noted by raw asyncpg."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import and_, delete, exists, func, insert, or_, select, true, update
from sqlalchemy.ext.asyncio import AsyncSession

from maas.model.application.upload_ports import EarlierUpload
from maas.model.domain.blob import Digest, Part
from maas.model.domain.file import FilePath
from maas.model.domain.resumable import (
    ResumableUpload,
    Target,
    UploadEndedError,
    UploadId,
    UploadNotFoundError,
    UploadPayerError,
    UploadUnfinishedError,
)
from maas.model.domain.text import VersionName
from maas.model.infrastructure.payers import act_in, payer_columns, read_hold, read_payer
from maas.model.infrastructure.tables import models
from maas.model.infrastructure.upload_tables import (
    upload_holds,
    upload_parts,
    uploads,
)
from maas.model.public import ModelId, VersionId
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
MAX_NAMED: Final = 100
_OPEN: Final = ("uploading", "verifying")
DROP_HOLDS: Final = "DELETE FROM upload_holds WHERE upload_id = $1"


class SqlUploadRepository:
    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def count(self, account_id: AccountId) -> int:
        await self._session.execute(
            select(
                func.pg_advisory_xact_lock(func.hashtextextended(f"maas.uploads {account_id}", 0))
            )
        )
        found = await self._session.scalar(
            select(func.count())
            .select_from(uploads)
            .where(uploads.c.account_id == account_id, uploads.c.state.in_(_OPEN))
        )
        return int(found or 0)

    async def add(self, upload: ResumableUpload, holds: Sequence[Hold]) -> None:
        await self._session.execute(insert(uploads).values(**_values(upload)))
        if holds:
            await self._session.execute(
                insert(upload_holds),
                [
                    {
                        "hold_id": hold.id,
                        "upload_id": upload.id,
                        "size": hold.granted.storage_bytes,
                        "made_at": hold.created_at,
                        "is_settled": False,
                        **payer_columns(hold.payer),
                    }
                    for hold in holds
                ],
            )

    async def concatenate(
        self,
        final: ResumableUpload,
        partials: Sequence[UploadId],
        account_id: AccountId,
        *,
        check: Callable[[ResumableUpload], None],
    ) -> ResumableUpload:
        rows = await self._session.execute(
            select(uploads)
            .where(uploads.c.id.in_(partials), uploads.c.account_id == account_id)
            .order_by(uploads.c.id)
            .with_for_update()
        )
        found = {row.id: row for row in rows}
        if len(found) < len(partials):
            raise UploadNotFoundError
        if any(
            row.kind != "partial" or row.state != "uploading" or row.received != row.length
            for row in found.values()
        ):
            raise UploadUnfinishedError
        if any(read_payer(row._mapping) != final.payer for row in found.values()):  # noqa: SLF001  public, in spite of its name
            raise UploadPayerError
        length = sum(row.length for row in found.values())
        count = sum(row.part_count for row in found.values())
        whole = _with_bytes(final, length=length, part_count=count)
        check(whole)
        await self.add(whole, ())
        first = 0
        for partial in partials:
            await self._session.execute(
                update(upload_parts)
                .where(upload_parts.c.upload_id == partial)
                .values(upload_id=final.id, index=upload_parts.c.index + first)
            )
            first += found[partial].part_count
        await self._session.execute(
            update(upload_holds)
            .where(upload_holds.c.upload_id.in_(partials))
            .values(upload_id=final.id)
        )
        await self._session.execute(delete(uploads).where(uploads.c.id.in_(partials)))
        return whole

    async def list_earlier(
        self, account_id: AccountId, version_id: VersionId, path: FilePath
    ) -> list[EarlierUpload]:
        found = await self._session.scalars(
            select(uploads.c.id)
            .where(
                uploads.c.version_id == version_id,
                uploads.c.path == str(path),
                uploads.c.account_id == account_id,
                uploads.c.state.in_(_OPEN),
            )
            .order_by(uploads.c.id)
            .with_for_update()
        )
        earlier = {upload_id: EarlierUpload(UploadId(upload_id), []) for upload_id in found}
        rows = await self._session.execute(
            select(upload_holds).where(upload_holds.c.upload_id.in_(earlier))
        )
        for row in rows.mappings():
            earlier[row["upload_id"]].holds.append(read_hold(row, read_payer(row)))
        return list(earlier.values())

    async def remove(
        self, upload_id: UploadId, account_id: AccountId, *, is_manager: bool = False
    ) -> list[Part]:
        into_model_of_theirs = exists().where(
            models.c.id == uploads.c.model_id,
            models.c.tenant_id == uploads.c.tenant_id,
            true() if is_manager else models.c.owner_id == account_id,
        )
        found = await self._session.scalar(
            select(uploads.c.id)
            .where(
                uploads.c.id == upload_id,
                or_(uploads.c.account_id == account_id, into_model_of_theirs),
            )
            .with_for_update(of=uploads)
        )
        if found is None:
            raise UploadNotFoundError
        rows = await self._session.execute(
            select(upload_parts.c.key, upload_parts.c.size, upload_parts.c.part_sha256)
            .where(upload_parts.c.upload_id == upload_id)
            .order_by(upload_parts.c.index)
        )
        parts = [Part(key=row.key, size=row.size, sha256=row.part_sha256) for row in rows]
        await self._session.execute(delete(uploads).where(uploads.c.id == upload_id))
        return parts

    async def finish(self, upload_id: UploadId, at: datetime) -> None:
        done = await self._session.scalar(
            update(uploads)
            .where(uploads.c.id == upload_id, uploads.c.state == "verifying")
            .values(state="done", updated_at=at)
            .returning(uploads.c.id)
        )
        if done is None:
            raise UploadEndedError("done")
        await self._session.execute(
            update(upload_holds)
            .where(upload_holds.c.upload_id == upload_id)
            .values(is_settled=True)
        )
        await self._session.execute(
            delete(upload_parts).where(upload_parts.c.upload_id == upload_id)
        )

    async def list_under_way(self, version_id: VersionId, at: datetime) -> list[UploadId]:
        found = await self._session.scalars(
            select(uploads.c.id)
            .where(
                uploads.c.version_id == version_id,
                or_(
                    uploads.c.state == "verifying",
                    and_(uploads.c.state == "uploading", uploads.c.expires_at > at),
                ),
            )
            .order_by(uploads.c.id)
            .limit(MAX_NAMED)
        )
        return [UploadId(upload_id) for upload_id in found]


class PostgresUploads:
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


def _with_bytes(upload: ResumableUpload, *, length: int, part_count: int) -> ResumableUpload:
    return replace(upload, length=length, offset=length, part_count=part_count, state="verifying")


def _values(upload: ResumableUpload) -> dict[str, Any]:
    target = upload.target
    return {
        "id": upload.id,
        **payer_columns(upload.payer),
        "kind": upload.kind,
        "concat": upload.concat,
        "metadata": upload.metadata,
        "model_id": None if target is None else target.model_id,
        "version_id": None if target is None else target.version_id,
        "version": None if target is None else str(target.version),
        "path": None if target is None else str(target.path),
        "media_type": None if target is None else target.media_type,
        "sha256": None if target is None else target.sha256,
        "length": upload.length,
        "received": upload.offset,
        "part_count": upload.part_count,
        "state": upload.state,
        "created_at": upload.created_at,
        "updated_at": upload.updated_at,
        "expires_at": upload.expires_at,
    }


def read_upload(row: Any) -> ResumableUpload:
    """Make an upload of its row, as asyncpg gives it."""
    return ResumableUpload(
        id=UploadId(row["id"]),
        payer=read_payer(row),
        kind=row["kind"],
        concat=row["concat"],
        metadata=row["metadata"],
        target=_target(row),
        length=row["length"],
        offset=row["received"],
        part_count=row["part_count"],
        state=row["state"],
        problem_code=row["problem_code"],
        problem_detail=row["problem_detail"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        expires_at=row["expires_at"],
    )


def _target(row: Any) -> Target | None:
    if row["version_id"] is None:
        return None
    announced = row["sha256"]
    return Target(
        model_id=ModelId(row["model_id"]),
        version_id=VersionId(row["version_id"]),
        version=VersionName(row["version"]),
        path=FilePath(row["path"]),
        media_type=row["media_type"],
        sha256=None if announced is None else Digest(bytes(announced)),
    )
