"""Bookings of storage that the quotas have yet to be told of."""

from collections.abc import Sequence
from typing import Final
from uuid import UUID

import asyncpg
import structlog

from maas.model.application.storage import STORAGE_LABEL
from maas.model.infrastructure.payers import act_in, read_hold, read_payer
from maas.shared.domain.ids import TenantId
from maas.shared.infrastructure.database import Database, system_arguments
from maas.shared.infrastructure.settings import DatabaseSettings
from maas.user.public import Budgets, Payer, QuotaUnavailableError, UsageFigures

SLICE: Final = 500
REQUEST_ID: Final = "storage.book"

FORGET: Final = "DELETE FROM storage_bookings WHERE id = ANY ($1::uuid[])"
NEXT: Final = """
SELECT seq, id, tenant_id, kind, hold_id, made_at, account_id, actor_kind, api_key_id, size
FROM storage_bookings WHERE seq > $1 AND NOT tenant_id = ANY ($2::uuid[]) ORDER BY seq LIMIT $3
"""

_log = structlog.get_logger(__name__)


class PostgresStorageBookings:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def forget(self, tenant_id: TenantId, booking_ids: Sequence[UUID]) -> None:
        try:
            async with self._database.acquire() as connection, connection.transaction():
                await act_in(connection, tenant_id)
                await connection.execute(FORGET, booking_ids)
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as exc:
            # A task finds them, and finds them booked.
            _log.warning("storage_bookings_left", error=type(exc).__name__)


async def book_due(settings: DatabaseSettings, budgets: Budgets) -> int:
    """Tell the quotas of what files took and gave back, in that order; tell how much there was.

    A tenant whose booking fails waits until the next time, so that nothing overtakes it.
    """
    connection = await asyncpg.connect(**system_arguments(settings))
    booked, after = 0, 0
    stuck: list[UUID] = []
    try:
        while rows := await connection.fetch(NEXT, after, stuck, SLICE):
            after = rows[-1]["seq"]
            done = [row["id"] for row in rows if await _book(budgets, row, stuck)]
            await connection.execute(FORGET, done)
            booked += len(done)
    finally:
        await connection.close()
    return booked


async def _book(budgets: Budgets, row: asyncpg.Record, stuck: list[UUID]) -> bool:
    if row["tenant_id"] in stuck:
        return False
    payer, size = read_payer(row), row["size"]
    try:
        if row["kind"] == "give_back":
            await _change(budgets, payer, row, -size)
        elif row["kind"] == "release":
            await budgets.release(read_hold(row, payer))
        elif not await budgets.settle(read_hold(row, payer), UsageFigures(storage_bytes=size)):
            # The lease ended first, and so nothing was booked of what is stored all the same.
            await _change(budgets, payer, row, size)
    except QuotaUnavailableError:
        _log.warning("storage_booking_put_off", tenant_id=str(row["tenant_id"]))
        stuck.append(row["tenant_id"])
        return False
    return True


async def _change(budgets: Budgets, payer: Payer, row: asyncpg.Record, size: int) -> None:
    await budgets.book_storage(
        payer,
        size,
        booking_id=row["id"],
        at=row["made_at"],
        label=STORAGE_LABEL,
        request_id=REQUEST_ID,
    )
