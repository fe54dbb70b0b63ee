"""Reads of one's own sessions and tenants: raw asyncpg over tables that have no tenant."""

from datetime import datetime
from typing import Final
from uuid import UUID

import asyncpg

from maas.shared.domain.ids import AccountId, SessionId, TenantId
from maas.shared.domain.page import Page, PageRequest, cut_page, position_of
from maas.shared.infrastructure.database import Database
from maas.user.application.ports import TenantChoice
from maas.user.application.sessions import SessionDetails, TenantDetails

_SESSIONS: Final = """
SELECT s.id, s.created_at, s.last_used_at, least(s.expires_at, s.idle_expires_at) AS expires_at,
       host(s.address) AS address, s.user_agent, s.tenant_id,
       (SELECT t.slug FROM tenants t WHERE t.id = s.tenant_id) AS tenant
FROM sessions s WHERE s.account_id = $1 AND s.revoked_at IS NULL
    AND s.expires_at > $2 AND s.idle_expires_at > $2
    AND ($3::timestamptz IS NULL OR (s.created_at, s.id) < ($3, $4::uuid))
ORDER BY s.created_at DESC, s.id DESC LIMIT $5
"""
_COUNT_SESSIONS: Final = """
SELECT count(*) FROM sessions s WHERE s.account_id = $1 AND s.revoked_at IS NULL
    AND s.expires_at > $2 AND s.idle_expires_at > $2
"""

_TENANTS: Final = """
SELECT t.id, t.slug, t.name, t.created_at FROM tenants_of($1) m JOIN tenants t ON t.id = m.id
WHERE $2::timestamptz IS NULL OR (t.created_at, t.id) < ($2, $3::uuid)
ORDER BY t.created_at DESC, t.id DESC LIMIT $4
"""
_COUNT_TENANTS: Final = "SELECT count(*) FROM tenants_of($1)"
_TENANT: Final = "SELECT id, slug FROM tenants_of($1) WHERE slug = $2"


class PostgresSessionQueries:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def list_live(
        self, account_id: AccountId, *, at: datetime, page: PageRequest
    ) -> Page[SessionDetails]:
        async with self._database.acquire() as connection:
            rows = await connection.fetch(_SESSIONS, account_id, at, *_edge(page), page.limit + 1)
            total = None
            if page.include_total:
                total = await connection.fetchval(_COUNT_SESSIONS, account_id, at)
        return cut_page([_session(row) for row in rows], page.limit, total, position_of)

    async def list_tenants(
        self, account_id: AccountId, *, page: PageRequest
    ) -> Page[TenantDetails]:
        async with self._database.acquire() as connection:
            rows = await connection.fetch(_TENANTS, account_id, *_edge(page), page.limit + 1)
            total = None
            if page.include_total:
                total = await connection.fetchval(_COUNT_TENANTS, account_id)
        return cut_page([_tenant(row) for row in rows], page.limit, total, position_of)

    async def find_tenant(self, account_id: AccountId, slug: str) -> TenantChoice | None:
        row = await self._database.fetchrow(_TENANT, account_id, slug)
        return None if row is None else TenantChoice(id=TenantId(row["id"]), slug=row["slug"])


def _edge(page: PageRequest) -> tuple[datetime | None, UUID | None]:
    return (None, None) if page.after is None else (page.after.at, page.after.id)


def _session(row: asyncpg.Record) -> SessionDetails:
    return SessionDetails(
        id=SessionId(row["id"]),
        created_at=row["created_at"],
        last_used_at=row["last_used_at"],
        expires_at=row["expires_at"],
        address=row["address"],
        user_agent=row["user_agent"],
        tenant_id=TenantId(row["tenant_id"]),
        tenant=row["tenant"],
    )


def _tenant(row: asyncpg.Record) -> TenantDetails:
    return TenantDetails(
        id=TenantId(row["id"]),
        slug=row["slug"],
        name=row["name"],
        created_at=row["created_at"],
    )
