"""Which keys a change of access reaches; each gets a version that readers must have seen."""

from typing import Any

from sqlalchemy import ColumnElement, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from maas.shared.domain.ids import AccountId, TenantId
from maas.user.application.ports import KeyMark
from maas.user.infrastructure.key_tables import api_keys

# In every tenant, which row-level security would not show.
_STALE_EVERYWHERE = text(
    "SELECT public_id, auth_version FROM api_keys_stale(:account, CAST(NULL AS uuid))"
)
_STALE_IN_TENANT = text(
    "SELECT public_id, auth_version FROM api_keys_stale(CAST(NULL AS uuid), :tenant)"
)

# The word in front has the unit of work note that this changes something.
_REVOKE_EVERYWHERE = text(
    "/* DELETE */ SELECT public_id, auth_version FROM api_keys_revoked(:account)"
)


async def refresh_keys(session: AsyncSession, *which: ColumnElement[Any]) -> list[KeyMark]:
    """Have these keys of the tenant acted in looked at anew."""
    # In one order, since a role's holders and an account's keys may be the same ones.
    locked = select(api_keys.c.id).where(*which).order_by(api_keys.c.id)
    statement = (
        update(api_keys)
        .where(api_keys.c.id.in_(locked.with_for_update(key_share=True)))
        .values(auth_version=api_keys.c.auth_version + 1)
        .returning(api_keys.c.public_id, api_keys.c.auth_version)
    )
    rows = await session.execute(statement)
    return [KeyMark(row.public_id, row.auth_version) for row in rows]


async def refresh_keys_everywhere(session: AsyncSession, account_id: AccountId) -> list[KeyMark]:
    rows = await session.execute(_STALE_EVERYWHERE, {"account": account_id})
    return [KeyMark(row.public_id, row.auth_version) for row in rows]


async def revoke_keys_everywhere(session: AsyncSession, account_id: AccountId) -> list[KeyMark]:
    rows = await session.execute(_REVOKE_EVERYWHERE, {"account": account_id})
    return [KeyMark(row.public_id, row.auth_version) for row in rows]


async def refresh_keys_of_tenant(session: AsyncSession, tenant_id: TenantId) -> list[KeyMark]:
    rows = await session.execute(_STALE_IN_TENANT, {"tenant": tenant_id})
    return [KeyMark(row.public_id, row.auth_version) for row in rows]
