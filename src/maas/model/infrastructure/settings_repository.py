"""Keeping what a tenant lets into its versions; a tenant that never said anything has no row."""

from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncSession

from maas.model.domain.settings import ModelSettings
from maas.model.infrastructure.fact_tables import model_settings
from maas.shared.domain.ids import AccountId, TenantId


class SqlModelSettingsRepository:
    def __init__(self, session: AsyncSession, tenant_id: TenantId | None) -> None:
        self._session = session
        self._tenant_id = tenant_id

    async def get(self) -> ModelSettings:
        found = await self._session.scalar(
            select(model_settings.c.allows_pickle).where(
                model_settings.c.tenant_id == self._tenant_id
            )
        )
        return ModelSettings() if found is None else ModelSettings(allows_pickle=found)

    async def put(self, settings: ModelSettings, *, by: AccountId, at: datetime) -> ModelSettings:
        # There may be no row to lock yet, so the tenant's name is locked instead.
        await self._session.execute(
            select(
                func.pg_advisory_xact_lock(
                    func.hashtextextended(f"maas.model_settings {self._tenant_id}", 0)
                )
            )
        )
        before = await self.get()
        values = {"allows_pickle": settings.allows_pickle, "updated_by": by, "updated_at": at}
        await self._session.execute(
            upsert(model_settings)
            .values(tenant_id=self._tenant_id, **values)
            .on_conflict_do_update(index_elements=["tenant_id"], set_=values)
        )
        return before
