"""Which of a supplier's models were added here: the `AddedModels` port."""

from collections.abc import Mapping, Sequence
from typing import Final

from maas.model.application.provider_checks import AddedModel
from maas.model.public import ProviderId
from maas.shared.domain.ids import TenantId
from maas.shared.infrastructure.database import Database

FIND_ADDED: Final = """
SELECT m.name, m.id, m.capabilities FROM provider_models m
WHERE m.tenant_id = $1 AND m.provider_id = $2 AND m.deleted_at IS NULL AND m.name = ANY ($3::text[])
"""


class PostgresAddedModels:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(
        self, tenant_id: TenantId, provider_id: ProviderId, names: Sequence[str]
    ) -> Mapping[str, AddedModel]:
        async with self._database.tenant(tenant_id) as connection:
            rows = await connection.fetch(FIND_ADDED, tenant_id, provider_id, list(names))
        return {
            row["name"]: AddedModel(id=row["id"], capabilities=row["capabilities"]) for row in rows
        }
