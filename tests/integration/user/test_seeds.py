"""The roles that the migration seeds are those the code speaks of."""

import asyncpg
import pytest

from maas.user.public import BUILT_IN_ROLES, PLATFORM_ADMIN_PERMISSIONS, PLATFORM_ADMIN_ROLE

pytestmark = pytest.mark.integration


async def test_the_default_tenant_has_the_built_in_roles_and_no_others(
    superuser: "asyncpg.Connection[asyncpg.Record]", clean: None
) -> None:
    rows = await superuser.fetch("SELECT name, permissions, is_protected FROM roles")

    assert all(row["is_protected"] for row in rows)
    assert {row["name"]: frozenset(row["permissions"]) for row in rows} == {
        **BUILT_IN_ROLES,
        PLATFORM_ADMIN_ROLE: PLATFORM_ADMIN_PERMISSIONS,
    }
