"""Uploads in units of work: begun, put together and ended."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

from sqlalchemy import and_, delete, exists, func, insert, or_, select, true, update
from sqlalchemy.ext.asyncio import AsyncSession

from maas.model.application.upload_ports import EarlierUpload
from maas.model.domain.blob import Part
from maas.model.domain.file import FilePath
from maas.model.domain.resumable import (
    ResumableUpload,
    UploadEndedError,
    UploadId,
    UploadNotFoundError,
    UploadPayerError,
    UploadUnfinishedError,
)
from maas.model.infrastructure.payers import payer_columns, read_hold, read_payer
from maas.model.infrastructure.tables import models
from maas.model.infrastructure.upload_rows import upload_columns
from maas.model.infrastructure.upload_tables import (
    upload_holds,
    upload_parts,
    uploads,
)
from maas.model.public import VersionId
from maas.shared.domain.ids import AccountId
from maas.user.public import Hold

MAX_NAMED: Final = 100
_OPEN: Final = ("uploading", "verifying")


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
        await self._session.execute(insert(uploads).values(**upload_columns(upload)))
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


def _with_bytes(upload: ResumableUpload, *, length: int, part_count: int) -> ResumableUpload:
    return replace(upload, length=length, offset=length, part_count=part_count, state="verifying")
