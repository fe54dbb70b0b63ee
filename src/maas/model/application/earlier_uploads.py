"""What an account was sending to a path before: ended where it begins a file there again."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from maas.audit.public import audit_row, audit_scope
from maas.model.application.finishing import finish
from maas.model.application.ports import ModelUnitOfWork
from maas.model.application.storage import StorageBookings, StorageReservation
from maas.model.application.trail import MODEL_UPLOAD
from maas.model.application.upload_ports import PartStream
from maas.model.application.wanted_file import WantedFile, get_open_version
from maas.model.domain.blob import Part
from maas.model.domain.file import FilePath
from maas.model.domain.resumable import LEASE
from maas.model.public import VersionId
from maas.shared.domain.clock import Clock
from maas.user.public import Budgets, Hold, Payer

ENDED: Final = "model_upload.ended"


@dataclass(frozen=True, slots=True)
class Ended:
    """What uploads have left that another one of the same file has ended."""

    parts: list[Part] = field(default_factory=list)
    holds: list[Hold] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlierUploads:
    unit_of_work: Callable[[], ModelUnitOfWork]
    stream: PartStream
    budgets: Budgets
    bookings: StorageBookings
    clock: Clock

    def reservation_of(self, payer: Payer) -> StorageReservation:
        return StorageReservation(
            budgets=self.budgets,
            bookings=self.bookings,
            clock=self.clock,
            payer=payer,
            lease=LEASE,
        )

    async def make_room(self, payer: Payer, wanted: WantedFile, length: int) -> bool:
        """End earlier uploads of the file, if what they hold is enough; otherwise they go on."""
        async with audit_scope(ENDED) as scope:
            # Its rows are told of when they are committed; all else, by the act this is part of.
            scope.skip()
            async with self.unit_of_work() as uow:
                version = await get_open_version(uow, wanted)
                ended = await self.end(uow, payer, version.id, wanted.path)
                held = [hold for hold in ended.holds if hold.payer == payer]
                if not held or sum(hold.granted.storage_bytes for hold in held) < length:
                    return False
                await uow.commit()
        await finish(self.free(payer, ended))
        return True

    async def end(
        self, uow: ModelUnitOfWork, payer: Payer, version_id: VersionId, path: FilePath
    ) -> Ended:
        """End those to this path, in the caller's transaction; `free` what is told afterwards."""
        ended = Ended()
        for earlier in await uow.uploads.list_earlier(payer.account_id, version_id, path):
            ended.parts.extend(await uow.uploads.remove(earlier.id, payer.account_id))
            ended.holds.extend(earlier.holds)
            with audit_row(ENDED) as row:
                row.resource(MODEL_UPLOAD, earlier.id)
        return ended

    async def free(self, payer: Payer, ended: Ended) -> None:
        """Free at once what the collection and the bookings would free later."""
        if ended.parts:
            await self.stream.discard([part.key for part in ended.parts])
        if ended.holds:
            reservation = self.reservation_of(payer)
            reservation.holds.extend(ended.holds)
            await reservation.release()
