"""Reads of the registry: raw asyncpg, each in a read-only transaction of its tenant."""

from typing import TypeAlias, TypeVar

import asyncpg

from maas.model.application.queries import (
    FileDetails,
    ModelDetails,
    ModelFilter,
    StoredFile,
    VersionDetails,
)
from maas.model.domain.blob import Blob, Digest, Part
from maas.model.domain.file import FilePath
from maas.model.domain.model import ModelNotFoundError
from maas.model.domain.text import VersionName
from maas.model.domain.version import VersionFileNotFoundError, VersionNotFoundError
from maas.model.public import ModelId, VersionId
from maas.shared.domain.ids import TenantId
from maas.shared.domain.page import Page, PageRequest, Position, TextPageRequest, TextPosition
from maas.shared.infrastructure.database import Database

T = TypeVar("T", ModelDetails, VersionDetails)

_MODEL_COLUMNS = (
    "id, name, description, framework, task, licence, created_by, created_at, updated_at, revision"
)

GET_MODEL = f"""
SELECT {_MODEL_COLUMNS} FROM models WHERE id = $1 AND tenant_id = $2 AND deleted_at IS NULL
"""  # noqa: S608  no input in it

LIST_MODELS = f"""
SELECT {_MODEL_COLUMNS} FROM models
WHERE tenant_id = $1 AND deleted_at IS NULL
  AND ($2::text IS NULL OR framework = $2) AND ($3::text IS NULL OR task = $3)
  AND ($4::timestamptz IS NULL OR (created_at, id) < ($4, $5::uuid))
ORDER BY created_at DESC, id DESC LIMIT $6
"""  # noqa: S608  no input in it

COUNT_MODELS = """
SELECT count(*) FROM models
WHERE tenant_id = $1 AND deleted_at IS NULL
  AND ($2::text IS NULL OR framework = $2) AND ($3::text IS NULL OR task = $3)
"""

SEARCH_MODELS = f"SELECT {_MODEL_COLUMNS} FROM model_search($1, $2, $3, $4, $5, $6)"  # noqa: S608  no input in it

COUNT_FOUND_MODELS = "SELECT model_search_count($1, $2, $3)"

_VERSION_COLUMNS = """
v.id, v.model_id, v.name, v.status, v.status_reason, v.description, v.created_by, v.created_at,
v.updated_at, v.revision, f.file_count, f.size
"""
_FILE_TOTALS = """
CROSS JOIN LATERAL (SELECT count(*) AS file_count, coalesce(sum(size), 0)::bigint AS size
                    FROM version_files WHERE version_id = v.id) f
"""

GET_VERSION = f"""
SELECT {_VERSION_COLUMNS} FROM models m
JOIN model_versions v ON v.model_id = m.id AND v.tenant_id = m.tenant_id {_FILE_TOTALS}
WHERE m.id = $1 AND m.tenant_id = $2 AND m.deleted_at IS NULL AND v.name = $3
"""  # noqa: S608  no input in it

LIST_VERSIONS = f"""
SELECT {_VERSION_COLUMNS} FROM model_versions v {_FILE_TOTALS}
WHERE v.model_id = $1 AND v.tenant_id = $2
  AND ($3::timestamptz IS NULL OR (v.created_at, v.id) < ($3, $4::uuid))
ORDER BY v.created_at DESC, v.id DESC LIMIT $5
"""  # noqa: S608  no input in it

COUNT_VERSIONS = "SELECT count(*) FROM model_versions WHERE model_id = $1 AND tenant_id = $2"

HAS_MODEL = "SELECT 1 FROM models WHERE id = $1 AND tenant_id = $2 AND deleted_at IS NULL"

FIND_VERSION_ID = """
SELECT v.id FROM models m JOIN model_versions v ON v.model_id = m.id AND v.tenant_id = m.tenant_id
WHERE m.id = $1 AND m.tenant_id = $2 AND m.deleted_at IS NULL AND v.name = $3
"""

LIST_FILES = """
SELECT path, size, sha256, media_type, created_at FROM version_files
WHERE version_id = $1 AND tenant_id = $2 AND ($3::text IS NULL OR path > $3)
ORDER BY path LIMIT $4
"""

COUNT_FILES = "SELECT count(*) FROM version_files WHERE version_id = $1 AND tenant_id = $2"

GET_MANIFEST = """
SELECT f.sha256, f.size, p.key, p.size AS part_size, p.part_sha256
FROM version_files f LEFT JOIN blob_parts p ON p.sha256 = f.sha256
WHERE f.version_id = $1 AND f.tenant_id = $2 AND f.path = $3 ORDER BY p.index
"""


class PostgresModelQueries:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def get_model(self, tenant_id: TenantId, model_id: ModelId) -> ModelDetails:
        async with self._database.tenant(tenant_id) as connection:
            row = await connection.fetchrow(GET_MODEL, model_id, tenant_id)
        if row is None:
            raise ModelNotFoundError
        return ModelDetails(**row)

    async def list_models(
        self, tenant_id: TenantId, wanted: ModelFilter, page: PageRequest
    ) -> Page[ModelDetails]:
        at, last_id = _keyset(page)
        if wanted.search is None:
            query, count = LIST_MODELS, COUNT_MODELS
            scope: tuple[object, ...] = (tenant_id, wanted.framework, wanted.task)
        else:
            query, count = SEARCH_MODELS, COUNT_FOUND_MODELS
            scope = (wanted.search, wanted.framework, wanted.task)
        async with self._database.tenant(tenant_id) as connection:
            rows = await connection.fetch(query, *scope, at, last_id, page.limit + 1)
            total = await connection.fetchval(count, *scope) if page.include_total else None
        return _page([ModelDetails(**row) for row in rows], page, total)

    async def get_version(
        self, tenant_id: TenantId, model_id: ModelId, version: VersionName
    ) -> VersionDetails:
        async with self._database.tenant(tenant_id) as connection:
            row = await connection.fetchrow(GET_VERSION, model_id, tenant_id, version.value)
            if row is None:
                await _check_model(connection, model_id, tenant_id)
                raise VersionNotFoundError
        return _version(row)

    async def list_versions(
        self, tenant_id: TenantId, model_id: ModelId, page: PageRequest
    ) -> Page[VersionDetails]:
        at, last_id = _keyset(page)
        async with self._database.tenant(tenant_id) as connection:
            await _check_model(connection, model_id, tenant_id)
            rows = await connection.fetch(
                LIST_VERSIONS, model_id, tenant_id, at, last_id, page.limit + 1
            )
            total = None
            if page.include_total:
                total = await connection.fetchval(COUNT_VERSIONS, model_id, tenant_id)
        return _page([_version(row) for row in rows], page, total)

    async def list_files(
        self, tenant_id: TenantId, model_id: ModelId, version: VersionName, page: TextPageRequest
    ) -> Page[FileDetails, TextPosition]:
        after = None if page.after is None else page.after.text
        async with self._database.tenant(tenant_id) as connection:
            version_id = await _version_id(connection, model_id, tenant_id, version)
            rows = await connection.fetch(LIST_FILES, version_id, tenant_id, after, page.limit + 1)
            total = None
            if page.include_total:
                total = await connection.fetchval(COUNT_FILES, version_id, tenant_id)
        files = [FileDetails(**{**row, "sha256": Digest(row["sha256"])}) for row in rows]
        shown = files[: page.limit]
        last = TextPosition(shown[-1].path) if len(files) > page.limit else None
        return Page(items=shown, next=last, total=total)

    async def get_file(
        self, tenant_id: TenantId, model_id: ModelId, version: VersionName, path: FilePath
    ) -> StoredFile:
        async with self._database.tenant(tenant_id) as connection:
            version_id = await _version_id(connection, model_id, tenant_id, version)
            rows = await connection.fetch(GET_MANIFEST, version_id, tenant_id, path.value)
        if not rows:
            raise VersionFileNotFoundError
        return StoredFile(version_id=version_id, path=path, blob=_blob(rows))


_Connection: TypeAlias = "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"


def _keyset(page: PageRequest) -> tuple[object, object]:
    return (None, None) if page.after is None else (page.after.at, page.after.id)


def _page(items: list[T], page: PageRequest, total: int | None) -> Page[T]:
    """Cut off the one row that was read to see whether more follow."""
    shown = items[: page.limit]
    last = shown[-1] if len(items) > page.limit else None
    after = None if last is None else Position(at=last.created_at, id=last.id)
    return Page(items=shown, next=after, total=total)


def _version(row: asyncpg.Record) -> VersionDetails:
    values = dict(row)
    return VersionDetails(version=values.pop("name"), **values)


def _blob(rows: list[asyncpg.Record]) -> Blob:
    parts = tuple(
        Part(key=row["key"], size=row["part_size"], sha256=Digest(row["part_sha256"]))
        for row in rows
        if row["key"] is not None
    )
    return Blob(sha256=Digest(rows[0]["sha256"]), size=rows[0]["size"], parts=parts)


async def _check_model(connection: _Connection, model_id: ModelId, tenant_id: TenantId) -> None:
    if await connection.fetchval(HAS_MODEL, model_id, tenant_id) is None:
        raise ModelNotFoundError


async def _version_id(
    connection: _Connection, model_id: ModelId, tenant_id: TenantId, version: VersionName
) -> VersionId:
    found = await connection.fetchval(FIND_VERSION_ID, model_id, tenant_id, version.value)
    if found is None:
        await _check_model(connection, model_id, tenant_id)
        raise VersionNotFoundError
    return VersionId(found)
