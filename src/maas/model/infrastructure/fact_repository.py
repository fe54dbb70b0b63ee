"""Keeping what was read in files, and what it says of their versions."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from sqlalchemy import Table, delete, func, select
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncSession

from maas.model.domain.facts import Facts
from maas.model.domain.file import FilePath
from maas.model.infrastructure.fact_tables import (
    FACT_COLUMNS,
    version_facts,
    version_file_facts,
)
from maas.model.infrastructure.tables import model_versions
from maas.model.public import VersionId
from maas.shared.domain.ids import TenantId

VERSION_FACTS = (
    select(func.to_jsonb(version_facts.table_valued()))
    .where(
        version_facts.c.version_id == model_versions.c.id,
        version_facts.c.tenant_id == model_versions.c.tenant_id,
    )
    .correlate(model_versions)
    .scalar_subquery()
)
"""A version's facts as JSON, beside the version."""


def facts_of(row: Mapping[str, Any] | None) -> Facts | None:
    """Make facts of a row that has them, and whatever else."""
    return None if row is None else Facts(**{name: row[name] for name in FACT_COLUMNS})


class SqlFactsRepository:
    def __init__(self, session: AsyncSession, tenant_id: TenantId | None) -> None:
        self._session = session
        self._tenant_id = tenant_id

    async def put_file(self, version_id: VersionId, path: FilePath, facts: Facts | None) -> bool:
        if facts is None:
            removed = await self._session.scalar(
                delete(version_file_facts)
                .where(
                    version_file_facts.c.version_id == version_id,
                    version_file_facts.c.path == path,
                )
                .returning(version_file_facts.c.path)
            )
            return removed is not None
        # The row of the file itself comes first: the facts refer to it.
        await self._session.flush()
        await self._put(version_file_facts, {"version_id": version_id, "path": path}, facts)
        return True

    async def list_files(self, version_id: VersionId) -> Mapping[FilePath, Facts]:
        columns = [version_file_facts.c[name] for name in FACT_COLUMNS]
        rows = await self._session.execute(
            select(version_file_facts.c.path, *columns).where(
                version_file_facts.c.version_id == version_id
            )
        )
        return {
            path: Facts(**dict(zip(FACT_COLUMNS, values, strict=True))) for path, *values in rows
        }

    async def put_version(self, version_id: VersionId, facts: Facts | None) -> None:
        if facts is None:
            await self._session.execute(
                delete(version_facts).where(version_facts.c.version_id == version_id)
            )
        else:
            await self._put(version_facts, {"version_id": version_id}, facts)

    async def _put(self, table: Table, key: Mapping[str, object], facts: Facts) -> None:
        values = asdict(facts)
        await self._session.execute(
            upsert(table)
            .values(**key, tenant_id=self._tenant_id, **values)
            .on_conflict_do_update(index_elements=list(key), set_=values)
        )
