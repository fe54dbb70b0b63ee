"""Rows from before the rollups are counted once, and so are those that come meanwhile."""

import asyncio
import os
import random
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest
from alembic import command
from alembic.config import Config

from maas.audit.infrastructure.rollup_check import find_rollup_differences
from tests.servers import Servers

ROOT = Path(__file__).resolve().parents[2]
DATABASE = f"maas_rollups_{os.environ.get('PYTEST_XDIST_WORKER', 'alone')}"
BEFORE, AFTER = "0011_audit_pipeline", "0012_audit_rollups"
ROWS = 3_000

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]

# As the flush does it: the head first, the log second, rows of any month and class.
INSERT = """
    WITH head AS (UPDATE audit_head SET seq = seq + $1 WHERE id = 1 RETURNING seq - $1 AS seq)
    INSERT INTO audit_log (seq, recorded_at, retention_class, event_id, tenant_id, occurred_at,
        actor_kind, actor_id, action, outcome, request_id, payload)
    SELECT head.seq + n, clock_timestamp() + n % 3 * interval '1 month',
        (ARRAY['security', 'operations', 'usage'])[1 + n % 3], gen_random_uuid(),
        lpad((n % 2)::text, 32, '0')::uuid, clock_timestamp() - n % 100 * interval '7 hours',
        'account', lpad(nullif(n % 5, 0)::text, 32, '0')::uuid, 'a.' || n % 4,
        (ARRAY['success', 'failure', 'denied'])[1 + n % 3], 'r', ''
    FROM head, generate_series(1, $1::integer) AS n
"""


@pytest.fixture
def config(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> Iterator[Config]:
    asyncio.run(execute(servers, "postgres", f"CREATE DATABASE {DATABASE} OWNER maas_owner"))
    monkeypatch.setenv("MAAS_DATABASE__URL", servers.database_url(DATABASE, "maas_app"))
    monkeypatch.setenv("MAAS_DATABASE__OWNER_URL", servers.database_url(DATABASE, "maas_owner"))
    yield Config(ROOT / "alembic.ini")
    asyncio.run(execute(servers, "postgres", f"DROP DATABASE {DATABASE} WITH (FORCE)"))


async def execute(servers: Servers, database: str, *statements: str) -> None:
    connection = await servers.connect(database)
    for statement in statements:
        await connection.execute(statement)
    await connection.close()


async def insert(connection: "asyncpg.Connection[asyncpg.Record]", rows: int) -> None:
    await connection.execute(INSERT, rows)


async def differences(servers: Servers) -> tuple[list[tuple[str, str]], int]:
    connection = await servers.connect(DATABASE)
    found = await find_rollup_differences(connection, 9)
    total = await connection.fetchval("SELECT coalesce(sum(events), 0) FROM audit_rollup_hours")
    await connection.close()
    return found, int(total)


def test_what_was_there_and_what_comes_meanwhile_is_counted_once(
    config: Config, servers: Servers
) -> None:
    command.upgrade(config, BEFORE)
    inserted = ROWS

    async def fill() -> None:
        connection = await servers.connect(DATABASE)
        await insert(connection, ROWS)
        await connection.close()

    async def migrate_while_inserting() -> int:
        connection = await servers.connect(DATABASE)
        dice = random.Random(ROWS)  # noqa: S311  a dice, not a secret
        migration = asyncio.create_task(asyncio.to_thread(command.upgrade, config, AFTER))
        rows = 0
        while not migration.done():
            batch = dice.randint(1, 20)
            await insert(connection, batch)
            rows += batch
        await migration
        await connection.close()
        return rows

    asyncio.run(fill())
    inserted += asyncio.run(migrate_while_inserting())

    assert asyncio.run(differences(servers)) == ([], inserted)
    command.downgrade(config, "-1")
    asyncio.run(fill())


def test_cut_short_it_begins_anew(config: Config, servers: Servers) -> None:
    command.upgrade(config, BEFORE)

    async def fill() -> None:
        connection = await servers.connect(DATABASE)
        await insert(connection, ROWS)
        await connection.close()

    asyncio.run(fill())
    command.upgrade(config, AFTER)
    # What a run leaves that was ended in its last part: everything but the mark of being done.
    undone = f"UPDATE alembic_version SET version_num = '{BEFORE}'"
    asyncio.run(execute(servers, DATABASE, undone, "DELETE FROM audit_rollup_days"))

    command.upgrade(config, AFTER)

    assert asyncio.run(differences(servers)) == ([], ROWS)
