"""Service accounts: holders of keys that belong to the tenant, and to no person in it."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol, TypeAlias

from maas.shared.domain.errors import ConflictError, NotFoundError, RuleViolatedError
from maas.shared.domain.ids import AccountId, ServiceAccountId, TenantId
from maas.user.domain.role import RoleName

ServiceAccountStatus: TypeAlias = Literal["active", "suspended"]
MAX_SERVICE_ACCOUNTS = 500


class ServiceAccountNotFoundError(NotFoundError):
    code = "service-account-not-found"
    title = "No such service account"


class ServiceAccountNameTakenError(ConflictError):
    code = "service-account-name-taken"
    title = "The tenant has a service account of this name"


class TooManyServiceAccountsError(RuleViolatedError):
    code = "too-many-service-accounts"
    title = "Too many service accounts"

    def __init__(self) -> None:
        super().__init__(
            f"A tenant has {MAX_SERVICE_ACCOUNTS} service accounts at most: delete some first."
        )


@dataclass(eq=False, kw_only=True)
class ServiceRoleGrant:
    """That a service account holds a role."""

    tenant_id: TenantId
    service_account_id: ServiceAccountId
    role_name: RoleName


@dataclass(eq=False, kw_only=True)
class ServiceAccount:
    """A program with roles of its own. `version` counts the changes, for ETags."""

    id: ServiceAccountId
    tenant_id: TenantId
    name: str
    description: str | None
    status: ServiceAccountStatus
    grants: list[ServiceRoleGrant]
    created_by: AccountId
    created_at: datetime
    updated_at: datetime
    version: int = 1

    @property
    def role_names(self) -> frozenset[RoleName]:
        return frozenset(grant.role_name for grant in self.grants)

    def assign(self, names: Collection[RoleName], *, at: datetime) -> None:
        """Have it hold exactly these roles."""
        wanted = frozenset(names)
        kept = [grant for grant in self.grants if grant.role_name in wanted]
        added = wanted - {grant.role_name for grant in kept}
        self.grants[:] = kept + [
            ServiceRoleGrant(tenant_id=self.tenant_id, service_account_id=self.id, role_name=name)
            for name in sorted(added)
        ]
        self._touch(at)

    def describe(self, name: str, description: str | None, *, at: datetime) -> None:
        self.name, self.description = name, description
        self._touch(at)

    def suspend(self, *, at: datetime) -> None:
        """Have all its keys refused until it is restored."""
        self.status = "suspended"
        self._touch(at)

    def restore(self, *, at: datetime) -> None:
        self.status = "active"
        self._touch(at)

    def _touch(self, at: datetime) -> None:
        self.updated_at = at
        self.version += 1


class ServiceAccountRepository(Protocol):
    async def get(self, service_account_id: ServiceAccountId) -> ServiceAccount:
        """Load it with its roles, locked.

        Raises:
            ServiceAccountNotFoundError.
        """
        ...

    async def count_locked(self) -> int:
        """Count the tenant's, and let nobody make another one until the transaction ends."""
        ...

    def add(self, service_account: ServiceAccount) -> None: ...

    async def remove(self, service_account: ServiceAccount) -> None: ...
