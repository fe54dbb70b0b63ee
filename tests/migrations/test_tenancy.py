"""What the database itself refuses, whatever the application asks for."""

import re
from typing import TypeAlias

import asyncpg
import pytest

pytestmark = pytest.mark.integration

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

LOOKED_UP_BEFORE_THE_TENANT_IS_KNOWN = ["sessions"]
"""The one list of tables that name a tenant and have no row-level security all the same."""

# A table that the application can only insert into has nothing to show to a foreign tenant.
# A partition is reached through its parent, whose policies hold there; by its own name nobody but
# the owner may touch it, which is looked at apart.
UNPROTECTED = """
    SELECT c.relname
    FROM pg_class c
    JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = 'public'
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant_id' AND NOT a.attisdropped
    WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition
      AND has_any_column_privilege('maas_app', c.oid, 'SELECT, UPDATE')
      AND NOT (
        c.relrowsecurity AND c.relforcerowsecurity
        AND EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = c.oid)
      )
    ORDER BY 1
"""

OPEN_PARTITIONS = """
    SELECT c.relname
    FROM pg_class c
    JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = 'public'
    WHERE c.relispartition
      AND (
        has_table_privilege('maas_app', c.oid, 'SELECT')
        OR has_table_privilege('maas_app', c.oid, 'INSERT')
        OR has_table_privilege('maas_app', c.oid, 'UPDATE')
        OR has_table_privilege('maas_app', c.oid, 'DELETE')
      )
      AND NOT c.relrowsecurity
    ORDER BY 1
"""


async def names(connection: Connection, query: str) -> list[str]:
    return [row["relname"] for row in await connection.fetch(query)]


async def test_every_table_of_a_tenant_is_behind_row_level_security(superuser: Connection) -> None:
    tables = await superuser.fetchval(
        "SELECT count(DISTINCT table_name) FROM information_schema.columns"
        " WHERE table_schema = 'public' AND column_name = 'tenant_id'"
    )

    assert await names(superuser, UNPROTECTED) == LOOKED_UP_BEFORE_THE_TENANT_IS_KNOWN
    assert tables > 5


async def test_no_partition_is_a_way_around(superuser: Connection) -> None:
    assert await names(superuser, OPEN_PARTITIONS) == []


async def test_the_application_is_bound_and_owns_nothing(superuser: Connection) -> None:
    role = await superuser.fetchrow(
        "SELECT rolsuper, rolbypassrls, rolcreaterole, rolcreatedb FROM pg_roles"
        " WHERE rolname = 'maas_app'"
    )
    owned = await superuser.fetchval(
        "SELECT count(*) FROM pg_class c JOIN pg_roles r ON r.oid = c.relowner"
        " WHERE r.rolname = 'maas_app'"
    )

    assert role is not None
    assert not any(role.values())
    assert owned == 0


@pytest.mark.parametrize("role", ["maas_app", "maas_system"])
async def test_serving_roles_define_nothing(superuser: Connection, role: str) -> None:
    assert not await superuser.fetchval("SELECT has_schema_privilege($1, 'public', 'CREATE')", role)


async def test_no_function_of_ours_looks_at_temporary_objects_first(superuser: Connection) -> None:
    """They come first unless a path names them, and anybody may make some."""
    paths = await superuser.fetch(
        "SELECT proname, proconfig::text AS config FROM pg_proc"
        " WHERE prosecdef AND pronamespace = 'public'::regnamespace"
    )

    assert len(paths) > 5
    unsafe = [row["proname"] for row in paths if not re.search(r", pg_temp\b", row["config"] or "")]
    assert unsafe == []


@pytest.mark.parametrize("privilege", ["INSERT", "UPDATE", "DELETE", "TRUNCATE"])
async def test_the_application_cannot_touch_the_log(superuser: Connection, privilege: str) -> None:
    allowed = await superuser.fetchval(
        "SELECT has_table_privilege('maas_app', 'audit_log', $1)", privilege
    )

    assert not allowed


class TestPlanted:
    async def test_a_table_without_row_level_security_is_found(self, superuser: Connection) -> None:
        transaction = superuser.transaction()
        await transaction.start()
        try:
            await superuser.execute(
                "CREATE TABLE planted (id uuid, tenant_id uuid);GRANT SELECT ON planted TO maas_app"
            )

            assert "planted" in await names(superuser, UNPROTECTED)
        finally:
            await transaction.rollback()

    async def test_security_that_spares_the_owner_is_found(self, superuser: Connection) -> None:
        transaction = superuser.transaction()
        await transaction.start()
        try:
            await superuser.execute(
                "CREATE TABLE planted (id uuid, tenant_id uuid);"
                "ALTER TABLE planted ENABLE ROW LEVEL SECURITY;"
                "CREATE POLICY planted ON planted USING (true);"
                "GRANT SELECT ON planted TO maas_app"
            )

            assert "planted" in await names(superuser, UNPROTECTED)
        finally:
            await transaction.rollback()
