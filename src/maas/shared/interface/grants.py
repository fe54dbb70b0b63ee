"""Grants on the wire, which models, suppliers and deployments show alike."""

from typing import Annotated
from uuid import UUID

from fastapi import Path
from pydantic import ConfigDict, Field

from maas.shared.interface.types import Instant, ReadModel

GranteePath = Annotated[UUID, Path(description="The id of the other tenant.")]


class GrantRead(ReadModel):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "tenant_id": "01935d2e-0000-7000-8000-000000000009",
                    "created_by": "01935d2e-0000-7000-8000-000000000002",
                    "created_at": "2026-11-21T08:00:00Z",
                }
            ]
        }
    )

    tenant_id: UUID = Field(description="The other tenant, to which it is granted.")
    created_by: UUID
    created_at: Instant
