"""Reads of identity: raw asyncpg, for they are on the way of every request."""

from uuid import UUID

from maas.shared.domain.ids import AccountId, TenantId
from maas.shared.infrastructure.database import Database
from maas.user.application.errors import AccountNotFoundError
from maas.user.application.ports import Profile, SignInCandidate, TenantChoice
from maas.user.infrastructure.throttle import site_of

_SIGN_IN = """
SELECT id, username, password_hash, status, last_tenant_id,
       ARRAY(SELECT t.id::text || ' ' || t.slug FROM tenants_of(accounts.id) t) AS tenants,
       EXISTS (SELECT FROM sessions s
               WHERE s.account_id = accounts.id AND s.address <<= $2::text::inet) AS is_known
FROM accounts WHERE {column} = lower($1)
"""
_BY_EMAIL = _SIGN_IN.format(column="lower(email)")
_BY_USERNAME = _SIGN_IN.format(column="lower(username)")

_PROFILE = """
SELECT a.id, a.username, a.email, a.email_verified_at IS NOT NULL AS is_verified, a.display_name,
       a.password_change_required, a.created_at, a.updated_at, a.version, t.slug
FROM accounts a, tenants t WHERE a.id = $1 AND t.id = $2
"""


class PostgresUserQueries:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def find_sign_in(self, login: str, address: str | None) -> SignInCandidate | None:
        # A user name has no @, so one index look-up tells which of the two was typed.
        query = _BY_EMAIL if "@" in login else _BY_USERNAME
        row = await self._database.fetchrow(query, login, site_of(address))
        if row is None:
            return None
        tenants = [entry.split(" ", 1) for entry in row["tenants"]]
        return SignInCandidate(
            account_id=AccountId(row["id"]),
            username=row["username"],
            password_hash=row["password_hash"],
            is_active=row["status"] == "active",
            is_known_address=row["is_known"],
            last_tenant_id=row["last_tenant_id"],
            tenants=[TenantChoice(id=TenantId(UUID(key)), slug=slug) for key, slug in tenants],
        )

    async def get_profile(self, account_id: AccountId, tenant_id: TenantId) -> Profile:
        row = await self._database.fetchrow(_PROFILE, account_id, tenant_id)
        if row is None:
            raise AccountNotFoundError
        return Profile(
            id=row["id"],
            username=row["username"],
            email=row["email"],
            email_verified=row["is_verified"],
            display_name=row["display_name"],
            tenant_id=tenant_id,
            tenant=row["slug"],
            password_change_required=row["password_change_required"],
            created_at=row["created_at"],
            updated_at=row["updated_at"],
            version=row["version"],
        )
