"""Room for bytes: held before the first one comes, charged once a file refers to them."""

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, Protocol
from uuid import UUID

import structlog

from maas.model.domain.file import FilePath
from maas.model.public import VersionId
from maas.shared.domain.call import current_call
from maas.shared.domain.clock import Clock
from maas.shared.domain.ids import TenantId
from maas.user.public import Amounts, Budgets, Hold, Payer, QuotaUnavailableError, UsageFigures

STORAGE_LABEL: Final = "storage"
"""What the ledger has in place of a model's name."""

LEASE: Final = timedelta(minutes=15)
STEP_BYTES: Final = 64 * 1024 * 1024
"""By so much grows the room of a body whose size nobody announced."""

NOTHING: Final = Amounts(requests=0)

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Booking:
    """What a transaction wrote down of a hold it settles: so many bytes of it."""

    id: UUID
    hold: Hold
    size: int


class ChargeRepository(Protocol):
    async def charge(
        self, version_id: VersionId, path: FilePath, payer: Payer, bookings: Sequence[Booking]
    ) -> None:
        """Charge the payer for the file that is under the path now, by these parts of holds.

        Whoever was charged for the file that was there is given it back.
        """
        ...


class StorageBookings(Protocol):
    async def forget(self, tenant_id: TenantId, booking_ids: Sequence[UUID]) -> None:
        """Have bookings done that the quotas know of; a task does what is left."""
        ...


@dataclass(slots=True, kw_only=True)
class StorageReservation:
    """What is held of the payer's storage for one file on its way."""

    budgets: Budgets
    bookings: StorageBookings
    clock: Clock
    payer: Payer
    lease: timedelta = LEASE
    holds: list[Hold] = field(default_factory=list)
    renewed_at: datetime = field(init=False)

    def __post_init__(self) -> None:
        self.renewed_at = self.clock.now()

    @property
    def size(self) -> int:
        """How many bytes are held."""
        return sum(hold.granted.storage_bytes for hold in self.holds)

    async def cover(self, size: int, *, step: int = 1) -> None:
        """Hold at least so many bytes in all; what is added is a step, if so much is left.

        Raises:
            QuotaExceededError: a quota of storage does not cover it.
            QuotaUnavailableError: nobody can tell at the moment.
        """
        missing = size - self.size
        if missing > 0:
            hold = await self.budgets.reserve(
                self.payer,
                Amounts(requests=0, storage_bytes=max(missing, step)),
                least=Amounts(requests=0, storage_bytes=missing),
                lease=self.lease,
                model=STORAGE_LABEL,
                request_id=current_call().request_id,
            )
            self.holds.append(hold)

    async def keep(self) -> None:
        """Begin the leases anew once a third of their time is over."""
        now = self.clock.now()
        if now - self.renewed_at < self.lease / 3:
            return
        self.renewed_at = now
        await self.renew()

    async def renew(self) -> None:
        """Begin the leases anew now."""
        for hold in self.holds:
            try:
                await self.budgets.progress(hold, NOTHING)
            except QuotaUnavailableError:
                # There are more tries before the lease ends, and what is booked late is exact.
                _log.warning("storage_lease_not_renewed", hold_id=str(hold.id))

    async def fill(
        self, body: AsyncIterable[bytes], *, announced: int | None
    ) -> AsyncIterator[bytes]:
        """Pass a body on, with room for each byte before it goes further.

        Raises:
            QuotaExceededError, QuotaUnavailableError: as `cover`.
        """
        step = 1 if announced is not None else STEP_BYTES
        arrived = 0
        async for chunk in body:
            arrived += len(chunk)
            await self.cover(arrived, step=step)
            await self.keep()
            yield chunk

    def split(self, size: int, ids: Sequence[UUID]) -> list[Booking]:
        """Say how much of each hold a file of this size takes; `ids` are for the bookings."""
        found, left = [], size
        for hold, booking_id in zip(self.holds, ids, strict=True):
            taken = min(left, hold.granted.storage_bytes)
            if taken:
                found.append(Booking(id=booking_id, hold=hold, size=taken))
                left -= taken
        return found

    async def settle(self, bookings: Sequence[Booking]) -> None:
        """Tell the quotas what a file has taken, and give the rest back; a task does what fails."""
        settled = {booking.hold.id for booking in bookings}
        await self._release(hold for hold in self.holds if hold.id not in settled)
        done = [booking.id for booking in bookings if await self._is_settled(booking)]
        if done:
            await self.bookings.forget(self.payer.tenant_id, done)

    async def release(self) -> None:
        """Give all of it back; what cannot be given back now ends with its lease."""
        await self._release(self.holds)

    async def _is_settled(self, booking: Booking) -> bool:
        try:
            return await self.budgets.settle(booking.hold, UsageFigures(storage_bytes=booking.size))
        except QuotaUnavailableError:
            return False

    async def _release(self, holds: Iterable[Hold]) -> None:
        for hold in holds:
            try:
                await self.budgets.release(hold)
            except QuotaUnavailableError:
                _log.warning("storage_hold_left", hold_id=str(hold.id))
