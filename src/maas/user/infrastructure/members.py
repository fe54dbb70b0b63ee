"""Whether somebody is of a tenant, and what they may do there, for other contexts."""

from typing import Final

from maas.shared.domain.ids import AccountId, TenantId
from maas.shared.domain.principal import Principal, meet
from maas.shared.infrastructure.database import Database
from maas.user.public import SELF_PERMISSIONS, Payer

IS_ACTIVE: Final = """
SELECT EXISTS (
    SELECT FROM memberships m JOIN accounts a ON a.id = m.account_id
    WHERE m.tenant_id = $1 AND m.account_id = $2 AND m.status = 'active' AND a.status = 'active'
) OR EXISTS (
    SELECT FROM service_accounts s WHERE s.tenant_id = $1 AND s.id = $2 AND s.status = 'active'
)
"""
FIND_PRINCIPAL: Final = """
SELECT coalesce(a.username, s.name) AS username, k.scopes,
    ARRAY(
        SELECT unnest(r.permissions)
        FROM membership_roles mr
        JOIN roles r ON r.tenant_id = mr.tenant_id AND r.name = mr.role_name
        WHERE mr.tenant_id = t.id AND mr.account_id = a.id
        UNION
        SELECT unnest(r.permissions)
        FROM service_account_roles sr
        JOIN roles r ON r.tenant_id = sr.tenant_id AND r.name = sr.role_name
        WHERE sr.tenant_id = t.id AND sr.service_account_id = s.id
    ) AS permissions
FROM tenants t
LEFT JOIN memberships m ON m.tenant_id = t.id AND m.account_id = $2 AND m.status = 'active'
LEFT JOIN accounts a ON a.id = m.account_id AND a.status = 'active'
LEFT JOIN service_accounts s ON s.tenant_id = t.id AND s.id = $2 AND s.status = 'active'
LEFT JOIN api_keys k ON k.tenant_id = t.id AND k.id = $3 AND k.expires_at > clock_timestamp()
    AND (k.account_id = a.id OR k.service_account_id = s.id)
WHERE t.id = $1 AND t.status = 'active' AND (a.id IS NOT NULL OR s.id IS NOT NULL)
    AND ($3::uuid IS NULL OR k.id IS NOT NULL)
"""


class PostgresMembers:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def is_active(self, tenant_id: TenantId, account_id: AccountId) -> bool:
        async with self._database.tenant(tenant_id) as connection:
            return bool(await connection.fetchval(IS_ACTIVE, tenant_id, account_id))

    async def find_principal(self, payer: Payer) -> Principal | None:
        tenant_id, account_id, key_id = payer.tenant_id, payer.account_id, payer.api_key_id
        async with self._database.tenant(tenant_id) as connection:
            row = await connection.fetchrow(FIND_PRINCIPAL, tenant_id, account_id, key_id)
        if row is None:
            return None
        rights = frozenset(row["permissions"])
        if payer.actor_kind == "account":
            rights |= SELF_PERMISSIONS
        return Principal(
            kind=payer.actor_kind,
            account_id=account_id,
            tenant_id=tenant_id,
            username=row["username"],
            permissions=rights if key_id is None else meet(row["scopes"], sorted(rights)),
            # It is no session's, and nobody keeps it: there is nothing to compare it with.
            version=0,
            api_key_id=key_id,
        )
