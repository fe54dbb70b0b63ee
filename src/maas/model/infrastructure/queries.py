"""Reads of the registry: raw asyncpg, each in a read-only transaction of its tenant."""

import json
from datetime import datetime
from typing import Any, TypeAlias
from uuid import UUID

import asyncpg

from maas.model.application.queries import (
    FileDetails,
    ModelDetails,
    ModelSummary,
    SourceDetails,
    StoredFile,
    TransitionDetails,
    VersionDetails,
)
from maas.model.domain.blob import Blob, Digest, Part
from maas.model.domain.facts import Facts
from maas.model.domain.file import FilePath
from maas.model.domain.model import ModelNotFoundError
from maas.model.domain.text import VersionName
from maas.model.domain.version import VersionFileNotFoundError, VersionNotFoundError
from maas.model.infrastructure.fact_repository import facts_of
from maas.model.infrastructure.visibility import readable, reader
from maas.model.public import ModelId, VersionId
from maas.shared.domain.grants import Grant
from maas.shared.domain.page import (
    Page,
    PageRequest,
    Position,
    TextPageRequest,
    TextPosition,
    cut_page,
    position_of,
)
from maas.shared.domain.principal import Principal
from maas.shared.infrastructure.database import Database
from maas.shared.infrastructure.grants import GrantPages

_READABLE = readable(tenant="$2", account="$3", manager="$4")
_LIVE = f"m.id = $1 AND m.deleted_at IS NULL AND {_READABLE}"
_VERSION_OF = "model_versions v ON v.model_id = m.id AND v.tenant_id = m.tenant_id"

SUMMARY_COLUMNS = """
m.id, m.tenant_id, m.name, m.description, m.framework, m.task, m.licence, m.visibility, m.owner_id,
m.created_by, m.created_at, m.updated_at, m.deleted_at, m.revision,
ARRAY(SELECT t.tag FROM model_tags t WHERE t.model_id = m.id AND t.tenant_id = m.tenant_id
      ORDER BY t.tag COLLATE "C") AS tags,
(SELECT jsonb_object_agg(e.key, e.value) FROM model_metadata e
 WHERE e.model_id = m.id AND e.tenant_id = m.tenant_id) AS metadata
"""
"""What a `ModelSummary` is made of, from `models m`."""

GET_MODEL = f"SELECT {SUMMARY_COLUMNS}, m.card FROM models m WHERE {_LIVE}"  # noqa: S608  no input in it

_GRANTS = GrantPages("model_grants", "model_id")

VERSION_COLUMNS = """
v.id, v.model_id, v.name, v.status, v.status_reason, v.description, v.file_count, v.size,
v.checksum, v.source_kind, v.source_model_id, v.source_version, v.source_url, v.created_by,
v.created_at, v.updated_at, v.revision,
(SELECT jsonb_object_agg(n.name, n.value) FROM version_metrics n
 WHERE n.version_id = v.id AND n.tenant_id = v.tenant_id) AS metrics,
(SELECT jsonb_object_agg(e.key, e.value) FROM version_metadata e
 WHERE e.version_id = v.id AND e.tenant_id = v.tenant_id) AS metadata,
(SELECT to_jsonb(x) FROM version_facts x
 WHERE x.version_id = v.id AND x.tenant_id = v.tenant_id) AS facts
"""
"""What a `VersionDetails` is made of, from `model_versions v`."""

GET_VERSION = f"""
SELECT {VERSION_COLUMNS} FROM models m JOIN {_VERSION_OF} WHERE {_LIVE} AND v.name = $5
"""  # noqa: S608  no input in it

LIST_VERSIONS = f"""
SELECT {VERSION_COLUMNS} FROM models m JOIN {_VERSION_OF}
WHERE {_LIVE} AND ($5::timestamptz IS NULL OR (v.created_at, v.id) < ($5, $6::uuid))
ORDER BY v.created_at DESC, v.id DESC LIMIT $7
"""  # noqa: S608  no input in it

COUNT_VERSIONS = f"SELECT count(*) FROM models m JOIN {_VERSION_OF} WHERE {_LIVE}"  # noqa: S608  no input in it

HAS_MODEL = f"SELECT 1 FROM models m WHERE {_LIVE}"  # noqa: S608  no input in it

HAS_OWN_MODEL = f"{HAS_MODEL} AND m.tenant_id = $2"

HAS_VERSION = f"SELECT 1 FROM models m JOIN {_VERSION_OF} WHERE {_LIVE} AND v.name = $5"  # noqa: S608  no input in it

_TRANSITION_OF = "version_transitions s ON s.version_id = v.id AND s.tenant_id = v.tenant_id"

LIST_TRANSITIONS = f"""
SELECT s.revision, s.from_status, s.to_status, s.reason, s.by, s.at
FROM models m JOIN {_VERSION_OF} JOIN {_TRANSITION_OF}
WHERE {_LIVE} AND v.name = $5 AND ($6::integer IS NULL OR s.revision < $6)
ORDER BY s.revision DESC LIMIT $7
"""  # noqa: S608  no input in it

COUNT_TRANSITIONS = f"""
SELECT count(*) FROM models m JOIN {_VERSION_OF} JOIN {_TRANSITION_OF}
WHERE {_LIVE} AND v.name = $5
"""  # noqa: S608  no input in it

_FILE_OF = "version_files f ON f.version_id = v.id AND f.tenant_id = v.tenant_id"

LIST_FILES = f"""
SELECT f.path, f.size, f.sha256, f.media_type, f.created_at,
       (SELECT to_jsonb(x) FROM version_file_facts x WHERE x.version_id = f.version_id
        AND x.tenant_id = f.tenant_id AND x.path = f.path) AS facts
FROM models m JOIN {_VERSION_OF} JOIN {_FILE_OF}
WHERE {_LIVE} AND v.name = $5 AND ($6::text IS NULL OR f.path > $6)
ORDER BY f.path LIMIT $7
"""  # noqa: S608  no input in it

COUNT_FILES = f"""
SELECT count(*) FROM models m JOIN {_VERSION_OF} JOIN {_FILE_OF} WHERE {_LIVE} AND v.name = $5
"""  # noqa: S608  no input in it

GET_MANIFEST = f"""
SELECT v.id, f.sha256, f.size, p.key, p.size AS part_size, p.part_sha256
FROM models m JOIN {_VERSION_OF} JOIN {_FILE_OF} LEFT JOIN blob_parts p ON p.sha256 = f.sha256
WHERE {_LIVE} AND v.name = $5 AND f.path = $6 ORDER BY p.index
"""  # noqa: S608  no input in it

_MODEL_SCOPE = 4
_MAX_NUMBER = 2**31 - 1


class PostgresModelQueries:
    """Each answer is one statement; only what is not found is looked at again, to tell what."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get_model(self, principal: Principal, model_id: ModelId) -> ModelDetails:
        async with self._database.tenant(principal.tenant_id) as connection:
            row = await connection.fetchrow(GET_MODEL, model_id, *reader(principal))
        if row is None:
            raise ModelNotFoundError
        return ModelDetails(**_with_metadata(row))

    async def list_grants(
        self, principal: Principal, model_id: ModelId, page: PageRequest
    ) -> Page[Grant]:
        async with self._database.tenant(principal.tenant_id) as connection:
            if await connection.fetchval(HAS_OWN_MODEL, model_id, *reader(principal)) is None:
                raise ModelNotFoundError
            return await _GRANTS.read(connection, principal.tenant_id, model_id, page)

    async def get_version(
        self, principal: Principal, model_id: ModelId, version: VersionName
    ) -> VersionDetails:
        scope = (model_id, *reader(principal))
        async with self._database.tenant(principal.tenant_id) as connection:
            row = await connection.fetchrow(GET_VERSION, *scope, version.value)
            if row is None:
                await _explain(connection, scope)
                raise VersionNotFoundError
        return version_of(row)

    async def list_versions(
        self, principal: Principal, model_id: ModelId, page: PageRequest
    ) -> Page[VersionDetails]:
        scope = (model_id, *reader(principal))
        async with self._database.tenant(principal.tenant_id) as connection:
            rows = await connection.fetch(LIST_VERSIONS, *scope, *page.keyset, page.limit + 1)
            if not rows:
                await _explain(connection, scope)
            total = None
            if page.include_total:
                total = await connection.fetchval(COUNT_VERSIONS, *scope)
        versions = [version_of(row) for row in rows]
        return cut_page(versions, page.limit, total, position_of)

    async def list_transitions(
        self, principal: Principal, model_id: ModelId, version: VersionName, page: PageRequest
    ) -> Page[TransitionDetails]:
        scope = (model_id, *reader(principal), version.value)
        async with self._database.tenant(principal.tenant_id) as connection:
            rows = await connection.fetch(
                LIST_TRANSITIONS, *scope, number_after(page), page.limit + 1
            )
            if not rows:
                await _explain(connection, scope)
            total = None
            if page.include_total:
                total = await connection.fetchval(COUNT_TRANSITIONS, *scope)
        steps = [TransitionDetails(**row) for row in rows]
        return cut_page(steps, page.limit, total, lambda last: numbered(last.at, last.revision))

    async def list_files(
        self, principal: Principal, model_id: ModelId, version: VersionName, page: TextPageRequest
    ) -> Page[FileDetails, TextPosition]:
        scope = (model_id, *reader(principal), version.value)
        after = None if page.after is None else page.after.text
        async with self._database.tenant(principal.tenant_id) as connection:
            rows = await connection.fetch(LIST_FILES, *scope, after, page.limit + 1)
            if not rows:
                await _explain(connection, scope)
            total = None
            if page.include_total:
                total = await connection.fetchval(COUNT_FILES, *scope)
        files = [_file(row) for row in rows]
        return cut_page(files, page.limit, total, lambda last: TextPosition(last.path))

    async def get_file(
        self, principal: Principal, model_id: ModelId, version: VersionName, path: FilePath
    ) -> StoredFile:
        scope = (model_id, *reader(principal), version.value)
        async with self._database.tenant(principal.tenant_id) as connection:
            rows = await connection.fetch(GET_MANIFEST, *scope, path.value)
            if not rows:
                await _explain(connection, scope)
                raise VersionFileNotFoundError
        return StoredFile(version_id=VersionId(rows[0]["id"]), path=path, blob=_blob(rows))


_Connection: TypeAlias = "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"


def numbered(at: datetime, number: int) -> Position:
    """Name a place in a list that is sorted by a number: a position has room for an id."""
    return Position(at=at, id=UUID(int=number))


def number_after(page: PageRequest) -> int | None:
    """Tell which number the page before ended with, whatever the cursor says."""
    return None if page.after is None else min(page.after.id.int, _MAX_NUMBER)


def summary_of(row: asyncpg.Record) -> ModelSummary:
    """Make it of a row of `SUMMARY_COLUMNS`."""
    return ModelSummary(**_with_metadata(row))


def version_of(row: asyncpg.Record) -> VersionDetails:
    """Make it of a row of `VERSION_COLUMNS`."""
    values = _with_metadata(row)
    metrics, checksum = values.pop("metrics"), values.pop("checksum")
    facts = values.pop("facts")
    return VersionDetails(
        version=values.pop("name"),
        # JSON has one kind of number, and what has no fraction comes back whole.
        metrics={} if metrics is None else json.loads(metrics, parse_int=float),
        checksum=None if checksum is None else Digest(checksum),
        facts=_facts(facts),
        source=SourceDetails(
            kind=values.pop("source_kind"),
            model_id=values.pop("source_model_id"),
            version=values.pop("source_version"),
            url=values.pop("source_url"),
        ),
        **values,
    )


def _file(row: asyncpg.Record) -> FileDetails:
    values = dict(row)
    sha256, facts = Digest(values.pop("sha256")), values.pop("facts")
    return FileDetails(sha256=sha256, facts=_facts(facts), **values)


def _facts(text: str | None) -> Facts | None:
    return None if text is None else facts_of(json.loads(text))


def _with_metadata(row: asyncpg.Record) -> dict[str, Any]:
    values = dict(row)
    metadata = values["metadata"]
    values["metadata"] = {} if metadata is None else json.loads(metadata)
    return values


def _blob(rows: list[asyncpg.Record]) -> Blob:
    parts = tuple(
        Part(key=row["key"], size=row["part_size"], sha256=Digest(row["part_sha256"]))
        for row in rows
        if row["key"] is not None
    )
    return Blob(sha256=Digest(rows[0]["sha256"]), size=rows[0]["size"], parts=parts)


async def _explain(connection: _Connection, scope: tuple[object, ...]) -> None:
    """Say what is missing where nothing was found: the model, the version, or neither.

    Raises:
        ModelNotFoundError, VersionNotFoundError.
    """
    of_model = scope[:_MODEL_SCOPE]
    if await connection.fetchval(HAS_MODEL, *of_model) is None:
        raise ModelNotFoundError
    if len(scope) > _MODEL_SCOPE and await connection.fetchval(HAS_VERSION, *scope) is None:
        raise VersionNotFoundError
