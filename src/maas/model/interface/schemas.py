"""What the registry's routes take and give."""

from typing import Annotated, Any
from uuid import UUID

from pydantic import BeforeValidator, ConfigDict, Field, WithJsonSchema

from maas.model.domain.metadata import Metadata, Metrics
from maas.model.domain.model import MAX_TAGS
from maas.model.domain.text import (
    MAX_CARD_BYTES,
    MAX_DESCRIPTION_CHARS,
    MAX_LABEL_CHARS,
    MAX_NAME_CHARS,
    MAX_REASON_CHARS,
    MAX_TAG_CHARS,
    Description,
    Label,
    ModelCard,
    ModelName,
    Reason,
    Tag,
)
from maas.model.interface.fact_schemas import FACTS_EXAMPLE, OF_FILE, OF_VERSION, FactsRead
from maas.model.interface.fields import (
    SHA256_PATTERN,
    ChecksumField,
    EntriesRead,
    MetadataField,
    MetricsField,
    SourceField,
    UploadedSource,
    VersionField,
)
from maas.model.public import Framework, VersionStatus, Visibility
from maas.shared.interface.types import Instant, ReadModel, StrictModel
from maas.shared.interface.values import value_text

NameField = Annotated[ModelName, value_text(ModelName, MAX_NAME_CHARS, examples=["org/name"])]
CardField = Annotated[ModelCard, value_text(ModelCard, MAX_CARD_BYTES)]
TagField = Annotated[Tag, value_text(Tag, MAX_TAG_CHARS, examples=["chat"])]
DescriptionField = Annotated[Description, value_text(Description, MAX_DESCRIPTION_CHARS)]
LabelField = Annotated[Label, value_text(Label, MAX_LABEL_CHARS)]
ReasonField = Annotated[Reason, value_text(Reason, MAX_REASON_CHARS)]
DigestField = Annotated[
    str,
    BeforeValidator(str),
    WithJsonSchema({"type": "string", "pattern": SHA256_PATTERN}),
]

CARD = "Markdown, at most 256 KiB in UTF-8."
VISIBILITY = (
    "`private`: its owner and holders of `model:manage`; `tenant`: its tenant, and those it is "
    "granted to; `public`: every tenant. Only its own tenant changes it."
)
METADATA = "Free entries: texts, numbers, true or false."
METRICS = "What was measured, as finite numbers."
SOURCE = "Where it comes from. From `ready` on, this is fixed."


def _no_metadata() -> Metadata:
    return Metadata({})


def _no_metrics() -> Metrics:
    return Metrics({})


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
                    "card": "# Support bot\n\nMade for our help desk.",
                    "visibility": "tenant",
                    "tags": ["chat", "production"],
                    "metadata": {"cost_centre": "4711", "max_users": 500, "reviewed": True},
                }
            ]
        }
    )

    name: NameField = Field(description="Like `org/name:tag`; unique in the tenant.")
    framework: Framework
    description: DescriptionField | None = None
    task: LabelField | None = None
    licence: LabelField | None = None
    card: CardField | None = Field(default=None, description=CARD)
    visibility: Visibility = Field(default="tenant", description=VISIBILITY)
    tags: list[TagField] = Field(default=[], max_length=MAX_TAGS)
    metadata: MetadataField = Field(default_factory=_no_metadata, description=METADATA)


class ModelUpdate(StrictModel):
    """Fields that are absent stay as they are; `null` clears those that may be empty."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"task": "chat", "licence": None}]})

    name: NameField = Field(default_factory=_absent)
    framework: Framework = Field(default_factory=_absent)
    description: DescriptionField | None = None
    task: LabelField | None = None
    licence: LabelField | None = None
    card: CardField | None = Field(default=None, description=CARD)
    visibility: Visibility = Field(default_factory=_absent, description=VISIBILITY)
    owner_id: UUID = Field(
        default_factory=_absent, description="An account; who owns the model decides who sees it."
    )
    metadata: MetadataField = Field(
        default_factory=_absent, description=f"{METADATA} Replaced as a whole."
    )


MODEL_EXAMPLE: dict[str, Any] = {
    "id": "01935d2e-0000-7000-8000-000000000007",
    "tenant_id": "01935d2e-0000-7000-8000-000000000001",
    "name": "acme/support-bot:7b",
    "description": "Answers questions of customers.",
    "framework": "safetensors",
    "task": "text-generation",
    "licence": "Apache-2.0",
    "visibility": "tenant",
    "owner_id": "01935d2e-0000-7000-8000-000000000002",
    "tags": ["chat", "production"],
    "metadata": {"cost_centre": "4711", "max_users": 500, "reviewed": True},
    "created_by": "01935d2e-0000-7000-8000-000000000002",
    "created_at": "2026-11-21T08:00:00Z",
    "updated_at": "2026-11-21T08:00:00Z",
    "deleted_at": None,
}


class ModelSummaryRead(ReadModel):
    """A model in a list; its card, which may be long, is read with the model alone."""

    model_config = ConfigDict(json_schema_extra={"examples": [MODEL_EXAMPLE]})

    id: UUID
    tenant_id: UUID = Field(description="Whose it is; another tenant's can only be read.")
    name: str
    description: str | None
    framework: Framework
    task: str | None
    licence: str | None
    visibility: Visibility = Field(description=VISIBILITY)
    owner_id: UUID
    tags: list[str]
    metadata: EntriesRead
    created_by: UUID
    created_at: Instant
    updated_at: Instant
    deleted_at: Instant | None


class ModelRead(ModelSummaryRead):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [MODEL_EXAMPLE | {"card": "# Support bot\n\nMade for our help desk."}]
        }
    )

    card: str | None = Field(description=CARD)


class VersionCreate(StrictModel):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "version": "1.0.0",
                    "source": {
                        "kind": "fine-tuned-from",
                        "model_id": "01935d2e-0000-7000-8000-000000000006",
                        "version": "2.1",
                    },
                    "metrics": {"accuracy": 0.91},
                }
            ]
        }
    )

    version: VersionField = Field(description="Your own name for it; unique in the model.")
    description: DescriptionField | None = None
    source: SourceField = Field(default=UploadedSource(kind="uploaded"), description=SOURCE)
    metrics: MetricsField = Field(default_factory=_no_metrics, description=METRICS)
    metadata: MetadataField = Field(default_factory=_no_metadata, description=METADATA)


class VersionUpdate(StrictModel):
    """Fields that are absent stay as they are; `null` clears the description."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"description": "Trained on the data of May.", "metrics": {"accuracy": 0.92}}
            ]
        }
    )

    description: DescriptionField | None = None
    source: SourceField = Field(default_factory=_absent, description=SOURCE)
    metrics: MetricsField = Field(
        default_factory=_absent, description=f"{METRICS} Replaced as a whole."
    )
    metadata: MetadataField = Field(
        default_factory=_absent, description=f"{METADATA} Replaced as a whole."
    )


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
                    "checksum": "60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752",
                    "source": {"kind": "imported-from", "url": "https://example.com/bot-7b"},
                    "metrics": {"accuracy": 0.91},
                    "metadata": {"epochs": 3},
                    "facts": FACTS_EXAMPLE,
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
    checksum: ChecksumField = Field(
        description=(
            "From `ready` on: the SHA-256 over all files, in the order of the bytes of their "
            "paths, of the path, a NUL, the file's SHA-256 in hexadecimal and a line feed."
        )
    )
    source: SourceField = Field(description=SOURCE)
    metrics: dict[str, float]
    metadata: EntriesRead
    facts: FactsRead | None = Field(description=OF_VERSION)
    created_by: UUID
    created_at: Instant
    updated_at: Instant


class TransitionRead(ReadModel):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "from_status": "uploading",
                    "to_status": "ready",
                    "reason": "Evaluation passed.",
                    "by": "01935d2e-0000-7000-8000-000000000002",
                    "at": "2026-11-21T08:00:00Z",
                }
            ]
        }
    )

    from_status: VersionStatus
    to_status: VersionStatus
    reason: str | None
    by: UUID = Field(description="The account that led the version there.")
    at: Instant


class FileRead(ReadModel):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "path": "weights/model.safetensors",
                    "size": 4368438944,
                    "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
                    "media_type": "application/octet-stream",
                    "facts": FACTS_EXAMPLE,
                    "created_at": "2026-11-21T08:00:00Z",
                }
            ]
        }
    )

    path: str
    size: int = Field(description="Bytes.")
    sha256: DigestField
    media_type: str
    facts: FactsRead | None = Field(description=OF_FILE)
    created_at: Instant
