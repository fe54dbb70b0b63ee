"""Reads of API keys and service accounts, each as a page or one."""

from maas.shared.domain.ids import ApiKeyId, ServiceAccountId, TenantId
from maas.shared.domain.page import Page, PageRequest, cut_page, position_of
from maas.shared.infrastructure.database import Database
from maas.user.application.key_ports import ApiKeyDetails, ServiceAccountDetails
from maas.user.domain.api_key import ApiKeyNotFoundError, Holder
from maas.user.domain.service_account import ServiceAccountNotFoundError

_KEY_COLUMNS = """
id, prefix, name, scopes, allowed_networks, allowed_models, requests_per_minute, expires_at,
last_used_at, rotated_at, previous_valid_until, created_by, created_by_key, created_at,
updated_at, version
"""
_HELD = """
tenant_id = $1 AND ($2::uuid IS NULL OR account_id = $2)
AND ($3::uuid IS NULL OR service_account_id = $3)
"""
LIST_KEYS = f"""
SELECT {_KEY_COLUMNS} FROM api_keys WHERE {_HELD}
  AND ($4::timestamptz IS NULL OR (created_at, id) < ($4, $5::uuid))
ORDER BY created_at DESC, id DESC LIMIT $6
"""  # noqa: S608  no input in it
COUNT_KEYS = f"SELECT count(*) FROM api_keys WHERE {_HELD}"  # noqa: S608  likewise
GET_KEY = f"SELECT {_KEY_COLUMNS} FROM api_keys WHERE {_HELD} AND id = $4"  # noqa: S608  likewise

_SERVICE_ACCOUNTS = """
SELECT s.id, s.name, s.description, s.status,
       ARRAY(SELECT r.role_name FROM service_account_roles r
             WHERE r.tenant_id = s.tenant_id AND r.service_account_id = s.id ORDER BY 1) AS roles,
       s.created_by, s.created_at, s.updated_at, s.version
FROM service_accounts s WHERE s.tenant_id = $1
"""
LIST_SERVICE_ACCOUNTS = f"""
{_SERVICE_ACCOUNTS}
  AND ($2::timestamptz IS NULL OR (s.created_at, s.id) < ($2, $3::uuid))
ORDER BY s.created_at DESC, s.id DESC LIMIT $4
"""
COUNT_SERVICE_ACCOUNTS = "SELECT count(*) FROM service_accounts WHERE tenant_id = $1"
GET_SERVICE_ACCOUNT = f"{_SERVICE_ACCOUNTS} AND s.id = $2"


class PostgresKeyQueries:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def list_keys(
        self, tenant_id: TenantId, holder: Holder, page: PageRequest
    ) -> Page[ApiKeyDetails]:
        if holder.service_account_id is not None:
            await self.get_service_account(tenant_id, holder.service_account_id)
        held = (tenant_id, holder.account_id, holder.service_account_id)
        async with self._database.tenant(tenant_id) as connection:
            rows = await connection.fetch(LIST_KEYS, *held, *page.keyset, page.limit + 1)
            total = await connection.fetchval(COUNT_KEYS, *held) if page.include_total else None
        keys = [ApiKeyDetails(**row) for row in rows]
        return cut_page(keys, page.limit, total, position_of)

    async def get_key(self, tenant_id: TenantId, holder: Holder, key_id: ApiKeyId) -> ApiKeyDetails:
        held = (tenant_id, holder.account_id, holder.service_account_id)
        async with self._database.tenant(tenant_id) as connection:
            row = await connection.fetchrow(GET_KEY, *held, key_id)
        if row is None:
            raise ApiKeyNotFoundError
        return ApiKeyDetails(**row)

    async def list_service_accounts(
        self, tenant_id: TenantId, page: PageRequest
    ) -> Page[ServiceAccountDetails]:
        async with self._database.tenant(tenant_id) as connection:
            rows = await connection.fetch(
                LIST_SERVICE_ACCOUNTS, tenant_id, *page.keyset, page.limit + 1
            )
            total = None
            if page.include_total:
                total = await connection.fetchval(COUNT_SERVICE_ACCOUNTS, tenant_id)
        accounts = [ServiceAccountDetails(**row) for row in rows]
        return cut_page(accounts, page.limit, total, position_of)

    async def get_service_account(
        self, tenant_id: TenantId, service_account_id: ServiceAccountId
    ) -> ServiceAccountDetails:
        async with self._database.tenant(tenant_id) as connection:
            row = await connection.fetchrow(GET_SERVICE_ACCOUNT, tenant_id, service_account_id)
        if row is None:
            raise ServiceAccountNotFoundError
        return ServiceAccountDetails(**row)
