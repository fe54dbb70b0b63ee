"""Who pays for storage and what is held for them, in rows; and rows of one tenant alone."""

from typing import Any

from maas.shared.domain.ids import AccountId, ApiKeyId, TenantId
from maas.shared.infrastructure.database import TENANT_SETTING, PooledConnection
from maas.user.public import Amounts, Hold, HoldId, Payer


async def act_in(connection: PooledConnection, tenant_id: TenantId) -> None:
    """Let row-level security show this tenant for the rest of the transaction."""
    await connection.execute("SELECT set_config($1, $2, true)", TENANT_SETTING, str(tenant_id))


def payer_columns(payer: Payer) -> dict[str, Any]:
    return {
        "tenant_id": payer.tenant_id,
        "account_id": payer.account_id,
        "actor_kind": payer.actor_kind,
        "api_key_id": payer.api_key_id,
    }


def read_payer(row: Any) -> Payer:
    key_id = row["api_key_id"]
    return Payer(
        tenant_id=TenantId(row["tenant_id"]),
        account_id=AccountId(row["account_id"]),
        actor_kind=row["actor_kind"],
        api_key_id=None if key_id is None else ApiKeyId(key_id),
    )


def read_hold(row: Any, payer: Payer) -> Hold:
    """Name a hold that was written down; when its lease ends, the quotas know."""
    return Hold(
        id=HoldId(row["hold_id"]),
        payer=payer,
        granted=Amounts(requests=0, storage_bytes=row["size"]),
        created_at=row["made_at"],
        lease_until=row["made_at"],
    )
