"""Reads of deployments: raw asyncpg, each in a read-only transaction of its tenant.

Row-level security lets a tenant read the row of a deployment it may call, and no target of it.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import asyncpg

from maas.inference.application.deployment_queries import (
    DeploymentDetails,
    DeploymentFilter,
)
from maas.inference.domain.deployment import DeploymentNotFoundError
from maas.inference.infrastructure.deployment_rows import DEPLOYMENT_COLUMNS, read_deployment
from maas.inference.public import DeploymentId
from maas.shared.domain.grants import Grant
from maas.shared.domain.ids import TenantId
from maas.shared.domain.page import Page, PageRequest, cut_page, position_of
from maas.shared.domain.principal import Principal
from maas.shared.infrastructure.database import Database, PooledConnection
from maas.shared.infrastructure.grants import GrantPages

_LIVE: Final = "d.deleted_at IS NULL"

GET_DEPLOYMENT: Final = f"""
SELECT {DEPLOYMENT_COLUMNS} FROM deployments d
WHERE d.id = $2 AND {_LIVE} AND (d.tenant_id = $1 OR d.visibility = 'public' OR EXISTS (
    SELECT FROM deployment_grants g WHERE g.deployment_id = d.id AND g.tenant_id = d.tenant_id
      AND g.grantee_id = $1))
"""  # noqa: S608  no input in it

# By three indexes: a condition with OR would look at every deployment there is.
_WANTED: Final = f"""
SELECT * FROM (
    SELECT d.* FROM deployments d WHERE d.tenant_id = $1 AND {_LIVE}
    UNION ALL
    SELECT d.* FROM deployment_grants g
    JOIN deployments d ON d.id = g.deployment_id AND d.tenant_id = g.tenant_id
    WHERE g.grantee_id = $1 AND d.tenant_id <> $1 AND d.visibility = 'tenant' AND {_LIVE}
    UNION ALL
    SELECT d.* FROM deployments d
    WHERE d.visibility = 'public' AND d.tenant_id <> $1 AND {_LIVE}
) d WHERE ($2::text IS NULL OR d.name = $2) AND ($3::text IS NULL OR d.status = $3)
"""  # noqa: S608  likewise

LIST_DEPLOYMENTS: Final = f"""
SELECT {DEPLOYMENT_COLUMNS} FROM ({_WANTED}) d
WHERE ($4::timestamptz IS NULL OR (d.created_at, d.id) < ($4, $5::uuid))
ORDER BY d.created_at DESC, d.id DESC LIMIT $6
"""  # noqa: S608  likewise

COUNT_DEPLOYMENTS: Final = f"SELECT count(*) FROM ({_WANTED}) d"  # noqa: S608  likewise

_TARGETS: Final = """
SELECT * FROM deployment_targets WHERE tenant_id = $1 AND deployment_id = ANY ($2::uuid[])
ORDER BY deployment_id, position
"""

HAS_OWN: Final = "SELECT 1 FROM deployments WHERE tenant_id = $1 AND id = $2 AND deleted_at IS NULL"

_GRANTS: Final = GrantPages("deployment_grants", "deployment_id")


class PostgresDeploymentQueries:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def get_deployment(
        self, caller: Principal, deployment_id: DeploymentId
    ) -> DeploymentDetails:
        async with self._database.tenant(caller.tenant_id) as connection:
            row = await connection.fetchrow(GET_DEPLOYMENT, caller.tenant_id, deployment_id)
            if row is None:
                raise DeploymentNotFoundError
            shown = await _show(connection, caller.tenant_id, [row])
        return shown[0]

    async def list_deployments(
        self, caller: Principal, wanted: DeploymentFilter, page: PageRequest
    ) -> Page[DeploymentDetails]:
        scope = (caller.tenant_id, wanted.name, wanted.status)
        async with self._database.tenant(caller.tenant_id) as connection:
            rows = await connection.fetch(LIST_DEPLOYMENTS, *scope, *page.keyset, page.limit + 1)
            found = await _show(connection, caller.tenant_id, rows)
            total = (
                await connection.fetchval(COUNT_DEPLOYMENTS, *scope) if page.include_total else None
            )
        return cut_page(found, page.limit, total, position_of)

    async def list_grants(
        self, caller: Principal, deployment_id: DeploymentId, page: PageRequest
    ) -> Page[Grant]:
        own = (caller.tenant_id, deployment_id)
        async with self._database.tenant(caller.tenant_id) as connection:
            if await connection.fetchval(HAS_OWN, *own) is None:
                raise DeploymentNotFoundError
            return await _GRANTS.read(connection, *own, page)


async def _show(
    connection: PooledConnection, tenant_id: TenantId, rows: Sequence[asyncpg.Record]
) -> list[DeploymentDetails]:
    """Show rows with their targets, as far as they are the tenant's."""
    own = [row["id"] for row in rows if row["tenant_id"] == tenant_id]
    targets: defaultdict[Any, list[asyncpg.Record]] = defaultdict(list)
    for target in await connection.fetch(_TARGETS, tenant_id, own) if own else ():
        targets[target["deployment_id"]].append(target)
    return [
        details
        if row["tenant_id"] == tenant_id
        else replace(details, targets=None, created_by=None)
        for row in rows
        for details in [DeploymentDetails.of(read_deployment(row.items(), targets[row["id"]]))]
    ]
