"""What the registry's routes take and give."""

from collections.abc import Callable
from typing import Annotated, Any, TypeVar
from uuid import UUID

from pydantic import BeforeValidator, ConfigDict, Field, PlainSerializer, WithJsonSchema
from pydantic_core import PydanticCustomError

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
from maas.shared.domain.errors import InvalidInputError
from maas.shared.interface.types import Instant, ReadModel, StrictModel

V = TypeVar("V")


def _into(make: Callable[[str], V]) -> BeforeValidator:
    """Parse a string into a value object, and blame the field if it will not do."""

    def parse(value: object) -> object:
        if not isinstance(value, str):
            return value
        try:
            return make(value)
        except InvalidInputError as exc:
            raise PydanticCustomError(exc.code, exc.detail) from exc

    return BeforeValidator(parse)


def _text(max_chars: int, **more: object) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "minLength": 1, "maxLength": max_chars, **more})


NameField = Annotated[
    ModelName, _into(ModelName), PlainSerializer(str), _text(MAX_NAME_CHARS, examples=["org/name"])
]
VersionField = Annotated[
    VersionName,
    _into(VersionName),
    PlainSerializer(str),
    _text(64, pattern="^[A-Za-z0-9._+-]{1,64}$"),
]
DescriptionField = Annotated[
    Description, _into(Description), PlainSerializer(str), _text(MAX_DESCRIPTION_CHARS)
]
LabelField = Annotated[Label, _into(Label), PlainSerializer(str), _text(MAX_LABEL_CHARS)]
ReasonField = Annotated[Reason, _into(Reason), PlainSerializer(str), _text(MAX_REASON_CHARS)]
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
    path: str
    size: int = Field(description="Bytes.")
    sha256: DigestField
    media_type: str
    created_at: Instant
