"""The collection's rows, as the system role, which sees what every tenant refers to."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Final, Protocol, TypeAlias
from uuid import UUID

import asyncpg

from maas.audit.public import Actor, AuditScope
from maas.model.application.collection import Progress
from maas.model.application.ports import StoredFolder
from maas.model.application.trail import MODEL, MODEL_UPLOAD, PROVIDER
from maas.model.infrastructure.blob_repository import claim_number
from maas.shared.domain.ids import TenantId
from maas.shared.infrastructure.database import system_arguments
from maas.shared.infrastructure.settings import DatabaseSettings

PURGED_ACTION = "model.purged"
EXPIRED_ACTION = "model_upload.expired"
KEY_REMOVED_ACTION = "provider.credential_removed"
TENANTS_AT_ONCE: Final = 5
UPLOADS_AT_ONCE: Final = 20
MODELS_AT_ONCE: Final = 20
FILES_AT_ONCE: Final = 2_000
FREED_AT_ONCE: Final = 200
BLOBS_AT_ONCE: Final = 20

# The pass over the store is called so in rows that are there already.
_ORPHANS: Final = "strangers"
HELD: Final = "held"
"""A row of this name in `collection_progress` holds every file of the store."""
_ALONE: Final = "SELECT pg_try_advisory_lock(hashtextextended('maas.model.collect', 0))"

_DROP_KEYS: Final = """
    WITH closed AS MATERIALIZED (
        SELECT tenant_id FROM (SELECT DISTINCT tenant_id FROM provider_credentials) keyed
        WHERE tenant_has_status(tenant_id, 'deleted') LIMIT $1
    )
    DELETE FROM provider_credentials c USING closed WHERE c.tenant_id = closed.tenant_id
    RETURNING c.provider_id, c.tenant_id
"""
# Triggers mark its parts for deletion and release what it held.
_END: Final = """
    DELETE FROM uploads u USING (
        SELECT id FROM uploads WHERE expires_at < $1 AND state <> 'verifying'
        ORDER BY expires_at LIMIT $2 FOR UPDATE SKIP LOCKED) expired
    WHERE u.id = expired.id
    RETURNING u.id, u.tenant_id, u.state, u.kind, u.length, u.version_id, u.path
"""
# The lock on a model keeps whoever restores it waiting; by then it is in the other table.
_DELETED: Final = """
    SELECT m.id, m.tenant_id, m.name FROM models m
    WHERE m.deleted_at < $1 AND NOT EXISTS (SELECT FROM purged_models p WHERE p.model_id = m.id)
    ORDER BY m.deleted_at LIMIT $2 FOR NO KEY UPDATE SKIP LOCKED
"""
_PURGE: Final = """
    INSERT INTO purged_models (model_id, tenant_id) SELECT * FROM unnest($1::uuid[], $2::uuid[])
"""
_PURGING: Final = """
    SELECT model_id FROM purged_models WHERE has_files ORDER BY model_id LIMIT $1
    FOR UPDATE SKIP LOCKED
"""
_DROP_FILES: Final = """
    DELETE FROM version_files f USING (
        SELECT f.version_id, f.path FROM model_versions v
        JOIN version_files f ON f.version_id = v.id WHERE v.model_id = ANY ($1) LIMIT $2) gone
    WHERE f.version_id = gone.version_id AND f.path = gone.path
"""
_PURGED: Final = "UPDATE purged_models SET has_files = false WHERE model_id = ANY ($1)"

_FREED: Final = """
    SELECT id, sha256 FROM freed_blobs WHERE freed_at < $1 AND id > $2 ORDER BY id LIMIT $3
"""
_LOCK: Final = """
    SELECT sha256 FROM blobs WHERE sha256 = ANY ($1::bytea[]) ORDER BY sha256
    FOR UPDATE SKIP LOCKED
"""
_IS_THERE: Final = "SELECT sha256 FROM blobs WHERE sha256 = ANY ($1::bytea[])"
# A statement of its own, after the locks: it sees whatever was committed before they were taken.
# What was let go again meanwhile has its grace anew.
_MARK: Final = """
    WITH unused AS (
        SELECT b.sha256 FROM blobs b
        WHERE b.sha256 = ANY ($1::bytea[])
          AND NOT EXISTS (SELECT FROM version_files f WHERE f.sha256 = b.sha256)
          AND NOT EXISTS (
            SELECT FROM freed_blobs f WHERE f.sha256 = b.sha256 AND f.freed_at >= $2)
    ), marked AS (
        INSERT INTO doomed_parts (key)
        SELECT p.key FROM blob_parts p JOIN unused u ON u.sha256 = p.sha256
        ON CONFLICT DO NOTHING
    )
    DELETE FROM blobs b USING unused u WHERE b.sha256 = u.sha256
"""
_LET_GO: Final = "DELETE FROM freed_blobs WHERE sha256 = ANY ($1::bytea[]) AND freed_at < $2"

_MARKED: Final = "SELECT key FROM doomed_parts ORDER BY key LIMIT $1"
_FORGET: Final = "DELETE FROM doomed_parts WHERE key = ANY ($1::text[])"

_FIND_PROGRESS: Final = "SELECT after, began_at FROM collection_progress WHERE name = $1"
_KEEP_PROGRESS: Final = """
    INSERT INTO collection_progress (name, after, began_at) VALUES ($1, $2, $3)
    ON CONFLICT (name) DO UPDATE SET after = excluded.after, began_at = excluded.began_at
"""
_CLAIM: Final = "SELECT pg_try_advisory_xact_lock($1)"
_MARK_ORPHANS: Final = """
    INSERT INTO doomed_parts (key)
    SELECT s.key FROM unnest($1::text[]) AS s(key)
    WHERE NOT EXISTS (SELECT FROM blob_parts p WHERE p.key = s.key)
      AND NOT EXISTS (SELECT FROM upload_parts p WHERE p.key = s.key)
    ON CONFLICT DO NOTHING
"""

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


class EventWriter(Protocol):
    """Writes what nobody's request did into the outbox, in the connection's transaction."""

    async def write(self, connection: Connection, scopes: Sequence[AuditScope]) -> None: ...


class PostgresCollectionLedger:
    def __init__(self, connection: Connection, *, events: EventWriter) -> None:
        self._connection = connection
        self._events = events

    async def drop_keys(self) -> int:
        async with self._connection.transaction():
            dropped = await self._connection.fetch(_DROP_KEYS, TENANTS_AT_ONCE)
            if dropped:
                await self._events.write(self._connection, [_scope_of_key(row) for row in dropped])
        return len(dropped)

    async def end_uploads(self, *, expired_before: datetime) -> int:
        async with self._connection.transaction():
            ended = await self._connection.fetch(_END, expired_before, UPLOADS_AT_ONCE)
            # Of the others it was told long ago what became of them.
            expired = [_scope_of_upload(row) for row in ended if row["state"] == "uploading"]
            if expired:
                await self._events.write(self._connection, expired)
        return len(ended)

    async def purge_models(self, *, deleted_before: datetime) -> int:
        async with self._connection.transaction():
            models = await self._connection.fetch(_DELETED, deleted_before, MODELS_AT_ONCE)
            if models:
                await self._connection.execute(
                    _PURGE, [row["id"] for row in models], [row["tenant_id"] for row in models]
                )
                await self._events.write(self._connection, [_scope_of(row) for row in models])
        async with self._connection.transaction():
            rows = await self._connection.fetch(_PURGING, MODELS_AT_ONCE)
            ids = [row["model_id"] for row in rows]
            dropped = await self._connection.execute(_DROP_FILES, ids, FILES_AT_ONCE)
            if _count(dropped) < FILES_AT_ONCE:
                await self._connection.execute(_PURGED, ids)
        return max(len(models), len(ids))

    async def mark_unused(self, *, freed_before: datetime, after: int) -> tuple[int, int | None]:
        rows = await self._connection.fetch(_FREED, freed_before, after, FREED_AT_ONCE)
        digests = sorted({row["sha256"] for row in rows})
        marked = 0
        for start in range(0, len(digests), BLOBS_AT_ONCE):
            marked += await self._mark(digests[start : start + BLOBS_AT_ONCE], freed_before)
        return marked, rows[-1]["id"] if len(rows) == FREED_AT_ONCE else None

    async def _mark(self, digests: list[bytes], freed_before: datetime) -> int:
        async with self._connection.transaction():
            locked = [row["sha256"] for row in await self._connection.fetch(_LOCK, digests)]
            there = {row["sha256"] for row in await self._connection.fetch(_IS_THERE, digests)}
            marked = await self._connection.execute(_MARK, locked, freed_before)
            # Somebody has the others in hand, and may yet fail to refer to them.
            settled = [each for each in digests if each not in there or each in locked]
            await self._connection.execute(_LET_GO, settled, freed_before)
        return _count(marked)

    async def list_marked(self, *, limit: int) -> list[str]:
        return [row["key"] for row in await self._connection.fetch(_MARKED, limit)]

    async def forget_deleted(self, keys: Sequence[str]) -> None:
        await self._connection.execute(_FORGET, list(keys))

    async def find_progress(self) -> Progress | None:
        row = await self._connection.fetchrow(_FIND_PROGRESS, _ORPHANS)
        return None if row is None else Progress(after=row["after"], began_at=row["began_at"])

    async def is_held(self) -> bool:
        return await self._connection.fetchrow(_FIND_PROGRESS, HELD) is not None

    async def mark_orphans(self, folders: Sequence[StoredFolder], *, progress: Progress) -> int:
        async with self._connection.transaction():
            keys: list[str] = []
            for folder in folders:
                # Who is about to refer to an upload holds its claim, and is left alone.
                number = _claim_of(folder.name)
                if number is not None and await self._connection.fetchval(_CLAIM, number):
                    keys += folder.keys
            marked = await self._connection.execute(_MARK_ORPHANS, keys)
            await self._connection.execute(
                _KEEP_PROGRESS, _ORPHANS, progress.after, progress.began_at
            )
        return _count(marked)


@asynccontextmanager
async def open_ledger(
    settings: DatabaseSettings, *, events: EventWriter
) -> AsyncIterator[PostgresCollectionLedger | None]:
    """Connect for one run; `None` while another one is at it, which is let be."""
    connection = await asyncpg.connect(**system_arguments(settings))
    try:
        is_alone = await connection.fetchval(_ALONE)
        yield PostgresCollectionLedger(connection, events=events) if is_alone else None
    finally:
        await connection.close()


def _scope_of(row: asyncpg.Record) -> AuditScope:
    scope = AuditScope(PURGED_ACTION, tenant_id=TenantId(row["tenant_id"]))
    scope.actor = Actor("system", None, name="collection")
    scope.change(MODEL, row["id"], before={"name": row["name"]})
    return scope


def _scope_of_key(row: asyncpg.Record) -> AuditScope:
    scope = AuditScope(KEY_REMOVED_ACTION, tenant_id=TenantId(row["tenant_id"]))
    scope.actor = Actor("system", None, name="collection")
    scope.change(PROVIDER, row["provider_id"], before={"has_credential": True})
    return scope


def _scope_of_upload(row: asyncpg.Record) -> AuditScope:
    scope = AuditScope(EXPIRED_ACTION, tenant_id=TenantId(row["tenant_id"]))
    scope.actor = Actor("system", None, name="collection")
    version_id = row["version_id"]
    before = {
        "kind": row["kind"],
        "length": row["length"],
        "version_id": None if version_id is None else str(version_id),
        "path": row["path"],
    }
    scope.change(MODEL_UPLOAD, row["id"], before=before)
    return scope


def _claim_of(name: str) -> int | None:
    """Tell the claim of an upload; `None` where the folder is not one of ours."""
    try:
        return claim_number(UUID(name))
    except ValueError:
        return None


def _count(status: str) -> int:
    return int(status.rpartition(" ")[2])
