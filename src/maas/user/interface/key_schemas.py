"""What the routes of API keys and service accounts take and give."""

from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import ConfigDict, Field
from pydantic.config import JsonDict

from maas.shared.interface.types import Instant, Name, ReadModel, StrictModel
from maas.shared.interface.values import value_text
from maas.user.application.key_ports import IssuedKey
from maas.user.domain.api_key import (
    DEFAULT_GRACE,
    DEFAULT_LIFETIME,
    LONGEST_GRACE,
    LONGEST_LIFETIME,
    MAX_MODELS,
    MAX_NETWORKS,
    MAX_SCOPES,
    Network,
)
from maas.user.interface.admin_schemas import DescriptionField, PermissionField, RoleNames

MAX_REQUESTS_PER_MINUTE = 1_000_000


def _absent() -> Any:
    """Stand in for a field that was not sent and may not be null; it is never looked at."""


NetworkField = Annotated[Network, value_text(Network, 64, examples=["192.0.2.0/24", "2001:db8::7"])]
Scopes = Annotated[list[PermissionField], Field(min_length=1, max_length=MAX_SCOPES)]
Networks = Annotated[list[NetworkField], Field(min_length=1, max_length=MAX_NETWORKS)]
Models = Annotated[list[Name], Field(min_length=1, max_length=MAX_MODELS)]
Rate = Annotated[int, Field(ge=1, le=MAX_REQUESTS_PER_MINUTE)]

_SCOPES = (
    "What the key may do, as far as its holder may: permissions that `GET /admin/permissions` "
    "lists. `*` reaches no keys, accounts and roles."
)
_EXPIRY = (
    f"When it ends: {DEFAULT_LIFETIME.days} days from now unless told, "
    f"{LONGEST_LIFETIME.days} at most. A key sets no end later than its own."
)
_NETWORKS = "Where it may be used from; anywhere if null. A key so bound passes on no rights."
_MODELS = "The models it may call, by name; any if null."
_RATE = "How often it may call; as often as its holder may, if null."


class ApiKeyCreate(StrictModel):
    model_config = ConfigDict(
        json_schema_extra={"examples": [{"name": "nightly build", "scopes": ["model:read"]}]}
    )

    name: Name
    scopes: Scopes = Field(description=_SCOPES)
    expires_at: Instant | None = Field(default=None, description=_EXPIRY)
    allowed_networks: Networks | None = Field(default=None, description=_NETWORKS)
    allowed_models: Models | None = Field(default=None, description=_MODELS)
    requests_per_minute: Rate | None = Field(default=None, description=_RATE)


class ApiKeyUpdate(StrictModel):
    """Fields that are absent stay as they are; `null` takes a limit away."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"allowed_networks": ["192.0.2.0/24"]}]}
    )

    name: Name = Field(default_factory=_absent)
    scopes: Scopes = Field(default_factory=_absent, description=_SCOPES)
    expires_at: Instant = Field(default_factory=_absent, description=_EXPIRY)
    allowed_networks: Networks | None = Field(default=None, description=_NETWORKS)
    allowed_models: Models | None = Field(default=None, description=_MODELS)
    requests_per_minute: Rate | None = Field(default=None, description=_RATE)


class ApiKeyRotate(StrictModel):
    model_config = ConfigDict(json_schema_extra={"examples": [{"grace_seconds": 3600}]})

    grace_seconds: Annotated[int, Field(ge=0, le=round(LONGEST_GRACE.total_seconds()))] = Field(
        default=round(DEFAULT_GRACE.total_seconds()),
        description="For how long the secret of before stays good; 0 ends it at once.",
    )


_KEY: JsonDict = {
    "id": "01935d2e-0000-7000-8000-00000000000a",
    "prefix": "maas_live_k3XbT9aQ",
    "name": "nightly build",
    "scopes": ["model:read"],
    "allowed_networks": None,
    "allowed_models": None,
    "requests_per_minute": None,
    "expires_at": "2027-02-19T08:00:00Z",
    "last_used_at": "2026-11-21T09:10:00Z",
    "rotated_at": None,
    "previous_valid_until": None,
    "created_by": "01935d2e-0000-7000-8000-000000000003",
    "created_by_key": None,
    "created_at": "2026-11-21T08:00:00Z",
    "updated_at": "2026-11-21T08:00:00Z",
}


class ApiKeyRead(ReadModel):
    model_config = ConfigDict(json_schema_extra={"examples": [_KEY]})

    id: UUID
    prefix: str = Field(description="How the key begins, to tell it by; no secret.")
    name: str
    scopes: list[str]
    allowed_networks: list[str] | None
    allowed_models: list[str] | None
    requests_per_minute: int | None
    expires_at: Instant
    last_used_at: Instant | None = Field(description="To the minute, and some seconds late.")
    rotated_at: Instant | None
    previous_valid_until: Instant | None = Field(
        description="Until when the secret of before the last rotation is good."
    )
    created_by: UUID
    created_by_key: UUID | None = Field(
        description="The API key it was made with; null if somebody was signed in."
    )
    created_at: Instant
    updated_at: Instant


class ApiKeyIssuedRead(ApiKeyRead):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    **_KEY,
                    "last_used_at": None,
                    "key": "maas_live_k3XbT9aQ_(32 letters and digits)_(6 to check them)",
                }
            ]
        }
    )

    key: str = Field(description="The key itself, told this once.")

    @classmethod
    def of(cls, issued: IssuedKey) -> Self:
        shown = ApiKeyRead.model_validate(issued.details)
        return cls(**shown.model_dump(), key=issued.key)


class ServiceAccountCreate(StrictModel):
    model_config = ConfigDict(
        json_schema_extra={"examples": [{"name": "build farm", "roles": ["developer"]}]}
    )

    name: Name
    description: DescriptionField | None = None
    roles: RoleNames


class ServiceAccountUpdate(StrictModel):
    """Fields that are absent stay as they are; `null` clears the description."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"status": "suspended"}]})

    name: Name = Field(default_factory=_absent)
    description: DescriptionField | None = None
    status: Literal["active", "suspended"] = Field(
        default_factory=_absent, description="The keys of a suspended one are refused."
    )
    roles: RoleNames = Field(default_factory=_absent)


class ServiceAccountRead(ReadModel):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "01935d2e-0000-7000-8000-00000000000b",
                    "name": "build farm",
                    "description": None,
                    "status": "active",
                    "roles": ["developer"],
                    "created_by": "01935d2e-0000-7000-8000-000000000003",
                    "created_at": "2026-11-21T08:00:00Z",
                    "updated_at": "2026-11-21T08:00:00Z",
                }
            ]
        }
    )

    id: UUID
    name: str
    description: str | None
    status: Literal["active", "suspended"]
    roles: list[str]
    created_by: UUID = Field(description="Who made it; it stays when they leave.")
    created_at: Instant
    updated_at: Instant
