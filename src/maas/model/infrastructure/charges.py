"""Storage that files are charged for, and bookings that the quotas have yet to be told of."""

from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

import asyncpg
import structlog
from sqlalchemy import delete, insert
from sqlalchemy.ext.asyncio import AsyncSession

from maas.model.application.storage import STORAGE_LABEL, Booking
from maas.model.domain.file import FilePath
from maas.model.infrastructure.upload_tables import file_charges, storage_bookings
from maas.model.public import VersionId
from maas.shared.domain.ids import AccountId, ApiKeyId, TenantId
from maas.shared.infrastructure.database import (
    TENANT_SETTING,
    Database,
    PooledConnection,
    system_arguments,
)
from maas.shared.infrastructure.settings import DatabaseSettings
from maas.user.public import (
    Amounts,
    Budgets,
    Hold,
    HoldId,
    Payer,
    QuotaUnavailableError,
    UsageFigures,
)

SLICE: Final = 500
REQUEST_ID: Final = "storage.book"

FORGET: Final = "DELETE FROM storage_bookings WHERE id = ANY ($1::uuid[])"
NEXT: Final = """
SELECT seq, id, tenant_id, kind, hold_id, made_at, account_id, actor_kind, api_key_id, size
FROM storage_bookings WHERE seq > $1 AND NOT tenant_id = ANY ($2::uuid[]) ORDER BY seq LIMIT $3
"""

_log = structlog.get_logger(__name__)


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


async def act_in(connection: PooledConnection, tenant_id: TenantId) -> None:
    """Let row-level security show this tenant for the rest of the transaction."""
    await connection.execute("SELECT set_config($1, $2, true)", TENANT_SETTING, str(tenant_id))


def payer_columns(payer: Payer) -> dict[str, Any]:
    return {
        "tenant_id": payer.tenant_id,
        "account_id": payer.account_id,
        "actor_kind": payer.actor_kind,
        "api_key_id": payer.api_key_id,
    }


def read_payer(row: Any) -> Payer:
    key_id = row["api_key_id"]
    return Payer(
        tenant_id=TenantId(row["tenant_id"]),
        account_id=AccountId(row["account_id"]),
        actor_kind=row["actor_kind"],
        api_key_id=None if key_id is None else ApiKeyId(key_id),
    )


def read_hold(row: Any, payer: Payer) -> Hold:
    """Name a hold that was written down; when its lease ends, the quotas know."""
    return Hold(
        id=HoldId(row["hold_id"]),
        payer=payer,
        granted=Amounts(requests=0, storage_bytes=row["size"]),
        created_at=row["made_at"],
        lease_until=row["made_at"],
    )
