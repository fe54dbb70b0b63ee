"""The registry's migrations beside processes of the version before, which know only its columns."""

import asyncio
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias
from uuid import UUID

import asyncpg
import pytest
import sqlalchemy.exc
from alembic import command
from alembic.config import Config

from maas.shared.domain.ids import new_id
from tests.servers import Servers

ROOT = Path(__file__).resolve().parents[2]
DATABASE = f"maas_registry_{os.environ.get('PYTEST_XDIST_WORKER', 'alone')}"
BEFORE = "0018_quotas"
TENANTS = [UUID(int=1), UUID(int=2), UUID(int=3)]
SOMEBODY, ANOTHER = UUID(int=11), UUID(int=12)
FIXED = {"ready", "deprecated", "archived"}

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]

# More than the slices that are filled at once: 2,100 blobs, 1,100 models, 600 versions.
FILL = f"""
    INSERT INTO blobs SELECT sha256(int4send(n)), n, now() FROM generate_series(1, 2100) n;
    INSERT INTO models SELECT gen_random_uuid(), lpad((1 + n % 3)::text, 32, '0')::uuid, 'm' || n,
        NULL, 'onnx', NULL, NULL, CASE n % 2 WHEN 0 THEN '{SOMEBODY}' ELSE '{ANOTHER}' END::uuid,
        now(), now(), CASE n % 5 WHEN 0 THEN now() END, 1 FROM generate_series(1, 1100) n;
    INSERT INTO model_versions SELECT gen_random_uuid(), tenant_id, id, '1.' || minor,
        (ARRAY['pending', 'uploading', 'ready', 'deprecated', 'archived', 'failed'])[minor],
        NULL, NULL, created_by, now(), now(), 1
    FROM (SELECT * FROM models ORDER BY name LIMIT 100) m, generate_series(1, 6) minor;
    INSERT INTO version_files SELECT v.id, 'ü' || n, v.tenant_id, sha256(int4send(n)), n, 'a/b',
        v.created_by, now()
    FROM model_versions v, generate_series(1, 3) n WHERE v.name <> '1.1';
"""
# Rows that are written in a transaction which locks everybody out of their table.
WATCH = """
    CREATE TABLE locked (of text);
    CREATE FUNCTION note_locks() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
    BEGIN
        INSERT INTO public.locked SELECT TG_TABLE_NAME FROM pg_locks WHERE pid = pg_backend_pid()
            AND relation = TG_RELID AND mode IN ('AccessExclusiveLock', 'ShareRowExclusiveLock');
        RETURN NULL;
    END $$;
    CREATE TRIGGER watch AFTER UPDATE ON models EXECUTE FUNCTION note_locks();
    CREATE TRIGGER watch AFTER UPDATE ON model_versions EXECUTE FUNCTION note_locks();
"""
FREED_UNDER_LOCK = """
    SELECT count(*) FROM freed_blobs f
    JOIN pg_trigger t ON t.xmin = f.xmin AND t.tgname = 'freed'
"""


@pytest.fixture
def config(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> Iterator[Config]:
    """Alembic's own configuration, on a database of before with rows in it."""
    asyncio.run(execute(servers, "postgres", f"CREATE DATABASE {DATABASE} OWNER maas_owner"))
    monkeypatch.setenv("MAAS_DATABASE__URL", servers.database_url(DATABASE, "maas_app"))
    monkeypatch.setenv("MAAS_DATABASE__OWNER_URL", servers.database_url(DATABASE, "maas_owner"))
    found = Config(ROOT / "alembic.ini")
    command.upgrade(found, BEFORE)
    asyncio.run(execute(servers, DATABASE, FILL))
    yield found
    asyncio.run(execute(servers, "postgres", f"DROP DATABASE {DATABASE} WITH (FORCE)"))


async def execute(servers: Servers, database: str, *statements: str) -> None:
    connection = await servers.connect(database)
    for statement in statements:
        await connection.execute(statement)
    await connection.close()


async def count(servers: Servers, query: str) -> int:
    connection = await servers.connect(DATABASE)
    value = await connection.fetchval(query)
    await connection.close()
    return int(value)


class OldProcess:
    """What the version before writes: its statements, with its columns, as `maas_app`."""

    def __init__(self, connection: Connection, tenant_id: UUID) -> None:
        self._connection = connection
        self._tenant_id = tenant_id

    async def add_model(self, name: str) -> UUID:
        model_id = new_id()
        await self._run(
            "INSERT INTO models (id, tenant_id, name, description, framework, task, licence, "
            "created_by, created_at, updated_at, deleted_at, revision) VALUES "
            "($1, $2, $3, 'said', 'onnx', 'chat', 'MIT', $4, now(), now(), NULL, 1)",
            model_id, self._tenant_id, name, SOMEBODY,
        )  # fmt: skip
        return model_id

    async def change_model(self, model_id: UUID) -> None:
        await self._run(
            "UPDATE models SET description = 'more', updated_at = now(), revision = revision + 1 "
            "WHERE models.id = $1",
            model_id,
        )

    async def delete_model(self, model_id: UUID) -> None:
        await self._run(
            "UPDATE models SET deleted_at = now(), updated_at = now(), revision = revision + 1 "
            "WHERE models.id = $1",
            model_id,
        )

    async def add_version(self, model_id: UUID, name: str) -> UUID:
        version_id = new_id()
        await self._run(
            "INSERT INTO model_versions (id, tenant_id, model_id, name, status, status_reason, "
            "description, created_by, created_at, updated_at, revision) "
            "VALUES ($1, $2, $3, $4, 'pending', NULL, NULL, $5, now(), now(), 1)",
            version_id, self._tenant_id, model_id, name, SOMEBODY,
        )  # fmt: skip
        return version_id

    async def put_file(self, version_id: UUID, path: str, size: int) -> None:
        sha256 = hashlib.sha256(size.to_bytes(4, "big")).digest()
        async with self._connection.transaction():
            await self._lock(version_id)
            await self._run(
                "INSERT INTO blobs (sha256, size, created_at) VALUES ($1, $2, now()) "
                "ON CONFLICT (sha256) DO UPDATE SET size = blobs.size RETURNING xmax = 0",
                sha256, size,
            )  # fmt: skip
            await self._run(
                "INSERT INTO blob_parts (sha256, index, key, size, part_sha256) "
                "VALUES ($1, 0, $2, $3, $1) ON CONFLICT DO NOTHING",
                sha256, sha256.hex(), size,
            )  # fmt: skip
            await self._touch(version_id, "uploading")
            has_file = await self._run(
                "UPDATE version_files SET sha256 = $3, size = $4, created_at = now() "
                "WHERE version_files.version_id = $1 AND version_files.path = $2",
                version_id, path, sha256, size,
            )  # fmt: skip
            if has_file == "UPDATE 0":
                await self._run(
                    "INSERT INTO version_files (version_id, path, tenant_id, sha256, size, "
                    "media_type, created_by, created_at) "
                    "VALUES ($1, $2, $3, $4, $5, 'a/b', $6, now())",
                    version_id, path, self._tenant_id, sha256, size, SOMEBODY,
                )  # fmt: skip

    async def remove_file(self, version_id: UUID, path: str) -> None:
        async with self._connection.transaction():
            await self._lock(version_id)
            await self._touch(version_id, "uploading")
            await self._run(
                "DELETE FROM version_files "
                "WHERE version_files.version_id = $1 AND version_files.path = $2",
                version_id, path,
            )  # fmt: skip

    async def move(self, version_id: UUID, status: str) -> None:
        async with self._connection.transaction():
            await self._lock(version_id)
            await self._touch(version_id, status)

    async def delete_version(self, version_id: UUID) -> None:
        done = await self._run(
            "DELETE FROM model_versions WHERE model_versions.id = $1", version_id
        )
        assert done == "DELETE 1"

    async def _lock(self, version_id: UUID) -> None:
        await self._run("SELECT id FROM model_versions WHERE id = $1 FOR UPDATE", version_id)

    async def _touch(self, version_id: UUID, status: str) -> None:
        done = await self._run(
            "UPDATE model_versions SET status = $2, updated_at = now(), revision = revision + 1 "
            "WHERE model_versions.id = $1",
            version_id, status,
        )  # fmt: skip
        assert done == "UPDATE 1"

    async def _run(self, statement: str, *arguments: object) -> str:
        async with self._connection.transaction():
            await self._connection.execute(
                "SELECT set_config('maas.tenant_id', $1, true)", str(self._tenant_id)
            )
            return await self._connection.execute(statement, *arguments)


async def live_through(old: OldProcess, name: str) -> None:
    """Do everything once that the version before can do."""
    model_id = await old.add_model(name)
    await old.change_model(model_id)
    is_ready = await old.add_version(model_id, "1.0.0")
    for path, size in (("b", 4), ("a", 5), ("c", 6), ("a", 20_001), ("b", 20_002)):
        await old.put_file(is_ready, path, size)
    await old.remove_file(is_ready, "c")
    await old.move(is_ready, "ready")
    await old.move(is_ready, "deprecated")
    await old.move(is_ready, "ready")
    is_open = await old.add_version(model_id, "2.0.0")
    await old.put_file(is_open, "only", 7)
    await old.remove_file(is_open, "only")
    await old.put_file(is_open, "only", 8)
    is_gone = await old.add_version(model_id, "3.0.0")
    await old.put_file(is_gone, "only", 9)
    await old.delete_version(is_gone)
    await old.delete_model(await old.add_model(f"{name}-gone"))


async def write(servers: Servers, tenant_id: UUID, name: str) -> None:
    connection = await servers.connect(DATABASE, "maas_app")
    await live_through(OldProcess(connection, tenant_id), name)
    await connection.close()


async def find_faults(servers: Servers) -> list[object]:
    """Say of each row what is wrong with it, by a second way of counting."""
    connection = await servers.connect(DATABASE)
    faults: list[object] = [
        dict(row)
        for row in await connection.fetch("SELECT * FROM models")
        if (row["owner_id"], row["visibility"], row["card"]) != (row["created_by"], "tenant", None)
    ]
    files: dict[UUID, list[asyncpg.Record]] = {}
    for row in await connection.fetch("SELECT * FROM version_files"):
        files.setdefault(row["version_id"], []).append(row)
    for version in await connection.fetch("SELECT * FROM model_versions"):
        own = sorted(files.get(version["id"], []), key=lambda row: row["path"].encode())
        listing = "".join(f"{row['path']}\0{row['sha256'].hex()}\n" for row in own).encode()
        is_fixed = version["status"] in FIXED
        wanted = {
            "file_count": len(own),
            "size": sum(row["size"] for row in own),
            "checksum": hashlib.sha256(listing).digest() if is_fixed else None,
            "source_kind": "uploaded",
        }
        faults += [(key, dict(version)) for key in wanted if version[key] != wanted[key]]
    await connection.close()
    return faults


SEARCHED_WRONG = """
    SELECT count(*) FROM model_versions v JOIN models m ON m.id = v.model_id
    LEFT JOIN version_search s ON s.version_id = v.id
    WHERE (s.size, s.status, s.owner_id, s.visibility, s.is_live) IS DISTINCT FROM
        (v.size, v.status, m.owner_id, m.visibility, m.deleted_at IS NULL)
"""


def assert_sound(servers: Servers) -> None:
    assert asyncio.run(find_faults(servers)) == []
    assert asyncio.run(count(servers, SEARCHED_WRONG)) == 0


def test_processes_of_before_write_while_it_runs_and_after(
    config: Config, servers: Servers
) -> None:
    async def migrate_while_writing() -> int:
        migration = asyncio.create_task(asyncio.to_thread(command.upgrade, config, "head"))
        lives = 0
        while not migration.done():
            await write(servers, TENANTS[lives % 3], f"meanwhile-{lives}")
            lives += 1
        await migration
        return lives

    asyncio.run(execute(servers, DATABASE, WATCH))
    lives = asyncio.run(migrate_while_writing())

    assert lives > 0
    assert_sound(servers)
    assert asyncio.run(count(servers, "SELECT count(DISTINCT sha256) FROM freed_blobs")) >= 2_100
    # What takes long must not lock out whoever writes.
    assert asyncio.run(count(servers, "SELECT count(*) FROM locked")) == 0
    assert asyncio.run(count(servers, FREED_UNDER_LOCK)) == 0

    asyncio.run(write(servers, TENANTS[0], "after"))

    assert_sound(servers)
    sizes = "SELECT count(*) FROM model_versions v JOIN models m ON m.id = v.model_id WHERE "
    assert asyncio.run(count(servers, f"{sizes} m.name = 'after' AND v.size IN (40003, 8)")) == 2


def test_nobody_has_more_than_was_granted_whatever_is_given_by_default(
    config: Config, servers: Servers
) -> None:
    given = "GRANT ALL ON TABLES TO PUBLIC, maas_app, maas_system"
    asyncio.run(execute(servers, DATABASE, f"ALTER DEFAULT PRIVILEGES FOR ROLE maas_owner {given}"))

    command.upgrade(config, "0022_collection")

    held = """
        SELECT count(*) FROM pg_class c, aclexplode(c.relacl) a LEFT JOIN pg_roles r
            ON r.oid = a.grantee
        WHERE c.relname IN ('freed_blobs', 'doomed_parts', 'collection_progress', 'purged_models')
          AND a.grantee <> c.relowner AND (r.rolname IS DISTINCT FROM 'maas_system'
            OR a.privilege_type NOT IN ('SELECT', 'INSERT', 'UPDATE', 'DELETE'))
          AND (c.relname, a.privilege_type) <> ('purged_models', 'SELECT')
    """
    assert asyncio.run(count(servers, held)) == 0


def test_cut_short_it_goes_on_and_back_and_forth_loses_nothing(
    config: Config, servers: Servers
) -> None:
    for hurdle in ("model_tags", "doomed_parts"):
        asyncio.run(execute(servers, DATABASE, f"CREATE TABLE {hurdle} (id integer)"))
        with pytest.raises(sqlalchemy.exc.ProgrammingError, match="already exists"):
            command.upgrade(config, "head")
        asyncio.run(write(servers, TENANTS[2], f"before-{hurdle}"))
        asyncio.run(execute(servers, DATABASE, f"DROP TABLE {hurdle}"))

    command.upgrade(config, "head")

    assert_sound(servers)
    assert asyncio.run(count(servers, "SELECT count(DISTINCT sha256) FROM freed_blobs")) >= 2_100

    command.downgrade(config, BEFORE)
    asyncio.run(write(servers, TENANTS[1], "below"))
    command.upgrade(config, "head")

    assert_sound(servers)

    totals = "SELECT sum(size + file_count) FROM model_versions WHERE status = 'ready'"
    before = asyncio.run(count(servers, totals))
    collected = "(SELECT id FROM model_versions WHERE status = 'ready')"
    asyncio.run(
        execute(servers, DATABASE, f"DELETE FROM version_files WHERE version_id IN {collected}")
    )

    assert before > 0
    assert asyncio.run(count(servers, totals)) == before
