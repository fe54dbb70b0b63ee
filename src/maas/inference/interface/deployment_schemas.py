"""What the routes of deployments take and give."""

from typing import Annotated, Any, cast
from uuid import UUID

from pydantic import ConfigDict, Field

from maas.inference.application.deployments import DeploymentUpdate as Changes
from maas.inference.application.deployments import NewDeployment
from maas.inference.domain.deployment import (
    MAX_DESCRIPTION_CHARS,
    MAX_NAME_CHARS,
    DeploymentName,
    DeploymentStatus,
    DeploymentText,
    DeploymentVisibility,
)
from maas.inference.interface.target_schemas import (
    LOCAL_EXAMPLE,
    TARGET_EXAMPLE,
    CurrencyField,
    TargetRead,
    TargetsField,
)
from maas.shared.interface.types import Instant, ReadModel, StrictModel
from maas.shared.interface.values import value_text

MAX_BODY_BYTES = 32 * 1024**2
MAX_TOKENS = 1_000_000_000
MAX_CHOICES = 128
MAX_CACHE_SECONDS = 31 * 24 * 3_600
MAX_CAPTURE_DAYS = 3_650

NameField = Annotated[
    DeploymentName, value_text(DeploymentName, MAX_NAME_CHARS, examples=["acme/support:7b"])
]
DescriptionField = Annotated[DeploymentText, value_text(DeploymentText, MAX_DESCRIPTION_CHARS)]
BodyBytesField = Annotated[int, Field(strict=True, ge=1, le=MAX_BODY_BYTES)]
TokensField = Annotated[int, Field(strict=True, ge=1, le=MAX_TOKENS)]
ChoicesField = Annotated[int, Field(strict=True, ge=1, le=MAX_CHOICES)]
CacheField = Annotated[int, Field(strict=True, ge=1, le=MAX_CACHE_SECONDS)]
CaptureField = Annotated[int, Field(strict=True, ge=1, le=MAX_CAPTURE_DAYS)]
STATUS = "A disabled deployment is not called, and its name leads nowhere else."
VISIBILITY = (
    "`tenant`: its tenant, and those it is granted to; `public`: every tenant, which wants "
    "`platform:deployments`."
)
CURRENCY = (
    "What calls are charged in. Null: the first, by the alphabet, that the first target with a "
    "price has one in. Targets without a price in it are not called, unless none has any."
)
BODY = "A longer request is refused; null: at most 32 MiB."
OUTPUT = "How many tokens an answer may have; null: what the target can."
CHOICES = "How many answers one call may ask for (`n`); null: as many as the target gives."
CACHE = "For so long the same question gets the same answer, charged once; null: never."
CAPTURE = "For so many days questions and answers are kept, sealed; null: they are not."
TARGETS = "What answers, at least one; they are set all together."


def _absent() -> Any:
    """Stand in for a field that was not sent and may not be null; it is never looked at."""


class DeploymentCreate(StrictModel):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "name": "acme/support:7b",
                    "description": "Answers customers; our own weights where the supplier is away.",
                    "currency": "USD",
                    "max_output_tokens": 2_000,
                    "targets": [TARGET_EXAMPLE, LOCAL_EXAMPLE],
                }
            ]
        }
    )

    name: NameField = Field(
        description="What callers send as `model`; unique in the tenant. Case matters."
    )
    description: DescriptionField | None = None
    status: DeploymentStatus = Field(default="active", description=STATUS)
    visibility: DeploymentVisibility = Field(default="tenant", description=VISIBILITY)
    currency: CurrencyField | None = Field(default=None, description=CURRENCY)
    max_body_bytes: BodyBytesField | None = Field(default=None, description=BODY)
    max_output_tokens: TokensField | None = Field(default=None, description=OUTPUT)
    max_choices: ChoicesField | None = Field(default=None, description=CHOICES)
    cache_seconds: CacheField | None = Field(default=None, description=CACHE)
    capture_days: CaptureField | None = Field(default=None, description=CAPTURE)
    targets: TargetsField = Field(description=TARGETS)

    def to_domain(self) -> NewDeployment:
        return NewDeployment(
            name=self.name,
            description=self.description,
            status=self.status,
            visibility=self.visibility,
            currency=self.currency,
            max_body_bytes=self.max_body_bytes,
            max_output_tokens=self.max_output_tokens,
            max_choices=self.max_choices,
            cache_seconds=self.cache_seconds,
            capture_days=self.capture_days,
            targets=[target.to_domain() for target in self.targets],
        )


class DeploymentUpdate(StrictModel):
    """Fields that are absent stay as they are; `null` clears those that may be empty."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"targets": [TARGET_EXAMPLE]}, {"status": "disabled"}]}
    )

    name: NameField = Field(default_factory=_absent)
    description: DescriptionField | None = None
    status: DeploymentStatus = Field(default_factory=_absent, description=STATUS)
    visibility: DeploymentVisibility = Field(default_factory=_absent, description=VISIBILITY)
    currency: CurrencyField | None = Field(default=None, description=CURRENCY)
    max_body_bytes: BodyBytesField | None = Field(default=None, description=BODY)
    max_output_tokens: TokensField | None = Field(default=None, description=OUTPUT)
    max_choices: ChoicesField | None = Field(default=None, description=CHOICES)
    cache_seconds: CacheField | None = Field(default=None, description=CACHE)
    capture_days: CaptureField | None = Field(default=None, description=CAPTURE)
    targets: TargetsField = Field(default_factory=_absent, description=TARGETS)

    def to_changes(self) -> Changes:
        changes: dict[str, Any] = {name: getattr(self, name) for name in self.model_fields_set}
        if "targets" in changes:
            changes["targets"] = [target.to_domain() for target in self.targets]
        return cast("Changes", changes)


class DeploymentRead(ReadModel):
    """Another tenant's shows null where only its owner is told: what answers, and who made it."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "01935d2e-0000-7000-8000-0000000000e1",
                    "tenant_id": "01935d2e-0000-7000-8000-000000000001",
                    "name": "acme/support:7b",
                    "description": "Answers customers.",
                    "status": "active",
                    "visibility": "tenant",
                    "currency": "USD",
                    "max_body_bytes": None,
                    "max_output_tokens": 2_000,
                    "max_choices": None,
                    "cache_seconds": None,
                    "capture_days": None,
                    "targets": [
                        {
                            "id": "01935d2e-0000-7000-8000-0000000000f1",
                            "kind": "local",
                            "provider_model_id": None,
                            "model_id": "01935d2e-0000-7000-8000-0000000000d1",
                            "version": None,
                            "alias": "production",
                            "priority": 1,
                            "weight": 1,
                            "status": "active",
                            "max_concurrent": None,
                            "max_queued": 100,
                            "queue_seconds": 10,
                            "connect_seconds": 5,
                            "first_byte_seconds": 60,
                            "idle_seconds": 60,
                            "total_seconds": 600,
                            "price": {
                                "currency": "USD",
                                "input": "0.05",
                                "output": "0.1",
                                "cached": None,
                                "reasoning": None,
                                "request": None,
                            },
                        }
                    ],
                    "created_by": "01935d2e-0000-7000-8000-000000000002",
                    "created_at": "2026-11-22T08:00:00Z",
                    "updated_at": "2026-11-22T08:00:00Z",
                }
            ]
        }
    )

    id: UUID
    tenant_id: UUID = Field(description="Whose it is; another tenant's can only be called.")
    name: str
    description: str | None
    status: DeploymentStatus = Field(description=STATUS)
    visibility: DeploymentVisibility = Field(description=VISIBILITY)
    currency: str | None = Field(description=CURRENCY)
    max_body_bytes: int | None = Field(description=BODY)
    max_output_tokens: int | None = Field(description=OUTPUT)
    max_choices: int | None = Field(description=CHOICES)
    cache_seconds: int | None = Field(description=CACHE)
    capture_days: int | None = Field(description=CAPTURE)
    targets: list[TargetRead] | None
    created_by: UUID | None
    created_at: Instant
    updated_at: Instant
