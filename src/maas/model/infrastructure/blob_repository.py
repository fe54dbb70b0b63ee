"""Loading and keeping blobs, and claiming the uploads that they come of."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import delete, exists, func, insert, literal_column, select
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncSession

from maas.model.domain.blob import Blob, Digest, Part
from maas.model.infrastructure.tables import blob_parts, blobs

_SIGNED_64 = 2**63


def claim_number(upload_id: UUID) -> int:
    """Name the lock of an upload: its id's low half, the random one, as a signed number."""
    return (upload_id.int & (2 * _SIGNED_64 - 1)) - _SIGNED_64


class SqlBlobRepository:
    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def claim(self, upload_id: UUID) -> None:
        await self._session.execute(select(func.pg_advisory_xact_lock(claim_number(upload_id))))

    async def find(self, sha256: Digest) -> Blob | None:
        # One statement: between two, the collection could take the parts away.
        found = await self._session.execute(
            select(blobs.c.size.label("blob_size"), blob_parts)
            .outerjoin(blob_parts, blob_parts.c.sha256 == blobs.c.sha256)
            .where(blobs.c.sha256 == sha256)
            .order_by(blob_parts.c.index)
        )
        rows = found.all()
        if not rows:
            return None
        parts = tuple(
            Part(key=row.key, size=row.size, sha256=row.part_sha256)
            for row in rows
            if row.key is not None
        )
        return Blob(sha256=sha256, size=rows[0].blob_size, parts=parts)

    async def keep(self, blob: Blob, *, at: datetime, instead_of: Blob | None = None) -> bool:
        # An update that changes nothing locks the row, where DO NOTHING would not even see it.
        statement = upsert(blobs).values(sha256=blob.sha256, size=blob.size, created_at=at)
        is_new = await self._session.scalar(
            statement.on_conflict_do_update(
                index_elements=[blobs.c.sha256], set_={"size": blobs.c.size}
            ).returning(literal_column("xmax = 0"))
        )
        if not is_new:
            if instead_of is None or not await self.holds(instead_of.parts[0].key):
                return False
            await self._session.execute(
                delete(blob_parts).where(blob_parts.c.sha256 == blob.sha256)
            )
        if blob.parts:
            await self._session.execute(
                insert(blob_parts),
                [
                    {
                        "sha256": blob.sha256,
                        "index": index,
                        "key": part.key,
                        "size": part.size,
                        "part_sha256": part.sha256,
                    }
                    for index, part in enumerate(blob.parts)
                ],
            )
        return True

    async def holds(self, key: str) -> bool:
        return bool(await self._session.scalar(select(exists().where(blob_parts.c.key == key))))
