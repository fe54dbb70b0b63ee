"""Reads of the admin area: members, roles and tenants, each as a page or one."""

from collections.abc import Sequence

import asyncpg

from maas.shared.domain.ids import AccountId, TenantId
from maas.shared.domain.page import Page, PageRequest, Position, cut_page, position_of
from maas.shared.infrastructure.database import Database
from maas.user.application.admin_ports import (
    MemberDetails,
    MemberFilter,
    RoleDetails,
    TenantDetails,
)
from maas.user.domain.role import RoleName, RoleNotFoundError
from maas.user.domain.tenant import MemberNotFoundError, TenantNotFoundError, TenantStatus

GET_MEMBER = """
SELECT a.id, a.username, a.email, a.display_name, a.status AS account_status,
       a.password_change_required, a.home_tenant_id, m.status, m.status_reason,
       ARRAY(SELECT r.role_name FROM membership_roles r
             WHERE r.tenant_id = m.tenant_id AND r.account_id = m.account_id ORDER BY 1) AS roles,
       m.created_at, greatest(m.updated_at, a.updated_at) AS updated_at,
       m.version + a.version AS version
FROM memberships m JOIN accounts a ON a.id = m.account_id
WHERE m.tenant_id = $1 AND m.account_id = $2
"""

FIND_MEMBERS = "SELECT * FROM member_search($1, $2, $3, $4, $5, $6)"
COUNT_MEMBERS = "SELECT member_search_count($1, $2, $3)"

_ROLE_COLUMNS = "name, description, permissions, is_protected, created_at, updated_at, version"
LIST_ROLES = f"""
SELECT {_ROLE_COLUMNS} FROM roles WHERE tenant_id = $1 ORDER BY name
"""  # noqa: S608  no input in it
GET_ROLE = f"SELECT {_ROLE_COLUMNS} FROM roles WHERE tenant_id = $1 AND name = $2"  # noqa: S608  likewise

_TENANT_COLUMNS = "id, slug, name, status, status_reason, created_at, updated_at, version"
_TENANT_MATCHES = r"""
status <> 'deleted' AND ($1::text IS NULL OR status = $1)
AND ($2::text IS NULL OR slug ILIKE $2 OR name ILIKE $2)
"""
LIST_TENANTS = f"""
SELECT {_TENANT_COLUMNS} FROM tenants WHERE {_TENANT_MATCHES}
  AND ($3::timestamptz IS NULL OR (created_at, id) < ($3, $4::uuid))
ORDER BY created_at DESC, id DESC LIMIT $5
"""  # noqa: S608  no input in it
COUNT_TENANTS = f"SELECT count(*) FROM tenants WHERE {_TENANT_MATCHES}"  # noqa: S608  likewise
GET_TENANT = f"SELECT {_TENANT_COLUMNS} FROM tenants WHERE id = $1 AND status <> 'deleted'"  # noqa: S608  likewise


class PostgresDirectoryQueries:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def get_member(self, tenant_id: TenantId, account_id: AccountId) -> MemberDetails:
        async with self._database.tenant(tenant_id) as connection:
            row = await connection.fetchrow(GET_MEMBER, tenant_id, account_id)
        if row is None:
            raise MemberNotFoundError
        return MemberDetails(**row)

    async def list_members(
        self, tenant_id: TenantId, wanted: MemberFilter, page: PageRequest
    ) -> Page[MemberDetails]:
        filters = (wanted.search, wanted.status, wanted.role)
        async with self._database.tenant(tenant_id) as connection:
            rows = await connection.fetch(FIND_MEMBERS, *filters, *page.keyset, page.limit + 1)
            total = None
            if page.include_total:
                total = await connection.fetchval(COUNT_MEMBERS, *filters)
        members = [MemberDetails(**row) for row in rows]
        return cut_page(members, page.limit, total, position_of)

    async def read_members(
        self, tenant_id: TenantId, wanted: MemberFilter, *, after: Position | None, limit: int
    ) -> Sequence[MemberDetails]:
        async with self._database.tenant(tenant_id) as connection:
            rows = await connection.fetch(
                FIND_MEMBERS,
                wanted.search,
                wanted.status,
                wanted.role,
                *PageRequest(after=after).keyset,
                limit,
            )
        return [MemberDetails(**row) for row in rows]

    async def list_roles(self, tenant_id: TenantId) -> list[RoleDetails]:
        async with self._database.tenant(tenant_id) as connection:
            rows = await connection.fetch(LIST_ROLES, tenant_id)
        return [RoleDetails(**row) for row in rows]

    async def get_role(self, tenant_id: TenantId, name: RoleName) -> RoleDetails:
        async with self._database.tenant(tenant_id) as connection:
            row = await connection.fetchrow(GET_ROLE, tenant_id, name.value)
        if row is None:
            raise RoleNotFoundError
        return RoleDetails(**row)

    async def list_tenants(
        self, page: PageRequest, *, search: str | None, status: TenantStatus | None
    ) -> Page[TenantDetails]:
        filters = (status, None if search is None else _pattern(search))
        async with self._database.acquire() as connection:
            rows: list[asyncpg.Record] = await connection.fetch(
                LIST_TENANTS, *filters, *page.keyset, page.limit + 1
            )
            total = None
            if page.include_total:
                total = await connection.fetchval(COUNT_TENANTS, *filters)
        tenants = [TenantDetails(**row) for row in rows]
        return cut_page(tenants, page.limit, total, position_of)

    async def get_tenant(self, tenant_id: TenantId) -> TenantDetails:
        row = await self._database.fetchrow(GET_TENANT, tenant_id)
        if row is None:
            raise TenantNotFoundError
        return TenantDetails(**row)


def _pattern(search: str) -> str:
    """Look for a part of a text; what are wildcards elsewhere are letters here."""
    for special in ("\\", "%", "_"):
        search = search.replace(special, f"\\{special}")
    return f"%{search}%"
