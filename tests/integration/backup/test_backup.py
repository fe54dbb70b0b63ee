"""A backup comes back whole, from real servers into an empty database, or does not begin."""

import asyncio
import hashlib
import shutil
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import asyncpg
import pytest
from alembic import command

from maas.backup.database import DatabaseRestore, resume_collection
from maas.backup.errors import BackupError, HalfRestoredError, NotEmptyError
from maas.backup.manifest import Manifest
from maas.backup.restoring import RestoreOptions, check_backup, restore_backup
from maas.backup.snapshot import Snapshot
from maas.backup.taking import BackupOptions, take_backup
from maas.backup.tools import find_tool, run_tool
from maas.shared.domain.ids import DEFAULT_TENANT_ID, new_id
from maas.shared.infrastructure.migrations import (
    RestoreBrokeOffError,
    migrate,
    migration_config,
)
from maas.shared.infrastructure.revisions import known_revisions
from maas.shared.infrastructure.settings import Settings
from tests.conftest import MakeSettings
from tests.integration.audit.conftest import trail as trail  # noqa: PLC0414  a fixture, reused
from tests.integration.audit.helpers import Superuser, Trail
from tests.servers import TEMPLATE, Servers

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

CONTENT = b"the weights of a model" * 1000


@pytest.fixture
async def empty(
    servers: Servers, make_settings: MakeSettings, worker_number: int, tmp_path: Path
) -> AsyncIterator[Settings]:
    """Settings of a platform that has a database and a data folder with nothing in them."""
    name = f"maas_restored_{worker_number}"
    connection = await servers.connect("postgres")
    await connection.execute(f"CREATE DATABASE {name} OWNER maas_owner")
    yield make_settings(
        data_dir=tmp_path / "restored",
        database={
            "url": servers.database_url(name, "maas_app"),
            "owner_url": servers.database_url(name, "maas_owner"),
            "system_url": servers.database_url(name, "maas_system"),
        },
    )
    await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await connection.close()


@pytest.fixture
async def filled(trail: Trail, superuser: Superuser, settings: Settings) -> Settings:
    """A platform with a trail, an event that waits, a session, and a part of a file."""
    await trail.add(*(trail.make() for _ in range(30)))
    await trail.flush(batch_size=10).run()
    await trail.keep(trail.make())
    account, session = new_id(), new_id()
    await superuser.execute(
        "INSERT INTO accounts (id, username, email, password_hash, home_tenant_id, status,"
        " created_at, updated_at, version)"
        " VALUES ($1, 'somebody', 'somebody@example.com', 'none', $2, 'active', now(), now(), 1)",
        account, DEFAULT_TENANT_ID,
    )  # fmt: skip
    await superuser.execute(
        "INSERT INTO sessions (id, account_id, tenant_id, version, generation, current_hash,"
        " rotated_at, created_at, last_used_at, expires_at, idle_expires_at) VALUES"
        " ($1, $2, $3, 1, 1, '\\x00', now(), now(), now(), now() + '1 day', now() + '1 day')",
        session, account, DEFAULT_TENANT_ID,
    )  # fmt: skip
    await superuser.execute(
        "INSERT INTO link_tokens (token_hash, account_id, purpose, email, created_at, expires_at)"
        " VALUES ('\\x00', $1, 'reset-password', 'a@example.com', now(), now() + '1 day')", account
    )  # fmt: skip
    digest, key = hashlib.sha256(CONTENT).digest(), f"parts/{new_id()}/0"
    await superuser.execute("INSERT INTO blobs VALUES ($1, $2, now())", digest, len(CONTENT))
    await superuser.execute(
        "INSERT INTO blob_parts VALUES ($1, 0, $2, $3, $1)", digest, key, len(CONTENT)
    )
    assert settings.data_dir is not None
    path = settings.data_dir / "artifacts" / key
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT)
    return settings


def name_of(settings: Settings) -> str:
    return settings.database.url.get_secret_value().partition("@/")[2].partition("?")[0]


async def make_anew(servers: Servers, settings: Settings, *, template: str) -> None:
    connection = await servers.connect("postgres")
    name = name_of(settings)
    await connection.execute(f"DROP DATABASE {name}")
    await connection.execute(f"CREATE DATABASE {name} TEMPLATE {template} OWNER maas_owner")
    await connection.close()


async def fetch_one(settings: Settings, query: str) -> object:
    url = settings.database.system_url
    assert url is not None
    connection = await asyncpg.connect(url.get_secret_value().replace("+asyncpg", ""))
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


async def schema_of(servers: Servers, database: str) -> list[str]:
    """Spell a database's tables, rights and policies, by PostgreSQL's own program."""
    tool = await find_tool("pg_dump", server_major=18)
    dumped = await run_tool(
        [
            *(tool.path, "--schema-only", "--schema=public", f"--host={servers.socket_folder}"),
            *("--port=5432", "--username=postgres", database),
        ],
        environment={},
    )
    # What guards a script against its reader is another word each time, and a condition that is
    # read in again has fewer parentheses.
    lines = dumped.replace("(", "").replace(")", "").splitlines()
    return [line for line in lines if not line.startswith(("\\restrict", "\\unrestrict"))]


async def refuse_all_in_the_way(
    filled: Settings, empty: Settings, manifest: Manifest, target: Path
) -> None:
    """Nothing is begun, nor changed, where something is there already."""
    options = RestoreOptions(source=target)
    with pytest.raises(BackupError, match="nothing is overwritten"):
        await take_backup(filled, BackupOptions(target=target))
    with pytest.raises(NotEmptyError, match="is not empty"):
        await restore_backup(filled, options, manifest)
    with pytest.raises(BackupError, match="newer release"):
        await restore_backup(empty, options, replace(manifest, revision="9999_from_tomorrow"))
    assert await fetch_one(filled, "SELECT count(*) FROM audit_chain") == 30
    assert (await restore_backup(empty, replace(options, is_dry=True), manifest)).verdict is None


async def test_what_was_backed_up_comes_back(
    filled: Settings,
    empty: Settings,
    servers: Servers,
    superuser: Superuser,
    tmp_path: Path,
) -> None:
    target = tmp_path / "backup"

    taken = await take_backup(filled, BackupOptions(target=target))
    # What happens after the snapshot is not in it.
    await superuser.execute("DELETE FROM sessions")
    manifest = await check_backup(target)
    await refuse_all_in_the_way(filled, empty, manifest, target)
    restored = await restore_backup(empty, RestoreOptions(source=target), manifest)

    assert manifest == taken.manifest
    assert manifest.rows["audit_chain"] == 30
    assert restored.verdict is not None
    assert restored.verdict.is_sound
    assert restored.verdict.heads == 1
    assert (restored.ended.sessions, restored.ended.links) == (1, 1)
    assert await fetch_one(empty, "SELECT count(*) FROM link_tokens") == 0
    assert restored.head_key is not None
    assert not restored.holds_files
    assert await fetch_one(empty, "SELECT revoked_reason FROM sessions") == "restored"
    told = "SELECT count(*) FROM audit_outbox WHERE convert_from(payload, 'UTF8') LIKE '%{}%'"
    assert await fetch_one(empty, told.format("system.restored")) == 1
    assert taken.is_told
    assert await fetch_one(filled, told.format("system.backed_up")) == 1
    assert empty.data_dir is not None
    (part,) = manifest.parts
    assert (empty.data_dir / "artifacts" / part.key).read_bytes() == CONTENT
    there, here = (
        await schema_of(servers, name_of(filled)),
        await schema_of(servers, name_of(empty)),
    )
    assert here == there


async def test_a_backup_of_an_older_revision_is_migrated(
    empty: Settings, servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "backup"
    for name, url in (("URL", empty.database.url), ("OWNER_URL", empty.database.owner_url)):
        assert url is not None
        monkeypatch.setenv(f"MAAS_DATABASE__{name}", url.get_secret_value())
    await make_anew(servers, empty, template=TEMPLATE)
    await asyncio.to_thread(command.downgrade, migration_config(), "-1")
    connection = await servers.connect(name_of(empty))
    for kind in ("TABLES", "SEQUENCES"):
        await connection.execute(f"GRANT SELECT ON ALL {kind} IN SCHEMA public TO maas_system")
    await connection.close()
    await take_backup(empty, BackupOptions(target=target, has_parts=False))
    older = await check_backup(target)
    await make_anew(servers, empty, template="template1")

    finish, seen = DatabaseRestore.finish, []

    async def look_and_finish(database: DatabaseRestore, revision: str) -> None:
        # Whoever is killed here, migrated, leaves nothing that anybody serves or migrates.
        seen.append(await fetch_one(empty, "SELECT count(*) FROM alembic_version"))
        with pytest.raises(RestoreBrokeOffError):
            await asyncio.to_thread(migrate)
        seen.append(await fetch_one(empty, "SELECT count(*) FROM alembic_version"))
        await finish(database, revision)

    monkeypatch.setattr(DatabaseRestore, "finish", look_and_finish)
    restored = await restore_backup(empty, RestoreOptions(source=target), older)

    assert older.revision != restored.revision == known_revisions().head
    assert seen == [0, 0]
    # Without the files, whose store may be another's, none is deleted before somebody says so.
    assert restored.holds_files
    resumed = [await resume_collection(empty.database) for _ in range(2)]
    assert resumed == [True, False]
    assert await fetch_one(empty, "SELECT version_num FROM alembic_version") == restored.revision


async def test_no_statement_of_a_restore_waits_for_the_disk_by_itself(
    filled: Settings, empty: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, seen = tmp_path / "backup", tmp_path / "seen"
    await take_backup(filled, BackupOptions(target=target, has_parts=False))
    manifest = await check_backup(target)
    real = await find_tool("pg_restore", server_major=18)
    ours = tmp_path / "bin" / "pg_restore"
    ours.parent.mkdir()
    ours.write_text(f'#!/bin/sh\necho "$PGOPTIONS" >>{seen}\nexec {real.path} "$@"\n')
    ours.chmod(0o755)
    monkeypatch.setenv("MAAS_PG_BIN", str(ours.parent))

    await restore_backup(empty, RestoreOptions(source=target), manifest)

    # Tables and policies.
    assert seen.read_text().split("\n").count("-c synchronous_commit=off") == 2


async def test_a_restore_that_breaks_off_leaves_what_does_not_serve(
    filled: Settings,
    empty: Settings,
    superuser: Superuser,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    target = tmp_path / "backup"
    assert filled.data_dir is not None
    await asyncio.to_thread(shutil.rmtree, filled.data_dir / "artifacts")
    await superuser.execute(
        "INSERT INTO blob_parts SELECT sha256, 1, 'parts/ended', size, part_sha256 FROM blob_parts"
    )
    let_go = Snapshot.let_go

    async def ended_meanwhile(snapshot: Snapshot) -> None:
        await let_go(snapshot)
        await superuser.execute("DELETE FROM blob_parts WHERE key = 'parts/ended'")

    monkeypatch.setattr(Snapshot, "let_go", ended_meanwhile)
    taken = await take_backup(filled, BackupOptions(target=target))
    manifest = await check_backup(target)
    rows = {**manifest.rows, "audit_chain": 31}

    with pytest.raises(HalfRestoredError, match="audit_chain: 30 instead of 31"):
        await restore_backup(empty, RestoreOptions(source=target), replace(manifest, rows=rows))

    # The store had lost a part; another went with its row, and is missed by nobody.
    assert len(manifest.parts) == 1
    assert taken.manifest.damaged_parts == [part.key for part in manifest.parts]
    assert await fetch_one(empty, "SELECT count(*) FROM alembic_version") == 0
    with pytest.raises(BackupError, match="no whole platform"):
        await take_backup(empty, BackupOptions(target=tmp_path / "of a half one"))


async def test_a_stopped_backup_leaves_nothing(settings: Settings, tmp_path: Path) -> None:
    begun = asyncio.Event()
    options = BackupOptions(target=tmp_path / "stopped")
    task = asyncio.create_task(
        take_backup(settings, options, progress=lambda _step, _done, _total: begun.set())
    )
    await begun.wait()

    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert not options.target.exists()
    assert not options.target.with_name("stopped.partial").exists()
