"""What the admin and platform routes take and give."""

from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import ConfigDict, Field, StringConstraints
from pydantic.config import JsonDict

from maas.shared.interface.types import Instant, Name, ReadModel, StrictModel
from maas.shared.interface.values import value_text
from maas.user.application.admin_bulk import MAX_BULK_ROWS
from maas.user.domain.account import (
    AccountStatus,
)
from maas.user.domain.role import (
    MAX_ROLE_DESCRIPTION_CHARS,
    MAX_ROLE_PERMISSIONS,
    PermissionPattern,
    RoleName,
)
from maas.user.domain.tenant import MAX_REASON_CHARS, Slug
from maas.user.interface.schemas import (
    DisplayNameField,
    EmailField,
    Password,
    UsernameField,
)

MAX_MEMBER_ROLES = 50


def _absent() -> Any:
    """Stand in for a field that was not sent and may not be null; it is never looked at."""


RoleNameField = Annotated[RoleName, value_text(RoleName, 64, examples=["developer"])]
PermissionField = Annotated[
    PermissionPattern, value_text(PermissionPattern, 127, examples=["model:read", "deployment:*"])
]
SlugField = Annotated[Slug, value_text(Slug, 64, pattern="^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")]
ReasonField = Annotated[
    str, StringConstraints(strict=True, min_length=1, max_length=MAX_REASON_CHARS)
]
RoleNames = Annotated[list[RoleNameField], Field(max_length=MAX_MEMBER_ROLES)]
DescriptionField = Annotated[
    str, StringConstraints(strict=True, min_length=1, max_length=MAX_ROLE_DESCRIPTION_CHARS)
]


class UserCreate(StrictModel):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "username": "grace",
                    "email": "grace@example.com",
                    "display_name": "Grace Hopper",
                    "roles": ["developer"],
                }
            ]
        }
    )

    username: UsernameField
    email: EmailField
    display_name: DisplayNameField | None = None
    password: Password | None = Field(
        default=None, description="The first password; one is generated if absent."
    )
    roles: RoleNames = Field(default_factory=lambda: [RoleName("user")])


class UserUpdate(StrictModel):
    """Fields that are absent stay as they are; `null` clears the display name."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"display_name": "Grace Hopper"}]})

    display_name: DisplayNameField | None = None
    email: EmailField = Field(default_factory=_absent)
    home_tenant_id: UUID = Field(
        default_factory=_absent,
        description="Whose administrators look after the account; for the platform's to change.",
    )


_USER: JsonDict = {
    "id": "01935d2e-0000-7000-8000-000000000003",
    "username": "grace",
    "email": "grace@example.com",
    "display_name": "Grace Hopper",
    "status": "active",
    "status_reason": None,
    "account_status": "active",
    "password_change_required": True,
    "home_tenant_id": "01900000-0000-7000-8000-000000000001",
    "roles": ["developer"],
    "created_at": "2026-11-21T08:00:00Z",
    "updated_at": "2026-11-21T08:00:00Z",
}


class UserRead(ReadModel):
    model_config = ConfigDict(json_schema_extra={"examples": [_USER]})

    id: UUID
    username: str
    email: str
    display_name: str | None
    status: Literal["active", "suspended"] = Field(description="In this tenant.")
    status_reason: str | None
    account_status: AccountStatus = Field(description="Of the account, in every tenant.")
    password_change_required: bool
    home_tenant_id: UUID
    roles: list[str]
    created_at: Instant = Field(description="When the person joined this tenant.")
    updated_at: Instant


class UserCreatedRead(UserRead):
    model_config = ConfigDict(
        json_schema_extra={"examples": [{**_USER, "initial_password": "tundra-Ankle-47-oboe"}]}
    )

    initial_password: str | None = Field(
        description="Shown this once, if it was generated; to be changed at the first sign-in."
    )


class Suspension(StrictModel):
    model_config = ConfigDict(json_schema_extra={"examples": [{"reason": "On leave until May."}]})

    reason: ReasonField = Field(description="Kept in the audit trail.")


class RolesUpdate(StrictModel):
    model_config = ConfigDict(json_schema_extra={"examples": [{"roles": ["developer"]}]})

    roles: RoleNames = Field(description="Exactly these from now on.")


class PasswordReset(StrictModel):
    model_config = ConfigDict(json_schema_extra={"examples": [{}]})

    password: Password | None = Field(
        default=None, description="The new password; one is generated if absent."
    )
    revoke_api_keys: bool = Field(
        default=True,
        description="Whether the person's API keys end as well, in every tenant.",
    )


class PasswordResetRead(ReadModel):
    model_config = ConfigDict(
        json_schema_extra={"examples": [{"initial_password": "tundra-Ankle-47-oboe"}]}
    )

    initial_password: str | None = Field(description="Shown this once, if it was generated.")


class BulkCreateRow(UserCreate):
    model_config = ConfigDict(json_schema_extra={})

    act: Literal["create"]


class BulkSuspendRow(StrictModel):
    act: Literal["suspend"]
    id: UUID
    reason: ReasonField


class BulkRestoreRow(StrictModel):
    act: Literal["restore"]
    id: UUID


class BulkRolesRow(StrictModel):
    act: Literal["set-roles"]
    id: UUID
    roles: RoleNames


class BulkRemoveRow(StrictModel):
    act: Literal["remove"]
    id: UUID


BulkRowField = Annotated[
    BulkCreateRow | BulkSuspendRow | BulkRestoreRow | BulkRolesRow | BulkRemoveRow,
    Field(discriminator="act"),
]


class BulkRequest(StrictModel):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "mode": "each",
                    "rows": [
                        {
                            "act": "create",
                            "username": "grace",
                            "email": "grace@example.com",
                            "roles": ["developer"],
                        },
                        {
                            "act": "suspend",
                            "id": "01900000-0000-7000-8000-000000000002",
                            "reason": "Left the company.",
                        },
                    ],
                }
            ]
        }
    )

    mode: Literal["all-or-nothing", "each"] = Field(
        description="One transaction, or a report of what became of each row."
    )
    rows: Annotated[list[BulkRowField], Field(min_length=1, max_length=MAX_BULK_ROWS)]


class BulkOutcomeRead(ReadModel):
    row: int = Field(description="Counted from 0.")
    outcome: Literal["done", "refused"]
    id: UUID | None
    initial_password: str | None
    code: str | None = Field(description="Why the row was refused.")
    detail: str | None


class BulkRead(ReadModel):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "done": 1,
                    "refused": 1,
                    "rows": [
                        {
                            "row": 0,
                            "outcome": "done",
                            "id": "01935d2e-0000-7000-8000-000000000003",
                            "initial_password": "tundra-Ankle-47-oboe",
                            "code": None,
                            "detail": None,
                        },
                        {
                            "row": 1,
                            "outcome": "refused",
                            "id": None,
                            "initial_password": None,
                            "code": "member-not-found",
                            "detail": "Nobody of that id is a member",
                        },
                    ],
                }
            ]
        }
    )

    done: int
    refused: int
    rows: list[BulkOutcomeRead]


class RoleCreate(StrictModel):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "name": "help-desk",
                    "description": "Looks after people, not after models.",
                    "permissions": ["user:read", "user:write"],
                }
            ]
        }
    )

    name: RoleNameField
    description: DescriptionField | None = None
    permissions: Annotated[list[PermissionField], Field(max_length=MAX_ROLE_PERMISSIONS)]


class RoleUpdate(StrictModel):
    """Fields that are absent stay as they are; `null` clears the description."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"permissions": ["user:read"]}]})

    description: DescriptionField | None = None
    permissions: Annotated[list[PermissionField], Field(max_length=MAX_ROLE_PERMISSIONS)] = Field(
        default_factory=_absent
    )


class RoleRead(ReadModel):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "name": "help-desk",
                    "description": "Looks after people, not after models.",
                    "permissions": ["user:read", "user:write"],
                    "is_protected": False,
                    "created_at": "2026-11-21T08:00:00Z",
                    "updated_at": "2026-11-21T08:00:00Z",
                }
            ]
        }
    )

    name: str
    description: str | None
    permissions: list[str]
    is_protected: bool
    created_at: Instant
    updated_at: Instant


class PermissionRead(ReadModel):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "name": "model:read",
                    "description": "See models, versions and files, and download them.",
                }
            ]
        }
    )

    name: str
    description: str


class TenantCreate(StrictModel):
    model_config = ConfigDict(
        json_schema_extra={"examples": [{"slug": "research", "name": "Research"}]}
    )

    slug: SlugField = Field(description="For sign-ins; it never changes and is never given again.")
    name: Name
    admin_id: UUID | None = Field(
        default=None, description="The account that administers it first; your own, say."
    )


class TenantUpdate(StrictModel):
    """Fields that are absent stay as they are."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"status": "suspended", "status_reason": "Unpaid."}]}
    )

    name: Name = Field(default_factory=_absent)
    status: Literal["active", "suspended"] = Field(default_factory=_absent)
    status_reason: ReasonField | None = Field(
        default=None, description="Why it is suspended; kept only while it is."
    )


class TenantRead(ReadModel):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "01935d2e-0000-7000-8000-000000000006",
                    "slug": "research",
                    "name": "Research",
                    "status": "active",
                    "status_reason": None,
                    "created_at": "2026-11-21T08:00:00Z",
                    "updated_at": "2026-11-21T08:00:00Z",
                }
            ]
        }
    )

    id: UUID
    slug: str
    name: str
    status: Literal["active", "suspended"]
    status_reason: str | None
    created_at: Instant
    updated_at: Instant
