"""Roles: named sets of permissions, each of one tenant."""

import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from typing_extensions import override

from maas.shared.domain.errors import (
    ConflictError,
    InvalidInputError,
    NotFoundError,
    RuleViolatedError,
)
from maas.shared.domain.ids import AccountId, TenantId
from maas.user.public import PLATFORM_ADMIN_ROLE

MAX_ROLE_PERMISSIONS = 200
MAX_ROLE_DESCRIPTION_CHARS = 500

GUARDED_ROLES = frozenset({"admin", PLATFORM_ADMIN_ROLE})
"""The roles of which somebody active must always hold each, where anybody ever did."""

_NAME = re.compile(r"[a-z](?:[a-z0-9_-]{0,62}[a-z0-9])?")
_PERMISSION = re.compile(r"(?:\*|[a-z][a-z0-9_-]{0,62}):(?:\*|[a-z][a-z0-9_-]{0,62})")


class InvalidRoleNameError(InvalidInputError):
    code = "invalid-role-name"
    title = "Not a role name"

    def __init__(self) -> None:
        super().__init__(
            "A role name has 1 to 64 lower-case letters, digits, dashes or underscores, starts "
            "with a letter and ends with a letter or digit."
        )


class InvalidPermissionError(InvalidInputError):
    code = "invalid-permission"
    title = "Not a permission"

    def __init__(self) -> None:
        super().__init__(
            "A permission is `<resource>:<action>` in lower case, with `*` for either part."
        )


class RoleNotFoundError(NotFoundError):
    code = "role-not-found"
    title = "No such role"


class RoleNameTakenError(ConflictError):
    code = "role-name-taken"
    title = "The tenant has a role of this name"


class ProtectedRoleError(RuleViolatedError):
    code = "role-protected"
    title = "A built-in role cannot be changed"

    def __init__(self) -> None:
        super().__init__("Built-in roles stay as they are: make a role of your own instead.")


class RoleInUseError(RuleViolatedError):
    code = "role-in-use"
    title = "Somebody holds the role"

    def __init__(self) -> None:
        super().__init__("Take the role from everybody who holds it, then delete it.")


@dataclass(frozen=True, slots=True, order=True)
class RoleName:
    """What a role is called; unique in its tenant, and for ever."""

    value: str

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.value):
            raise InvalidRoleNameError

    @override
    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, slots=True)
class PermissionPattern:
    """A permission as a role grants it: either part may be `*`."""

    value: str

    def __post_init__(self) -> None:
        if not _PERMISSION.fullmatch(self.value):
            raise InvalidPermissionError

    @override
    def __str__(self) -> str:
        return self.value


@dataclass(eq=False, kw_only=True)
class Role:
    """A named set of permissions. `version` counts the changes, for ETags."""

    tenant_id: TenantId
    name: RoleName
    description: str | None
    permissions: list[str]
    is_protected: bool
    created_at: datetime
    updated_at: datetime
    version: int = 1

    @property
    def rights(self) -> frozenset[str]:
        return frozenset(self.permissions)

    def allow(self, permissions: Collection[PermissionPattern], *, at: datetime) -> None:
        """Grant exactly these to whoever holds the role."""
        self.permissions = spell_permissions(permissions)
        self._touch(at)

    def describe(self, description: str | None, *, at: datetime) -> None:
        self.description = description
        self._touch(at)

    def _touch(self, at: datetime) -> None:
        self.updated_at = at
        self.version += 1


def spell_permissions(permissions: Collection[PermissionPattern]) -> list[str]:
    """List permissions in one order, each once."""
    return sorted({permission.value for permission in permissions})


class RoleRepository(Protocol):
    async def get(self, name: RoleName) -> Role:
        """Load the role, locked.

        Raises:
            RoleNotFoundError: the tenant has none of this name.
        """
        ...

    async def list_named(self, names: Collection[RoleName]) -> list[Role]:
        """Load these roles, kept as they are until the transaction ends.

        Whoever narrows one meanwhile waits, and so learns who was given it.

        Raises:
            RoleNotFoundError: the tenant lacks one of them.
        """
        ...

    async def is_held(self, name: RoleName) -> bool: ...

    async def list_held(self, holder: AccountId) -> frozenset[RoleName]:
        """Name the roles that a person or a service account holds in the tenant."""
        ...

    def add(self, role: Role) -> None: ...

    async def remove(self, role: Role) -> None: ...
