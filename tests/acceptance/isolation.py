"""What the running API may do, tried with the very credentials it runs on."""

import asyncio
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import asyncpg

from maas.shared.domain.ids import DEFAULT_TENANT_ID, new_id
from tests.acceptance.platforms import running
from tests.acceptance.verdict import Verdict, all_of

FORBIDDEN = (
    "INSERT INTO audit_log SELECT * FROM audit_log LIMIT 1",
    "UPDATE audit_log SET action = 'nothing.happened'",
    "DELETE FROM audit_log",
    "TRUNCATE audit_log",
    "DROP TABLE audit_log",
    "UPDATE audit_chain SET row_hash = leaf",
    "DELETE FROM audit_chain",
    "ALTER TABLE audit_log DISABLE ROW LEVEL SECURITY",
    "ALTER TABLE models DISABLE ROW LEVEL SECURITY",
    "SET ROLE maas_owner",
    "SET ROLE maas_system",
    "SET session_replication_role = replica",
)

TENANT_TABLES = """
    SELECT DISTINCT c.relname
    FROM pg_class c
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant_id' AND NOT a.attisdropped
    WHERE c.relnamespace = 'public'::regnamespace AND c.relrowsecurity AND NOT c.relispartition
      AND has_table_privilege(c.oid, 'SELECT')
"""


def try_everything(folder: Path) -> Verdict:
    with running(folder) as platform:
        person = platform.sign_in()
        with person.client() as client:
            new = {"name": f"{person.name}/model", "framework": "other"}
            client.post("/api/v1/models", json=new).raise_for_status()
        url = platform.environment_of("serve")["MAAS_DATABASE__URL"]
        return asyncio.run(_try_everything(url))


async def _try_everything(url: str) -> Verdict:
    connection: Any = await asyncpg.connect(**connection_arguments(url))
    try:
        role = await connection.fetchval("SELECT current_user")
        allowed = [each for each in FORBIDDEN if not await _is_refused(connection, each)]
        tables, foreign, own = await _look_across(connection)
        refused = await _is_refused(connection, "SELECT count(*) FROM models")
    finally:
        await connection.close()
    return all_of(
        (role == "maas_app", f"it runs as {role}"),
        (not allowed, f"{len(FORBIDDEN) - len(allowed)} of {len(FORBIDDEN)} attempts refused"),
        (own > 0, f"{own} own rows"),
        (foreign == 0, f"{foreign} foreign rows in {tables} tables read without any filter"),
        (refused, "no tenant, no rows but an error"),
    )


def connection_arguments(url: str) -> dict[str, Any]:
    parts = urlsplit(url)
    query = parse_qs(parts.query)
    return {
        "host": query.get("host", [parts.hostname])[0],
        "port": int(query.get("port", [parts.port or 5432])[0]),
        "user": parts.username,
        "password": unquote(parts.password or ""),
        "database": parts.path.lstrip("/"),
    }


async def _is_refused(connection: Any, statement: str) -> bool:
    transaction = connection.transaction()
    await transaction.start()
    try:
        await connection.execute(statement)
    except asyncpg.PostgresError:
        return True
    else:
        return False
    finally:
        await transaction.rollback()


async def _look_across(connection: Any) -> tuple[int, int, int]:
    """Count the rows that another tenant would see, and those that the right one sees."""
    tables = [row["relname"] for row in await connection.fetch(TENANT_TABLES)]
    foreign = own = 0
    for table in tables:
        # Rows of the default tenant, looked for by somebody who acts in another one.
        question = f"SELECT count(*) FROM {table} WHERE tenant_id = '{DEFAULT_TENANT_ID}'"
        foreign += await _as_tenant(connection, str(new_id()), question)
        own += await _as_tenant(connection, str(DEFAULT_TENANT_ID), question)
    return len(tables), foreign, own


async def _as_tenant(connection: Any, tenant: str, question: str) -> int:
    async with connection.transaction():
        await connection.execute("SELECT set_config('maas.tenant_id', $1, true)", tenant)
        count: int = await connection.fetchval(question)
        return count
