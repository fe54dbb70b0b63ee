"""Reads of suppliers: raw asyncpg, each in a read-only transaction of its tenant.

Row-level security lets a tenant read the row of a provider that is granted to it; of which columns
it learns anything is decided here, by `_SHOWN`.
"""

from typing import Final

import asyncpg

from maas.model.application.provider_ports import SupplierAccount
from maas.model.application.provider_queries import ProviderDetails, ProviderFilter
from maas.model.domain.provider import CredentialUnreadableError, ProviderNotFoundError
from maas.model.domain.provider_health import UNKNOWN, ProviderHealth
from maas.model.domain.provider_types import PROVIDER_TYPES
from maas.model.infrastructure.provider_credentials import SealedCredentials
from maas.model.public import ProviderId
from maas.shared.domain.grants import Grant
from maas.shared.domain.ids import TenantId
from maas.shared.domain.page import Page, PageRequest, cut_page, position_of
from maas.shared.domain.principal import Principal
from maas.shared.infrastructure.database import Database
from maas.shared.infrastructure.grants import GrantPages
from maas.shared.infrastructure.sealing import SecretUnreadableError

_SHOWN: Final = """
p.id, p.tenant_id, p.name, p.type, p.status, p.created_at, p.updated_at, p.revision,
CASE WHEN p.tenant_id = $1 THEN p.base_url END AS base_url,
CASE WHEN p.tenant_id = $1 THEN p.api_version END AS api_version,
CASE WHEN p.tenant_id = $1 THEN p.description END AS description,
CASE WHEN p.tenant_id = $1 THEN p.reach END AS reach,
CASE WHEN p.tenant_id = $1 THEN p.created_by END AS created_by,
(SELECT c.set_at FROM provider_credentials c WHERE c.provider_id = p.id
    AND c.tenant_id = p.tenant_id AND c.tenant_id = $1) AS credential_set_at,
h.status AS health_status, h.since, h.checked_at,
CASE WHEN p.tenant_id = $1 THEN h.outcome END AS outcome,
CASE WHEN p.tenant_id = $1 THEN h.duration_ms END AS duration_ms
"""
_HEALTH: Final = """
LEFT JOIN provider_health h ON h.provider_id = p.id AND h.tenant_id = p.tenant_id
"""
# While two releases run side by side, what only the newer one can call is not there for the older.
_KNOWN: Final = f"p.deleted_at IS NULL AND p.type IN ({', '.join(map(repr, PROVIDER_TYPES))})"
SEEN: Final = f"""
{_KNOWN} AND (p.tenant_id = $1 OR EXISTS (
    SELECT FROM provider_grants g WHERE g.provider_id = p.id AND g.tenant_id = p.tenant_id
      AND g.grantee_id = $1))
"""
"""Of providers `p`: those the tenant `$1` may read."""

# By two indexes: `SEEN` would look at every provider there is.
_WANTED: Final = f"""
SELECT * FROM (
    SELECT p.* FROM providers p WHERE p.tenant_id = $1 AND {_KNOWN}
    UNION ALL
    SELECT p.* FROM provider_grants g
    JOIN providers p ON p.id = g.provider_id AND p.tenant_id = g.tenant_id
    WHERE g.grantee_id = $1 AND g.tenant_id <> $1 AND {_KNOWN}
) p WHERE ($2::text IS NULL OR p.type = $2) AND ($3::text IS NULL OR p.status = $3)
"""  # noqa: S608  no input in it

GET_PROVIDER: Final = f"SELECT {_SHOWN} FROM providers p {_HEALTH} WHERE {SEEN} AND p.id = $2"  # noqa: S608  likewise

LIST_PROVIDERS: Final = f"""
SELECT {_SHOWN} FROM ({_WANTED}) p {_HEALTH}
WHERE ($4::timestamptz IS NULL OR (p.created_at, p.id) < ($4, $5::uuid))
ORDER BY p.created_at DESC, p.id DESC LIMIT $6
"""  # noqa: S608  likewise

COUNT_PROVIDERS: Final = f"SELECT count(*) FROM ({_WANTED}) p"  # noqa: S608  likewise

HAS_OWN: Final = "SELECT 1 FROM providers WHERE tenant_id = $1 AND id = $2 AND deleted_at IS NULL"

_GRANTS: Final = GrantPages("provider_grants", "provider_id")

# One statement: in two, a key could be read before the address was changed, and sent after. Nobody
# acts in a tenant that is suspended or closed, so nothing is called for it either.
_ACCOUNTS: Final = f"""
SELECT p.id, p.tenant_id, p.type, p.base_url, p.reach, p.api_version, p.status, c.sealed
FROM providers p
LEFT JOIN provider_credentials c ON c.provider_id = p.id AND c.tenant_id = p.tenant_id
WHERE p.tenant_id = $1 AND {_KNOWN}
  AND NOT tenant_has_status(p.tenant_id, 'suspended', 'deleted')
"""  # noqa: S608  likewise

GET_ACCOUNT: Final = f"{_ACCOUNTS} AND p.id = $2"
LIST_ACCOUNTS: Final = f"{_ACCOUNTS} AND p.id = ANY ($2::uuid[])"


class PostgresProviderQueries:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def get_provider(self, caller: Principal, provider_id: ProviderId) -> ProviderDetails:
        async with self._database.tenant(caller.tenant_id) as connection:
            row = await connection.fetchrow(GET_PROVIDER, caller.tenant_id, provider_id)
        if row is None:
            raise ProviderNotFoundError
        return _details(row)

    async def list_providers(
        self, caller: Principal, wanted: ProviderFilter, page: PageRequest
    ) -> Page[ProviderDetails]:
        scope = (caller.tenant_id, wanted.type, wanted.status)
        async with self._database.tenant(caller.tenant_id) as connection:
            rows = await connection.fetch(LIST_PROVIDERS, *scope, *page.keyset, page.limit + 1)
            total = (
                await connection.fetchval(COUNT_PROVIDERS, *scope) if page.include_total else None
            )
        found = [_details(row) for row in rows]
        return cut_page(found, page.limit, total, position_of)

    async def list_grants(
        self, caller: Principal, provider_id: ProviderId, page: PageRequest
    ) -> Page[Grant]:
        own = (caller.tenant_id, provider_id)
        async with self._database.tenant(caller.tenant_id) as connection:
            if await connection.fetchval(HAS_OWN, *own) is None:
                raise ProviderNotFoundError
            return await _GRANTS.read(connection, *own, page)


class PostgresSupplierAccounts:
    def __init__(self, database: Database, seals: SealedCredentials) -> None:
        self._database = database
        self._seals = seals

    async def get(self, tenant_id: TenantId, provider_id: ProviderId) -> SupplierAccount:
        async with self._database.tenant(tenant_id) as connection:
            row = await connection.fetchrow(GET_ACCOUNT, tenant_id, provider_id)
        if row is None:
            raise ProviderNotFoundError
        return open_account(row, self._seals)


def open_account(row: asyncpg.Record, seals: SealedCredentials) -> SupplierAccount:
    """Open the key that a row of an account holds sealed.

    Raises:
        CredentialUnreadableError: it does not open.
    """
    values = dict(row)
    sealed = values.pop("sealed")
    try:
        key = None if sealed is None else seals.open(sealed, row["id"], row["tenant_id"])
    except SecretUnreadableError:
        raise CredentialUnreadableError from None
    return SupplierAccount(**values, key=key)


def _details(row: asyncpg.Record) -> ProviderDetails:
    values = dict(row)
    told = {name: values.pop(name) for name in ("since", "checked_at", "outcome", "duration_ms")}
    status = values.pop("health_status")
    health = UNKNOWN if status is None else ProviderHealth(status=status, **told)
    return ProviderDetails(**values, health=health)
