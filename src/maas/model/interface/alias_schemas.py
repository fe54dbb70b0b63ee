"""What the routes of aliases take and give."""

from uuid import UUID

from pydantic import ConfigDict, Field

from maas.model.interface.fields import VersionField
from maas.model.interface.schemas import ReasonField
from maas.shared.interface.types import Instant, ReadModel, StrictModel


class AliasPut(StrictModel):
    model_config = ConfigDict(
        json_schema_extra={"examples": [{"version": "1.0.0", "reason": "Evaluation passed."}]}
    )

    version: VersionField = Field(description="A version of this model, ready or deprecated.")
    reason: ReasonField | None = None


class AliasRead(ReadModel):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "model_id": "01935d2e-0000-7000-8000-000000000007",
                    "alias": "production",
                    "version_id": "01935d2e-0000-7000-8000-000000000008",
                    "version": "1.0.0",
                    "reason": "Evaluation passed.",
                    "sequence": 3,
                    "moved_by": "01935d2e-0000-7000-8000-000000000002",
                    "moved_at": "2026-11-21T08:00:00Z",
                }
            ]
        }
    )

    model_id: UUID
    alias: str
    version_id: UUID
    version: str
    reason: str | None
    sequence: int = Field(description="So many moves it made.")
    moved_by: UUID
    moved_at: Instant


class AliasMoveRead(ReadModel):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "sequence": 3,
                    "version_id": "01935d2e-0000-7000-8000-000000000008",
                    "version": "1.0.0",
                    "previous_version": "0.9.0",
                    "reason": "Evaluation passed.",
                    "moved_by": "01935d2e-0000-7000-8000-000000000002",
                    "at": "2026-11-21T08:00:00Z",
                }
            ]
        }
    )

    sequence: int = Field(description="The first move of an alias is 1; none is missing.")
    version_id: UUID | None = Field(description="The version may have been deleted since.")
    version: str | None = Field(description="Where it points from then on; null is nowhere.")
    previous_version: str | None
    reason: str | None
    moved_by: UUID
    at: Instant
