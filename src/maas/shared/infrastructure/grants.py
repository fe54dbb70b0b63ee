"""Rows of grants, which models, suppliers and deployments keep alike.

Each has a table of its own: the thing's id, `tenant_id` (whose the thing is), `grantee_id`,
`created_by` and `created_at`.
"""

from typing import Any
from uuid import UUID

from sqlalchemy import Column, delete, func, insert, select
from sqlalchemy.ext.asyncio import AsyncSession

from maas.shared.domain.errors import RuleViolatedError
from maas.shared.domain.grants import Grant
from maas.shared.domain.ids import TenantId
from maas.shared.domain.page import Page, PageRequest, Position, cut_page
from maas.shared.infrastructure.database import PooledConnection


class SqlGrants:
    """The grants of one tenant's things of a kind; `thing` is the column that names the thing."""

    def __init__(
        self, session: AsyncSession, thing: Column[UUID], tenant_id: TenantId | None
    ) -> None:
        self._session = session
        self._thing = thing
        self._rows = thing.table.c
        self._tenant_id = tenant_id

    async def add(
        self, thing_id: UUID, grant: Grant, *, at_most: int, too_many: type[RuleViolatedError]
    ) -> tuple[Grant, bool]:
        """Have the grant, or the one the tenant had before; and tell whether it is new.

        The thing's row is locked, so no other grant of it comes between the look and the row.
        """
        rows = self._rows
        of_thing = (self._thing == thing_id, rows.tenant_id == self._tenant_id)
        found = await self._session.execute(
            select(rows.created_by, rows.created_at).where(
                *of_thing, rows.grantee_id == grant.tenant_id
            )
        )
        row = found.mappings().one_or_none()
        if row is not None:
            return Grant(tenant_id=grant.tenant_id, **row), False
        granted = await self._session.scalar(select(func.count(self._thing)).where(*of_thing))
        if granted is not None and granted >= at_most:
            raise too_many
        values: dict[str, Any] = {
            self._thing.name: thing_id,
            "tenant_id": self._tenant_id,
            "grantee_id": grant.tenant_id,
            "created_by": grant.created_by,
            "created_at": grant.created_at,
        }
        await self._session.execute(insert(self._thing.table).values(values))
        return grant, True

    async def remove(self, thing_id: UUID, grantee_id: TenantId) -> bool:
        """Have the grant no longer, and tell whether there was one."""
        rows = self._rows
        revoked = await self._session.scalar(
            delete(self._thing.table)
            .where(
                self._thing == thing_id,
                rows.tenant_id == self._tenant_id,
                rows.grantee_id == grantee_id,
            )
            .returning(rows.grantee_id)
        )
        return revoked is not None


class GrantPages:
    """Reads pages of grants, newest first, from a table whose column `thing` names the thing."""

    def __init__(self, table: str, thing: str) -> None:
        of_thing = f"FROM {table} g WHERE g.tenant_id = $1 AND g.{thing} = $2"
        self._list = f"""
            SELECT g.grantee_id AS tenant_id, g.created_by, g.created_at {of_thing}
              AND ($3::timestamptz IS NULL OR (g.created_at, g.grantee_id) < ($3, $4::uuid))
            ORDER BY g.created_at DESC, g.grantee_id DESC LIMIT $5
        """
        self._count = f"SELECT count(*) {of_thing}"

    async def read(
        self, connection: PooledConnection, tenant_id: TenantId, thing_id: UUID, page: PageRequest
    ) -> Page[Grant]:
        own = (tenant_id, thing_id)
        rows = await connection.fetch(self._list, *own, *page.keyset, page.limit + 1)
        total = await connection.fetchval(self._count, *own) if page.include_total else None
        return cut_page(
            [Grant(**row) for row in rows],
            page.limit,
            total,
            lambda last: Position(at=last.created_at, id=last.tenant_id),
        )
