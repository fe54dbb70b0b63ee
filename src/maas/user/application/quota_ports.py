"""What the settings of quotas need from outside, and how they are told."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol, Self, TypeAlias
from uuid import UUID

from maas.shared.domain.ids import AccountId, ApiKeyId, ServiceAccountId, TenantId
from maas.user.application.key_ports import KeyUnitOfWork
from maas.user.domain.api_key import Holder
from maas.user.domain.quota import Quota
from maas.user.public import Meter, Payer, Period, Scope

SubjectKind: TypeAlias = Literal["tenant", "account", "service_account", "api_key"]

_SCOPES: dict[SubjectKind, Scope] = {
    "tenant": "tenant",
    "account": "user",
    "service_account": "user",
    "api_key": "key",
}
_TAG_BYTES = 7


@dataclass(frozen=True, slots=True)
class QuotaSubject:
    """Whose quotas they are, by the kinds of the audit trail; a key is looked for at its holder."""

    kind: SubjectKind
    id: UUID
    holder: Holder | None = None

    @classmethod
    def tenant(cls, tenant_id: TenantId) -> Self:
        return cls("tenant", tenant_id)

    @classmethod
    def account(cls, account_id: AccountId) -> Self:
        return cls("account", account_id)

    @classmethod
    def service_account(cls, service_account_id: ServiceAccountId) -> Self:
        return cls("service_account", service_account_id)

    @classmethod
    def key(cls, key_id: ApiKeyId, holder: Holder) -> Self:
        return cls("api_key", key_id, holder)

    @property
    def scope(self) -> Scope:
        return _SCOPES[self.kind]


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaDetails:
    """A quota with what is used of it in the period that is running.

    Amounts are counts, bytes, or nano-units of the currency.
    """

    id: UUID
    version: int
    scope: Scope
    meter: Meter
    period: Period
    currency: str | None
    limit: int
    used: int
    held: int
    is_closed: bool
    resets_at: datetime | None

    @property
    def remaining(self) -> int:
        """What a call may still take: nothing once more was billed than held."""
        return 0 if self.is_closed else max(0, self.limit - self.used - self.held)


@dataclass(frozen=True, slots=True)
class QuotaSheet:
    """All quotas of somebody; the version is of the limits, and not of what is used of them."""

    quotas: Sequence[QuotaDetails]

    @property
    def version(self) -> int:
        return version_of((each.id, each.version) for each in self.quotas)


def version_of(quotas: Iterable[tuple[UUID, int]]) -> int:
    """Tell one version for all quotas of somebody: another one if any was made, changed or went.

    There is no row that could count: somebody without quotas has none.
    """
    spelled = "\n".join(sorted(f"{quota_id} {version}" for quota_id, version in quotas))
    return int.from_bytes(hashlib.sha256(spelled.encode()).digest()[:_TAG_BYTES])


class QuotaRepository(Protocol):
    async def list_of(self, scope: Scope, subject_id: UUID) -> list[Quota]:
        """Load a subject's quotas in the tenant acted in, locked, in the order of their ids."""
        ...

    def add(self, quota: Quota) -> None: ...

    async def remove(self, quota: Quota) -> None:
        """Delete it at once, so that another may take its place in the same transaction."""
        ...

    async def list_details(self, scope: Scope, subject_id: UUID) -> list[QuotaDetails]:
        """Read what this transaction has made of them so far, with what is used."""
        ...


class QuotaUnitOfWork(KeyUnitOfWork, Protocol):
    """One transaction over the quotas of the tenant acted in, and over whose they are."""

    @property
    def quotas(self) -> QuotaRepository: ...


class QuotaQueries(Protocol):
    async def get_sheet(self, tenant_id: TenantId, subject: QuotaSubject) -> QuotaSheet:
        """Read somebody's own quotas.

        Raises:
            TenantNotFoundError, MemberNotFoundError, ServiceAccountNotFoundError,
            ApiKeyNotFoundError: by the subject's kind.
        """
        ...

    async def get_binding(self, payer: Payer) -> QuotaSheet:
        """Read all quotas that bind a caller: the tenant's, the account's, and the key's."""
        ...
