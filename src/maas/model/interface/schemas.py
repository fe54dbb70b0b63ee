"""What the registry's routes take and give."""

from typing import Annotated, Any
from uuid import UUID

from pydantic import BeforeValidator, ConfigDict, Field, WithJsonSchema

from maas.model.domain.text import (
    MAX_DESCRIPTION_CHARS,
    MAX_LABEL_CHARS,
    MAX_NAME_CHARS,
    MAX_REASON_CHARS,
    Description,
    Label,
    ModelName,
    Reason,
    VersionName,
)
from maas.model.public import Framework, VersionStatus
from maas.shared.interface.types import Instant, ReadModel, StrictModel
from maas.shared.interface.values import value_text

NameField = Annotated[ModelName, value_text(ModelName, MAX_NAME_CHARS, examples=["org/name"])]
VersionField = Annotated[
    VersionName, value_text(VersionName, 64, pattern="^[A-Za-z0-9._+-]{1,64}$")
]
DescriptionField = Annotated[Description, value_text(Description, MAX_DESCRIPTION_CHARS)]
LabelField = Annotated[Label, value_text(Label, MAX_LABEL_CHARS)]
ReasonField = Annotated[Reason, value_text(Reason, MAX_REASON_CHARS)]
DigestField = Annotated[
    str,
    BeforeValidator(str),
    WithJsonSchema({"type": "string", "pattern": "^[0-9a-f]{64}$"}),
]


def _absent() -> Any:
    """Stand in for a field that was not sent and may not be null; it is never looked at."""


class ModelCreate(StrictModel):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "name": "acme/support-bot:7b",
                    "framework": "safetensors",
                    "description": "Answers questions of customers.",
                    "task": "text-generation",
                    "licence": "Apache-2.0",
                }
            ]
        }
    )

    name: NameField = Field(description="Like `org/name:tag`; unique in the tenant.")
    framework: Framework
    description: DescriptionField | None = None
    task: LabelField | None = None
    licence: LabelField | None = None


class ModelUpdate(StrictModel):
    """Fields that are absent stay as they are; `null` clears those that may be empty."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"task": "chat", "licence": None}]})

    name: NameField = Field(default_factory=_absent)
    framework: Framework = Field(default_factory=_absent)
    description: DescriptionField | None = None
    task: LabelField | None = None
    licence: LabelField | None = None


class ModelRead(ReadModel):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "01935d2e-0000-7000-8000-000000000007",
                    "name": "acme/support-bot:7b",
                    "description": "Answers questions of customers.",
                    "framework": "safetensors",
                    "task": "text-generation",
                    "licence": "Apache-2.0",
                    "created_by": "01935d2e-0000-7000-8000-000000000002",
                    "created_at": "2026-11-21T08:00:00Z",
                    "updated_at": "2026-11-21T08:00:00Z",
                }
            ]
        }
    )

    id: UUID
    name: str
    description: str | None
    framework: Framework
    task: str | None
    licence: str | None
    created_by: UUID
    created_at: Instant
    updated_at: Instant


class VersionCreate(StrictModel):
    model_config = ConfigDict(json_schema_extra={"examples": [{"version": "1.0.0"}]})

    version: VersionField = Field(description="Your own name for it; unique in the model.")
    description: DescriptionField | None = None


class VersionUpdate(StrictModel):
    """A field that is absent stays as it is; `null` clears it."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"description": "Trained on the data of May."}]}
    )

    description: DescriptionField | None = None


class VersionTransition(StrictModel):
    model_config = ConfigDict(
        json_schema_extra={"examples": [{"status": "ready", "reason": "Evaluation passed."}]}
    )

    status: VersionStatus
    reason: ReasonField | None = None


class VersionRead(ReadModel):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "01935d2e-0000-7000-8000-000000000008",
                    "model_id": "01935d2e-0000-7000-8000-000000000007",
                    "version": "1.0.0",
                    "status": "ready",
                    "status_reason": None,
                    "description": "Trained on the data of May.",
                    "file_count": 2,
                    "size": 4368439584,
                    "created_by": "01935d2e-0000-7000-8000-000000000002",
                    "created_at": "2026-11-21T08:00:00Z",
                    "updated_at": "2026-11-21T08:00:00Z",
                }
            ]
        }
    )

    id: UUID
    model_id: UUID
    version: str
    status: VersionStatus
    status_reason: str | None
    description: str | None
    file_count: int
    size: int = Field(description="Bytes of all files together.")
    created_by: UUID
    created_at: Instant
    updated_at: Instant


class FileRead(ReadModel):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "path": "weights/model.safetensors",
                    "size": 4368438944,
                    "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
                    "media_type": "application/octet-stream",
                    "created_at": "2026-11-21T08:00:00Z",
                }
            ]
        }
    )

    path: str
    size: int = Field(description="Bytes.")
    sha256: DigestField
    media_type: str
    created_at: Instant
