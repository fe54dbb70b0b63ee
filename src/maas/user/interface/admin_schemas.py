"""What the admin and platform routes take and give."""

from collections.abc import Callable
from typing import Annotated, Any, Literal, TypeVar
from uuid import UUID

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    StringConstraints,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

from maas.shared.domain.errors import InvalidInputError
from maas.shared.interface.types import Instant, Name, ReadModel, StrictModel
from maas.user.application.admin_bulk import MAX_BULK_ROWS
from maas.user.domain.account import (
    MAX_DISPLAY_NAME_CHARS,
    MAX_EMAIL_CHARS,
    AccountStatus,
    DisplayName,
    EmailAddress,
    Username,
)
from maas.user.domain.role import (
    MAX_ROLE_DESCRIPTION_CHARS,
    MAX_ROLE_PERMISSIONS,
    PermissionPattern,
    RoleName,
)
from maas.user.domain.tenant import MAX_REASON_CHARS, Slug
from maas.user.interface.schemas import Password

V = TypeVar("V")
MAX_MEMBER_ROLES = 50


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


def _absent() -> Any:
    """Stand in for a field that was not sent and may not be null; it is never looked at."""


UsernameField = Annotated[
    Username,
    _into(Username),
    PlainSerializer(str),
    _text(64, pattern="^[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9])?$"),
]
EmailField = Annotated[
    EmailAddress,
    _into(EmailAddress),
    PlainSerializer(str),
    _text(MAX_EMAIL_CHARS, format="email"),
]
DisplayNameField = Annotated[
    DisplayName, _into(DisplayName), PlainSerializer(str), _text(MAX_DISPLAY_NAME_CHARS)
]
RoleNameField = Annotated[
    RoleName, _into(RoleName), PlainSerializer(str), _text(64, examples=["developer"])
]
PermissionField = Annotated[
    PermissionPattern,
    _into(PermissionPattern),
    PlainSerializer(str),
    _text(127, examples=["model:read", "deployment:*"]),
]
SlugField = Annotated[
    Slug, _into(Slug), PlainSerializer(str), _text(64, pattern="^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")
]
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


class UserRead(ReadModel):
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


class PasswordResetRead(ReadModel):
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
    name: str
    description: str | None
    permissions: list[str]
    is_protected: bool
    created_at: Instant
    updated_at: Instant


class PermissionRead(ReadModel):
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
    id: UUID
    slug: str
    name: str
    status: Literal["active", "suspended"]
    status_reason: str | None
    created_at: Instant
    updated_at: Instant
