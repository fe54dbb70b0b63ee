"""Loading and keeping quotas as they are set; triggers make and mend their balances."""

from uuid import UUID

from sqlalchemy import and_, case, func, literal, select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from typing_extensions import override

from maas.shared.domain.clock import Clock
from maas.shared.domain.ids import TenantId
from maas.shared.infrastructure.unit_of_work import AuditPort, IdempotencyPort
from maas.user.application.quota_ports import QuotaDetails
from maas.user.domain.quota import TOTAL_START, Quota, period_start, resets_at
from maas.user.infrastructure.key_repositories import SqlKeyUnitOfWork
from maas.user.infrastructure.quota_tables import quota_balances, quotas
from maas.user.public import Scope


class SqlQuotaRepository:
    def __init__(self, session: AsyncSession, tenant_id: TenantId | None, clock: Clock) -> None:
        self._session = session
        self._tenant_id = tenant_id
        self._clock = clock

    async def list_of(self, scope: Scope, subject_id: UUID) -> list[Quota]:
        statement = (
            select(Quota)
            .where(
                quotas.c.tenant_id == self._tenant_id,
                quotas.c.scope == scope,
                quotas.c.subject_id == subject_id,
            )
            .order_by(quotas.c.id)
            .with_for_update()
        )
        return list(await self._session.scalars(statement))

    def add(self, quota: Quota) -> None:
        self._session.add(quota)

    async def remove(self, quota: Quota) -> None:
        await self._session.delete(quota)
        await self._session.flush()

    async def list_details(self, scope: Scope, subject_id: UUID) -> list[QuotaDetails]:
        await self._session.flush()
        quota, balance, now = quotas.c, quota_balances.c, self._clock.now()
        start = case(
            (quota.period == "total", literal(TOTAL_START)),
            else_=literal(period_start("month", now)),
        )
        statement = (
            select(
                quota.id,
                quota.version,
                quota.scope,
                quota.meter,
                quota.period,
                quota.currency,
                quota.limit_amount.label("limit"),
                func.coalesce(balance.settled, 0).label("used"),
                func.coalesce(balance.held, 0).label("held"),
                func.coalesce(balance.is_closed, False).label("is_closed"),
            )
            .join_from(
                quotas,
                quota_balances,
                and_(balance.quota_id == quota.id, balance.period_start == start),
                isouter=True,
            )
            .where(
                quota.tenant_id == self._tenant_id,
                quota.scope == scope,
                quota.subject_id == subject_id,
            )
            .order_by(quota.meter, quota.period)
        )
        rows = (await self._session.execute(statement)).mappings()
        return [QuotaDetails(**row, resets_at=resets_at(row["period"], now)) for row in rows]


class SqlQuotaUnitOfWork(SqlKeyUnitOfWork):
    quotas: SqlQuotaRepository

    def __init__(
        self, engine: AsyncEngine, *, audit: AuditPort, idempotency: IdempotencyPort, clock: Clock
    ) -> None:
        super().__init__(engine, audit=audit, idempotency=idempotency)
        self._clock = clock

    @override
    def _open(self) -> None:
        super()._open()
        self.quotas = SqlQuotaRepository(self.session, self._acting_in, self._clock)
