"""What the routes of suppliers take and give."""

from typing import Annotated, Any
from uuid import UUID

from pydantic import ConfigDict, Field, SecretStr, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from maas.model.domain.provider import (
    MAX_BASE_URL_CHARS,
    MAX_KEY_CHARS,
    MAX_PROVIDER_NAME_CHARS,
    ApiVersion,
    ProviderName,
)
from maas.model.domain.provider_types import KeyHeader
from maas.model.interface.schemas import DescriptionField
from maas.model.public import (
    CheckOutcome,
    HealthStatus,
    Protocol,
    ProviderKind,
    ProviderStatus,
    Reach,
)
from maas.shared.interface.types import Instant, ReadModel, StrictModel
from maas.shared.interface.values import value_text

NameField = Annotated[
    ProviderName, value_text(ProviderName, MAX_PROVIDER_NAME_CHARS, examples=["OpenAI, research"])
]
BaseUrlField = Annotated[
    str,
    StringConstraints(strict=True, min_length=1, max_length=MAX_BASE_URL_CHARS),
    Field(examples=["https://api.openai.com/v1"]),
]
ApiVersionField = Annotated[
    ApiVersion, value_text(ApiVersion, 32, pattern="^[A-Za-z0-9.-]{1,32}$", examples=["preview"])
]

BASE_URL = (
    "What the supplier's own client takes as base URL: https, a public address, one of the allowed "
    "ports, no query. Targets of the operator's list may do without, for holders of "
    "`platform:suppliers`."
)
API_VERSION = "Sent as `api-version` by types that have versions: azure."
STATUS = "A disabled provider is not called."


def _absent() -> Any:
    """Stand in for a field that was not sent and may not be null; it is never looked at."""


class ProviderCreate(StrictModel):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "name": "OpenAI, research",
                    "type": "openai",
                    "description": "Paid by the research team.",
                }
            ]
        }
    )

    name: NameField = Field(description="Unique in the tenant.")
    type: ProviderKind
    base_url: BaseUrlField | None = Field(
        default=None, description=f"{BASE_URL} Without one, the type's own."
    )
    api_version: ApiVersionField | None = Field(default=None, description=API_VERSION)
    description: DescriptionField | None = None
    status: ProviderStatus = Field(default="active", description=STATUS)


class ProviderUpdate(StrictModel):
    """Fields that are absent stay as they are; `null` clears those that may be empty."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"status": "disabled"}]})

    name: NameField = Field(default_factory=_absent)
    type: ProviderKind = Field(default_factory=_absent)
    base_url: BaseUrlField = Field(default_factory=_absent, description=BASE_URL)
    api_version: ApiVersionField | None = Field(default=None, description=API_VERSION)
    description: DescriptionField | None = None
    status: ProviderStatus = Field(default_factory=_absent, description=STATUS)


class ProviderHealthRead(ReadModel):
    """What the watch found; it is no part of the provider's version, and so not of its `ETag`."""

    status: HealthStatus = Field(
        description=(
            "`healthy` after one check that went well, `unhealthy` after three in a row that did "
            "not, `unknown` before."
        )
    )
    outcome: CheckOutcome | None = Field(
        description="Of the last check, as of a connection test; told to the owner alone."
    )
    since: Instant | None = Field(description="Since when it is in this status.")
    checked_at: Instant | None = Field(description="Disabled providers are not checked any more.")
    duration_ms: int | None


class ProviderRead(ReadModel):
    """A tenant that a provider is granted to is shown null where only the owner is told."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "01935d2e-0000-7000-8000-0000000000b1",
                    "tenant_id": "01935d2e-0000-7000-8000-000000000001",
                    "name": "OpenAI, research",
                    "type": "openai",
                    "base_url": "https://api.openai.com/v1",
                    "api_version": None,
                    "description": "Paid by the research team.",
                    "status": "active",
                    "reach": "public",
                    "credential_set_at": "2026-11-21T08:00:00Z",
                    "health": {
                        "status": "healthy",
                        "outcome": "ok",
                        "since": "2026-11-21T08:01:00Z",
                        "checked_at": "2026-11-21T09:14:00Z",
                        "duration_ms": 180,
                    },
                    "created_by": "01935d2e-0000-7000-8000-000000000002",
                    "created_at": "2026-11-21T08:00:00Z",
                    "updated_at": "2026-11-21T08:00:00Z",
                }
            ]
        }
    )

    id: UUID
    tenant_id: UUID = Field(description="Whose it is; another tenant's can only be called.")
    name: str
    type: ProviderKind
    base_url: str | None
    api_version: str | None
    description: str | None
    status: ProviderStatus = Field(description=STATUS)
    reach: Reach | None = Field(
        description="`private`: it lies at a target of the operator's list, who alone changes it."
    )
    credential_set_at: Instant | None = Field(
        description="Since when there is a key, which is never shown; null: there is none."
    )
    health: ProviderHealthRead
    created_by: UUID | None
    created_at: Instant
    updated_at: Instant


class ProviderTypeRead(ReadModel):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "type": "anthropic",
                    "title": "Anthropic",
                    "protocol": "anthropic",
                    "base_url": "https://api.anthropic.com",
                    "base_url_example": "https://anthropic.example.com",
                    "needs_key": True,
                    "key_header": "x-api-key",
                    "keys_url": "https://platform.claude.com/settings/keys",
                    "uses_api_version": False,
                    "note": "The base URL is without /v1.",
                }
            ]
        }
    )

    type: ProviderKind
    title: str
    protocol: Protocol = Field(description="The wire format of its calls.")
    base_url: str | None = Field(description="Taken where none is sent; null: send one.")
    base_url_example: str
    needs_key: bool
    key_header: KeyHeader = Field(description="In `Authorization` it goes as a bearer token.")
    keys_url: str | None = Field(description="Where people make keys.")
    uses_api_version: bool
    note: str | None


class CredentialPut(StrictModel):
    model_config = ConfigDict(
        hide_input_in_errors=True,
        json_schema_extra={"examples": [{"api_key": "sk-example-0123456789"}]},
    )

    api_key: SecretStr = Field(
        min_length=1,
        max_length=MAX_KEY_CHARS,
        description="The supplier's key: visible ASCII. It is kept sealed, and never shown again.",
    )

    @model_validator(mode="before")
    @classmethod
    def _name_no_other_field(cls, body: Any) -> Any:
        """Refuse other fields without their names: a key in the wrong place may be one."""
        if isinstance(body, dict) and body.keys() - cls.model_fields.keys():
            raise PydanticCustomError("extra_forbidden", "Send `api_key` and no other field")
        return body
