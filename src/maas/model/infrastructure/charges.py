"""Storage that files are charged for, with the bookings that follow from it."""

from collections.abc import Sequence

from sqlalchemy import delete, insert
from sqlalchemy.ext.asyncio import AsyncSession

from maas.model.application.storage import Booking
from maas.model.domain.file import FilePath
from maas.model.infrastructure.payers import payer_columns
from maas.model.infrastructure.upload_tables import file_charges, storage_bookings
from maas.model.public import VersionId
from maas.user.public import Payer


class SqlChargeRepository:
    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def charge(
        self, version_id: VersionId, path: FilePath, payer: Payer, bookings: Sequence[Booking]
    ) -> None:
        # The file's own row is what a charge refers to.
        await self._session.flush()
        await self._session.execute(
            delete(file_charges).where(
                file_charges.c.version_id == version_id, file_charges.c.path == path
            )
        )
        if not bookings:
            return
        size = sum(booking.size for booking in bookings)
        await self._session.execute(
            insert(file_charges).values(
                version_id=version_id, path=path, size=size, **payer_columns(payer)
            )
        )
        await self._session.execute(
            insert(storage_bookings),
            [
                {
                    "id": booking.id,
                    "kind": "settle",
                    "hold_id": booking.hold.id,
                    "made_at": booking.hold.created_at,
                    "size": booking.size,
                    **payer_columns(booking.hold.payer),
                }
                for booking in bookings
            ],
        )
