"""What other contexts read back of their own events."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import UUID

from maas.audit.application.proofs import DamagedTrailError
from maas.audit.application.queries import AuditEventNotFoundError
from maas.audit.domain.retention import classify
from maas.audit.infrastructure.evidence import read_proof
from maas.audit.public import RecordedEvent
from maas.shared.domain.ids import EventId, TenantId
from maas.shared.infrastructure.database import Database

MOST: Final = 20

_OF_REQUEST: Final = """
    SELECT * FROM audit_log
    WHERE tenant_id = $1 AND request_id = $2 AND action = $3 AND retention_class = $4
        AND ($5::uuid IS NULL OR actor_id = $5)
        AND convert_from(payload, 'UTF8')::jsonb #> '{changes,after}' ? $6
    ORDER BY occurred_at DESC, event_id DESC LIMIT $7
"""


class PostgresRecordedEvents:
    """Reads as `maas_app`; the class leaves the partitions of other events out."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list_of_request(
        self,
        tenant_id: TenantId,
        request_id: str,
        *,
        action: str,
        actor_id: UUID | None,
        telling: str,
    ) -> Sequence[RecordedEvent]:
        wanted = (tenant_id, request_id, action, classify(action), actor_id, telling, MOST)
        async with self._database.tenant(tenant_id) as connection:
            rows = await connection.fetch(_OF_REQUEST, *wanted)
        return [_event(row) for row in rows]

    async def find_proof(
        self, tenant_id: TenantId, event_id: EventId
    ) -> Mapping[str, object] | None:
        async with self._database.tenant(tenant_id) as connection:
            try:
                proof = await read_proof(connection, event_id, tenant_id=tenant_id)
            except (AuditEventNotFoundError, DamagedTrailError):
                return None
        return proof.to_mapping()


def _event(row: Any) -> RecordedEvent:
    return RecordedEvent(
        id=EventId(row["event_id"]),
        seq=row["seq"],
        occurred_at=row["occurred_at"],
        recorded_at=row["recorded_at"],
        actor_kind=row["actor_kind"],
        actor_id=row["actor_id"],
        api_key_id=row["api_key_id"],
        outcome=row["outcome"],
        reason=row["reason"],
        resource_kind=row["resource_kind"],
        resource_id=row["resource_id"],
        request_id=row["request_id"],
        after=json.loads(row["payload"])["changes"]["after"],
    )
