"""Tenants, and the memberships that join accounts to them."""

import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol, TypeAlias

from typing_extensions import override

from maas.shared.domain.errors import (
    ConflictError,
    InvalidInputError,
    NotFoundError,
    RuleViolatedError,
)
from maas.shared.domain.ids import DEFAULT_TENANT_ID, AccountId, TenantId
from maas.user.domain.role import RoleName

TenantStatus: TypeAlias = Literal["active", "suspended", "deleted"]
MembershipStatus: TypeAlias = Literal["active", "suspended"]

MAX_REASON_CHARS = 500

_SLUG = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?")


class InvalidSlugError(InvalidInputError):
    code = "invalid-slug"
    title = "Not a slug"

    def __init__(self) -> None:
        super().__init__("A slug has 1 to 64 lower-case letters, digits and inner hyphens.")


class TenantNotFoundError(NotFoundError):
    code = "tenant-not-found"
    title = "No such tenant"


class TenantSlugTakenError(ConflictError):
    code = "tenant-slug-taken"
    title = "Another tenant has or had this slug"


class DefaultTenantError(RuleViolatedError):
    code = "default-tenant"
    title = "The default tenant is always there"

    def __init__(self) -> None:
        super().__init__("The default tenant can be neither suspended nor deleted.")


class MemberNotFoundError(NotFoundError):
    code = "member-not-found"
    title = "Nobody of that id is a member"


@dataclass(frozen=True, slots=True)
class Slug:
    """A tenant's name in sign-ins and URLs; unique, and never given twice."""

    value: str

    def __post_init__(self) -> None:
        if not _SLUG.fullmatch(self.value):
            raise InvalidSlugError

    @override
    def __str__(self) -> str:
        return self.value


@dataclass(eq=False, kw_only=True)
class Tenant:
    """An organisation. `version` counts the changes, for ETags."""

    id: TenantId
    slug: Slug
    name: str
    status: TenantStatus
    status_reason: str | None
    created_at: datetime
    updated_at: datetime
    version: int = 1

    def rename(self, name: str, *, at: datetime) -> None:
        self.name = name
        self._touch(at)

    def suspend(self, reason: str | None, *, at: datetime) -> None:
        """Let nobody act in it until it is restored.

        Raises:
            DefaultTenantError: it is the default tenant.
        """
        self._close("suspended", reason, at)

    def restore(self, *, at: datetime) -> None:
        self.status, self.status_reason = "active", None
        self._touch(at)

    def delete(self, *, at: datetime) -> None:
        """Close it for good; its rows are kept for the trail.

        Raises:
            DefaultTenantError: it is the default tenant.
        """
        self._close("deleted", None, at)

    def _close(self, status: TenantStatus, reason: str | None, at: datetime) -> None:
        if self.id == DEFAULT_TENANT_ID:
            raise DefaultTenantError
        self.status, self.status_reason = status, reason
        self._touch(at)

    def _touch(self, at: datetime) -> None:
        self.updated_at = at
        self.version += 1


@dataclass(eq=False, kw_only=True)
class RoleGrant:
    """One role of one membership."""

    tenant_id: TenantId
    account_id: AccountId
    role_name: RoleName


@dataclass(eq=False, kw_only=True)
class Membership:
    """An account's place in a tenant. `version` counts the changes, for ETags."""

    tenant_id: TenantId
    account_id: AccountId
    status: MembershipStatus
    status_reason: str | None
    created_at: datetime
    updated_at: datetime
    grants: list[RoleGrant]
    version: int = 1

    @property
    def role_names(self) -> frozenset[RoleName]:
        return frozenset(grant.role_name for grant in self.grants)

    @property
    def is_active(self) -> bool:
        return self.status == "active"

    def assign(self, names: Collection[RoleName], *, at: datetime) -> None:
        """Hold exactly these roles."""
        wanted = set(names)
        kept = [grant for grant in self.grants if grant.role_name in wanted]
        new = wanted - {grant.role_name for grant in kept}
        self.grants[:] = kept + [
            RoleGrant(tenant_id=self.tenant_id, account_id=self.account_id, role_name=name)
            for name in sorted(new, key=str)
        ]
        self._touch(at)

    def suspend(self, reason: str, *, at: datetime) -> None:
        self.status, self.status_reason = "suspended", reason
        self._touch(at)

    def restore(self, *, at: datetime) -> None:
        self.status, self.status_reason = "active", None
        self._touch(at)

    def _touch(self, at: datetime) -> None:
        self.updated_at = at
        self.version += 1


class TenantRepository(Protocol):
    async def get(self, tenant_id: TenantId) -> Tenant:
        """Load the tenant, locked against sign-ins to it.

        Raises:
            TenantNotFoundError: there is none, or it is deleted.
        """
        ...

    async def is_slug_taken(self, slug: Slug) -> bool: ...

    def add(self, tenant: Tenant) -> None: ...


class MembershipRepository(Protocol):
    async def find(self, account_id: AccountId) -> Membership | None:
        """Load the account's membership in the tenant acted in, locked."""
        ...

    async def count_active(self, roles: Collection[str], *, besides: AccountId) -> dict[str, int]:
        """Count the active holders of each role; the caller has locked these roles before."""
        ...

    def add(self, membership: Membership) -> None: ...

    async def remove(self, membership: Membership) -> None: ...
