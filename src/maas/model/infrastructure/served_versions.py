"""Versions of the registry as they are called: the `ServedVersions` port."""

from collections.abc import Collection, Mapping, Sequence
from typing import Final

import asyncpg

from maas.model.infrastructure.visibility import readable, reader
from maas.model.public import (
    ModelId,
    ServedVersion,
    Uncallable,
    VersionId,
    VersionReference,
)
from maas.shared.domain.ids import TenantId
from maas.shared.domain.principal import Principal
from maas.shared.infrastructure.database import Database

_CALLABLE: Final = frozenset({"ready", "deprecated"})

LIST_VERSIONS: Final = f"""
SELECT wanted.model_id, wanted.version AS by_version, wanted.alias AS by_alias,
    m.name AS model_name, m.framework, v.id, v.name, v.status, v.checksum, f.context_length
FROM unnest($4::uuid[], $5::text[], $6::text[]) AS wanted (model_id, version, alias)
JOIN models m ON m.id = wanted.model_id AND m.deleted_at IS NULL
LEFT JOIN model_aliases a
    ON a.model_id = m.id AND a.tenant_id = m.tenant_id AND a.name = wanted.alias
JOIN model_versions v ON v.model_id = m.id AND v.tenant_id = m.tenant_id
    AND (v.name = wanted.version OR v.id = a.version_id)
LEFT JOIN version_facts f ON f.version_id = v.id AND f.tenant_id = v.tenant_id
WHERE {readable(tenant="$1", account="$2", manager="$3")}
"""  # noqa: S608  no input in it


class PostgresServedVersions:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def find_visible(
        self, caller: Principal, wanted: Collection[VersionReference]
    ) -> frozenset[VersionReference]:
        rows = await self._list(caller.tenant_id, reader(caller), wanted)
        return frozenset(map(_reference, rows))

    async def read(
        self, tenant_id: TenantId, wanted: Collection[VersionReference]
    ) -> Mapping[VersionReference, ServedVersion | Uncallable]:
        # Whoever made the target saw the model; from then on it is the tenant's, private or not.
        as_manager = (tenant_id, None, True)
        rows = await self._list(tenant_id, as_manager, wanted)
        told: dict[VersionReference, ServedVersion | Uncallable] = dict.fromkeys(
            wanted, "not-found"
        )
        for row in rows:
            told[_reference(row)] = _version(row)
        return told

    async def _list(
        self, tenant_id: TenantId, who: Sequence[object], wanted: Collection[VersionReference]
    ) -> Sequence[asyncpg.Record]:
        if not wanted:
            return ()
        columns = zip(*((each.model_id, each.version, each.alias) for each in wanted), strict=True)
        async with self._database.tenant(tenant_id) as connection:
            rows: Sequence[asyncpg.Record] = await connection.fetch(
                LIST_VERSIONS, *who, *map(list, columns)
            )
        return rows


def _reference(row: asyncpg.Record) -> VersionReference:
    return VersionReference(
        model_id=ModelId(row["model_id"]), version=row["by_version"], alias=row["by_alias"]
    )


def _version(row: asyncpg.Record) -> ServedVersion | Uncallable:
    # A version that is ready has a checksum: it is made by becoming so.
    if row["status"] not in _CALLABLE or row["checksum"] is None:
        return "not-ready"
    return ServedVersion(
        model_id=ModelId(row["model_id"]),
        model_name=row["model_name"],
        id=VersionId(row["id"]),
        version=row["name"],
        digest=row["checksum"].hex(),
        framework=row["framework"],
        context_length=row["context_length"],
    )
