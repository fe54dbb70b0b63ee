"""The step that brings suppliers: developers of the tenants that are there may read them."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest
from alembic import command
from alembic.config import Config

from tests.servers import Servers

ROOT = Path(__file__).resolve().parents[2]
DATABASE = f"maas_providers_{os.environ.get('PYTEST_XDIST_WORKER', 'alone')}"
BEFORE, AFTER = "0026_upload_rights", "0027_providers"

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]

# Beside the default tenant: one with the built-in role, one with a role of its own of that name.
FILL = """
    INSERT INTO tenants (id, slug, name) VALUES
        (lpad('1', 32, '0')::uuid, 'a', 'A'), (lpad('2', 32, '0')::uuid, 'b', 'B');
    INSERT INTO roles (tenant_id, name, permissions, is_protected) VALUES
        (lpad('1', 32, '0')::uuid, 'developer', ARRAY['model:read'], true),
        (lpad('2', 32, '0')::uuid, 'developer', ARRAY['model:read'], false);
"""
MAY_READ = """
    SELECT array_agg(t.slug || r.version ORDER BY t.slug)
    FROM roles r JOIN tenants t ON t.id = r.tenant_id
    WHERE 'provider:read' = ANY (r.permissions)
"""


@pytest.fixture
def config(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> Iterator[Config]:
    asyncio.run(ask(servers, "postgres", f"CREATE DATABASE {DATABASE} OWNER maas_owner"))
    monkeypatch.setenv("MAAS_DATABASE__URL", servers.database_url(DATABASE, "maas_app"))
    monkeypatch.setenv("MAAS_DATABASE__OWNER_URL", servers.database_url(DATABASE, "maas_owner"))
    found = Config(ROOT / "alembic.ini")
    command.upgrade(found, BEFORE)
    asyncio.run(ask(servers, DATABASE, FILL))
    yield found
    asyncio.run(ask(servers, "postgres", f"DROP DATABASE {DATABASE} WITH (FORCE)"))


async def ask(servers: Servers, database: str, query: str) -> object:
    connection: asyncpg.Connection[asyncpg.Record] = await servers.connect(database)
    try:
        if not query.lstrip().startswith("SELECT"):
            return await connection.execute(query)
        return await connection.fetchval(query)
    finally:
        await connection.close()


def test_developers_of_all_tenants_may_read_until_it_is_taken_back(
    servers: Servers, config: Config
) -> None:
    command.upgrade(config, AFTER)
    upgraded = asyncio.run(ask(servers, DATABASE, MAY_READ))
    command.downgrade(config, BEFORE)
    taken_back = asyncio.run(ask(servers, DATABASE, MAY_READ))

    assert upgraded == ["a2", "default2"]
    assert taken_back is None
