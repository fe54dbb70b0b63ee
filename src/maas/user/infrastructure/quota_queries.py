"""Reads of quotas: one's own, and those of whoever has some."""

from datetime import date, datetime
from uuid import UUID

import asyncpg

from maas.shared.domain.clock import Clock
from maas.shared.domain.errors import NotFoundError
from maas.shared.domain.ids import TenantId
from maas.shared.infrastructure.database import Database, PooledConnection
from maas.user.application.quota_ports import QuotaDetails, QuotaSheet, QuotaSubject, SubjectKind
from maas.user.domain.api_key import ApiKeyNotFoundError
from maas.user.domain.quota import TOTAL_START, period_start, resets_at
from maas.user.domain.service_account import ServiceAccountNotFoundError
from maas.user.domain.tenant import MemberNotFoundError, TenantNotFoundError
from maas.user.public import Payer

COLUMNS = """
q.id, q.version, q.scope, q.meter, q.period, q.currency, q.limit_amount AS "limit",
coalesce(b.settled, 0) AS used, coalesce(b.held, 0) AS held,
coalesce(b.is_closed, false) AS is_closed
"""
IN_ORDER = "array_position(ARRAY['tenant', 'user', 'key'], q.scope), q.meter, q.period"

# A period in which nothing was charged yet has no balance.
_QUOTAS = f"""
SELECT {COLUMNS} FROM quotas q LEFT JOIN quota_balances b ON b.quota_id = q.id
    AND b.period_start = CASE q.period WHEN 'total' THEN $2::date ELSE $3::date END
WHERE q.tenant_id = $1
"""  # noqa: S608  no input in it
QUOTAS_OF = f"{_QUOTAS} AND q.scope = $4 AND q.subject_id = $5 ORDER BY {IN_ORDER}"
QUOTAS_BINDING = f"""
{_QUOTAS} AND (q.scope = 'tenant' AND q.subject_id = $1
    OR q.scope = 'user' AND q.subject_id = $4 OR q.scope = 'key' AND q.subject_id = $5::uuid)
ORDER BY {IN_ORDER}
"""

_IS_THERE: dict[SubjectKind, str] = {
    "tenant": "SELECT FROM tenants WHERE id = $1 AND id = $2 AND status <> 'deleted'",
    "account": "SELECT FROM memberships WHERE tenant_id = $1 AND account_id = $2",
    "service_account": "SELECT FROM service_accounts WHERE tenant_id = $1 AND id = $2",
    "api_key": "SELECT FROM api_keys WHERE tenant_id = $1 AND id = $2"
    " AND ($3::uuid IS NULL OR account_id = $3) AND ($4::uuid IS NULL OR service_account_id = $4)",
}
_NOT_THERE: dict[SubjectKind, type[NotFoundError]] = {
    "tenant": TenantNotFoundError,
    "account": MemberNotFoundError,
    "service_account": ServiceAccountNotFoundError,
    "api_key": ApiKeyNotFoundError,
}


class PostgresQuotaQueries:
    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def get_sheet(self, tenant_id: TenantId, subject: QuotaSubject) -> QuotaSheet:
        now = self._clock.now()
        async with self._database.tenant(tenant_id) as connection:
            await _check_is_there(connection, tenant_id, subject)
            rows = await connection.fetch(
                QUOTAS_OF, *_in_period(tenant_id, now), subject.scope, subject.id
            )
        return QuotaSheet([details_of(row, at=now) for row in rows])

    async def get_binding(self, payer: Payer) -> QuotaSheet:
        now = self._clock.now()
        async with self._database.tenant(payer.tenant_id) as connection:
            rows = await connection.fetch(
                QUOTAS_BINDING,
                *_in_period(payer.tenant_id, now),
                payer.account_id,
                payer.api_key_id,
            )
        return QuotaSheet([details_of(row, at=now) for row in rows])


async def _check_is_there(
    connection: PooledConnection, tenant_id: TenantId, subject: QuotaSubject
) -> None:
    holder: list[UUID | None] = []
    if subject.holder is not None:
        holder = [subject.holder.account_id, subject.holder.service_account_id]
    found = await connection.fetchrow(_IS_THERE[subject.kind], tenant_id, subject.id, *holder)
    if found is None:
        raise _NOT_THERE[subject.kind]


def _in_period(tenant_id: TenantId, at: datetime) -> tuple[TenantId, date, date]:
    return tenant_id, TOTAL_START, period_start("month", at)


def details_of(row: asyncpg.Record, *, at: datetime) -> QuotaDetails:
    return QuotaDetails(**row, resets_at=resets_at(row["period"], at))
