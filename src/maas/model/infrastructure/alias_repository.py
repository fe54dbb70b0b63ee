"""Loading and keeping aliases, one move after the other."""

from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncSession

from maas.model.domain.alias import Alias, AliasMove, AliasName
from maas.model.infrastructure.alias_tables import model_aliases
from maas.model.public import ModelId, VersionId
from maas.shared.domain.ids import TenantId


class SqlAliasRepository:
    def __init__(self, session: AsyncSession, tenant_id: TenantId | None) -> None:
        self._session = session
        self._tenant_id = tenant_id

    async def get(self, model_id: ModelId, name: AliasName) -> Alias:
        # Of a row that is not there, two at once could both make the first move.
        await self._session.execute(
            upsert(model_aliases)
            .values(model_id=model_id, name=name, tenant_id=self._tenant_id, sequence=0)
            .on_conflict_do_nothing()
        )
        found = await self._session.scalars(
            select(Alias)
            .where(
                model_aliases.c.model_id == model_id,
                model_aliases.c.name == name,
                model_aliases.c.tenant_id == self._tenant_id,
            )
            .with_for_update(key_share=True)
        )
        return found.one()

    async def count(self, model_id: ModelId) -> int:
        await self._session.execute(
            select(
                func.pg_advisory_xact_lock(
                    func.hashtextextended(f"maas.model_aliases {model_id}", 0)
                )
            )
        )
        found = await self._session.scalar(
            select(func.count())
            .select_from(model_aliases)
            .where(model_aliases.c.model_id == model_id, model_aliases.c.version_id.is_not(None))
        )
        return int(found or 0)

    async def now(self) -> datetime:
        # Not part of the statement that locks: that one may read the clock before it waits.
        at: datetime = (await self._session.execute(select(func.clock_timestamp()))).scalar_one()
        return at

    def add_move(self, move: AliasMove) -> None:
        self._session.add(move)

    async def list_names(self, version_id: VersionId) -> list[str]:
        found = await self._session.scalars(
            select(model_aliases.c.name)
            .where(model_aliases.c.version_id == version_id)
            .order_by(model_aliases.c.name)
        )
        return [str(name) for name in found]
