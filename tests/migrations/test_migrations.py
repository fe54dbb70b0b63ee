"""The migrations build the schema from nothing, say what the mappings say, and can be undone."""

import asyncio
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

from tests.servers import Servers

ROOT = Path(__file__).resolve().parents[2]
# One for each worker of xdist, which may run these tests side by side.
DATABASE = f"maas_stairs_{os.environ.get('PYTEST_XDIST_WORKER', 'alone')}"

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]


@pytest.fixture
def config(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> Iterator[Config]:
    """Alembic's own configuration, on an empty database."""
    asyncio.run(execute(servers, f"CREATE DATABASE {DATABASE} OWNER maas_owner"))
    monkeypatch.setenv("MAAS_DATABASE__URL", servers.database_url(DATABASE, "maas_app"))
    monkeypatch.setenv("MAAS_DATABASE__OWNER_URL", servers.database_url(DATABASE, "maas_owner"))
    yield Config(ROOT / "alembic.ini")
    asyncio.run(execute(servers, f"DROP DATABASE {DATABASE} WITH (FORCE)"))


async def execute(servers: Servers, statement: str, *, database: str = "postgres") -> str:
    """Run one statement and return its first value, or nothing."""
    connection = await servers.connect(database)
    value = await connection.fetchval(statement)
    await connection.close()
    return str(value)


async def tables(servers: Servers) -> set[str]:
    connection = await servers.connect(DATABASE)
    rows = await connection.fetch(
        "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
        " AND tablename <> 'alembic_version'"
    )
    await connection.close()
    return {row["tablename"] for row in rows}


def revisions(config: Config) -> list[str]:
    """List the revisions, oldest first."""
    scripts = ScriptDirectory.from_config(config)
    return [script.revision for script in scripts.walk_revisions()][::-1]


def test_there_is_one_head(config: Config) -> None:
    assert len(ScriptDirectory.from_config(config).get_heads()) == 1


def test_files_are_named_by_time_and_subject() -> None:
    names = [path.name for path in (ROOT / "alembic" / "versions").glob("*.py")]

    assert names
    assert [n for n in names if not re.fullmatch(r"\d{4}_\d\d_\d\d_\d{4}-[a-z0-9_-]+\.py", n)] == []


def test_the_schema_is_what_the_mappings_say(config: Config) -> None:
    command.upgrade(config, "head")

    command.check(config)


@pytest.mark.timeout(240)  # two dozen steps, each twice: a minute on a busy machine
def test_every_step_can_be_taken_back_and_taken_again(config: Config) -> None:
    for revision in revisions(config):
        command.upgrade(config, revision)
        command.downgrade(config, "-1")
        command.upgrade(config, revision)


def test_going_all_the_way_back_leaves_no_table(config: Config, servers: Servers) -> None:
    command.upgrade(config, "head")
    before = asyncio.run(tables(servers))

    command.downgrade(config, "base")

    assert before
    assert asyncio.run(tables(servers)) == set()


def test_two_who_migrate_at_once_both_come_through(config: Config, servers: Servers) -> None:
    async def upgrade() -> int:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "alembic", "-c", str(config.config_file_name), "upgrade", "head"
        )
        return await process.wait()

    async def race() -> list[int]:
        return list(await asyncio.gather(upgrade(), upgrade()))

    assert asyncio.run(race()) == [0, 0]
    assert "accounts" in asyncio.run(tables(servers))


@pytest.mark.parametrize(
    ("before", "leftover", "revision"),
    [
        ("0006_sign_in_aids", "ix_sessions_tenant_id ON sessions (id)", "0007_admin"),
        ("0008_leaving", "ix_accounts_search ON accounts (id)", "0009_search"),
    ],
)
def test_an_index_that_was_cut_short_is_built_anew(
    config: Config, servers: Servers, before: str, leftover: str, revision: str
) -> None:
    command.upgrade(config, before)
    asyncio.run(execute(servers, f"CREATE INDEX {leftover}", database=DATABASE))

    command.upgrade(config, revision)

    name = leftover.partition(" ")[0]
    definition = asyncio.run(
        execute(servers, f"SELECT pg_get_indexdef('{name}'::regclass)", database=DATABASE)
    )
    assert "(id)" not in definition


def test_migrating_twice_changes_nothing(config: Config, servers: Servers) -> None:
    command.upgrade(config, "head")
    before = asyncio.run(tables(servers))

    command.upgrade(config, "head")

    assert asyncio.run(tables(servers)) == before
