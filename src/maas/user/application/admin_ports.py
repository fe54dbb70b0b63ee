"""What the use cases of the admin area need from outside."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from types import TracebackType
from typing import Protocol, Self

from maas.shared.domain.ids import AccountId, SessionId, TenantId
from maas.shared.domain.page import Page, PageRequest, Position
from maas.user.application.ports import AccountRepository, KeyMark
from maas.user.domain.account import Account, AccountStatus
from maas.user.domain.role import Role, RoleName, RoleRepository
from maas.user.domain.session import RevocationReason, Session
from maas.user.domain.tenant import (
    Membership,
    MembershipRepository,
    MembershipStatus,
    Tenant,
    TenantRepository,
    TenantStatus,
)


def names_of(roles: Collection[RoleName]) -> list[str]:
    return sorted(str(role) for role in roles)


@dataclass(frozen=True, slots=True)
class SessionMark:
    """A session, and the version a reader must have seen."""

    id: SessionId
    version: int


def marks_of(sessions: Iterable[Session]) -> list[SessionMark]:
    """Say which version each session has now: what its tombstone must name."""
    return [SessionMark(session.id, session.version) for session in sessions]


@dataclass(slots=True, kw_only=True)
class SessionEffects:
    """What an act did to sessions and keys: to be announced right after its commit.

    Of `new_keys` somebody may remember that there are none; that is no danger, only a nuisance.
    """

    ended: list[SessionMark] = field(default_factory=list)
    stale: list[SessionMark] = field(default_factory=list)
    stale_keys: list[KeyMark] = field(default_factory=list)
    new_keys: list[KeyMark] = field(default_factory=list)

    def add(self, other: "SessionEffects") -> None:
        self.ended += other.ended
        self.stale += other.stale
        self.stale_keys += other.stale_keys
        self.new_keys += other.new_keys


class SessionMarks(Protocol):
    async def announce(self, effects: SessionEffects) -> None:
        """Make the change felt by every request that starts after this returns.

        Without Redis it returns once every cached entry has died of old age; new keys alone are
        not waited for.
        """
        ...


class SessionReach(Protocol):
    """Changes the sessions that a change of access reaches.

    The account, or else the tenant, is locked before, so that no session is opened meanwhile.
    """

    async def end(
        self, account_id: AccountId, reason: RevocationReason, *, at: datetime, everywhere: bool
    ) -> SessionEffects:
        """End the account's sessions in the tenant acted in, or in all tenants.

        Its keys are looked at anew there: they are refused for as long as their holder is.
        """
        ...

    async def refresh_account(self, account_id: AccountId) -> SessionEffects:
        """Have the account's sessions and keys in the tenant acted in read their rights anew."""
        ...

    async def refresh_holders(self, role: RoleName) -> SessionEffects:
        """Have the sessions and keys of all who hold the role read their rights anew."""
        ...

    async def end_tenant(self, tenant_id: TenantId, *, at: datetime) -> SessionEffects:
        """End every session of the tenant, and have every key of it looked at anew."""
        ...


class AdminUnitOfWork(Protocol):
    """One transaction over the people, roles and tenants of the tenant acted in."""

    @property
    def accounts(self) -> AccountRepository: ...

    @property
    def memberships(self) -> MembershipRepository: ...

    @property
    def roles(self) -> RoleRepository: ...

    @property
    def tenants(self) -> TenantRepository: ...

    @property
    def sessions(self) -> SessionReach: ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    async def act_in(self, tenant_id: TenantId) -> None: ...

    async def lock_guarded_roles(self) -> None:
        """Let one change of access at a time decide whether enough administrators remain."""
        ...

    async def lock_tenant(self, tenant_id: TenantId) -> None:
        """Wait for sign-ins to the tenant under way, and let none begin before the commit."""
        ...

    async def is_member_elsewhere(self, account_id: AccountId) -> bool:
        """Tell whether the account belongs to another tenant than the one acted in."""
        ...

    async def list_places(self, account_id: AccountId) -> list[TenantId]:
        """List the tenants the account is a member of, in whatever state, in a fixed order."""
        ...

    async def revoke_keys(self, account_id: AccountId) -> list[KeyMark]:
        """Delete the API keys of an account, which is locked, in every tenant."""
        ...

    async def list_rights(self, account_id: AccountId) -> frozenset[str]:
        """List what the account may do in any tenant."""
        ...

    async def forget(self, account_id: AccountId) -> bool:
        """Delete an account that is a member of nothing; False if it is of something.

        The tenant's open invitations for it are withdrawn: nobody comes back by an old one.
        """
        ...

    async def commit(self, result: object = None) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberDetails:
    """A person as their tenant's administrators see them.

    `created_at` is when they joined; `version` counts changes of account and membership together.
    """

    id: AccountId
    username: str
    email: str
    display_name: str | None
    account_status: AccountStatus
    password_change_required: bool
    home_tenant_id: TenantId
    status: MembershipStatus
    status_reason: str | None
    roles: list[str]
    created_at: datetime
    updated_at: datetime
    version: int

    @classmethod
    def of(cls, account: Account, membership: Membership) -> "MemberDetails":
        return MemberDetails(
            id=account.id,
            username=str(account.username),
            email=str(account.email),
            display_name=None if account.display_name is None else str(account.display_name),
            account_status=account.status,
            password_change_required=account.password_change_required,
            home_tenant_id=account.home_tenant_id,
            status=membership.status,
            status_reason=membership.status_reason,
            roles=names_of(membership.role_names),
            created_at=membership.created_at,
            updated_at=max(account.updated_at, membership.updated_at),
            version=account.version + membership.version,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberCreated(MemberDetails):
    """A new person, with the password they sign in with first, if we chose it."""

    initial_password: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberFilter:
    """Which members are wanted; `search` is a part of a name or address, in any case."""

    search: str | None = None
    status: MembershipStatus | None = None
    role: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleDetails:
    name: str
    description: str | None
    permissions: list[str]
    is_protected: bool
    created_at: datetime
    updated_at: datetime
    version: int

    @classmethod
    def of(cls, role: Role) -> Self:
        return cls(
            name=str(role.name),
            description=role.description,
            permissions=role.permissions,
            is_protected=role.is_protected,
            created_at=role.created_at,
            updated_at=role.updated_at,
            version=role.version,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantDetails:
    id: TenantId
    slug: str
    name: str
    status: TenantStatus
    status_reason: str | None
    created_at: datetime
    updated_at: datetime
    version: int

    @classmethod
    def of(cls, tenant: Tenant) -> Self:
        return cls(
            id=tenant.id,
            slug=str(tenant.slug),
            name=tenant.name,
            status=tenant.status,
            status_reason=tenant.status_reason,
            created_at=tenant.created_at,
            updated_at=tenant.updated_at,
            version=tenant.version,
        )


class DirectoryQueries(Protocol):
    async def get_member(self, tenant_id: TenantId, account_id: AccountId) -> MemberDetails:
        """Raises MemberNotFoundError."""
        ...

    async def list_members(
        self, tenant_id: TenantId, wanted: MemberFilter, page: PageRequest
    ) -> Page[MemberDetails]: ...

    async def read_members(
        self, tenant_id: TenantId, wanted: MemberFilter, *, after: Position | None, limit: int
    ) -> Sequence[MemberDetails]:
        """Read the members that follow a position, for an export."""
        ...

    async def list_roles(self, tenant_id: TenantId) -> list[RoleDetails]:
        """List all roles by name; a tenant has a few dozen."""
        ...

    async def get_role(self, tenant_id: TenantId, name: RoleName) -> RoleDetails:
        """Raises RoleNotFoundError."""
        ...

    async def list_tenants(
        self, page: PageRequest, *, search: str | None, status: TenantStatus | None
    ) -> Page[TenantDetails]: ...

    async def get_tenant(self, tenant_id: TenantId) -> TenantDetails:
        """Raises TenantNotFoundError."""
        ...
