"""What the use cases of identity need from outside."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Protocol, Self

from maas.shared.domain.ids import AccountId, SessionId, TenantId
from maas.user.domain.account import Account
from maas.user.domain.session import Session


@dataclass(frozen=True, slots=True)
class KeyMark:
    """An API key by its public id, and the version a reader must have seen."""

    public_id: str
    version: int


class AccountRepository(Protocol):
    async def get(self, account_id: AccountId) -> Account:
        """Load the account, locked until the transaction ends.

        Raises:
            AccountNotFoundError: there is none.
        """
        ...

    def add(self, account: Account) -> None: ...

    async def drop_reset_links(self, account_id: AccountId) -> None:
        """Make the mailed links to a new password worth nothing.

        Before the account is locked: whoever spends a link goes the same way round.
        """
        ...


class SessionRepository(Protocol):
    async def find_locked(self, session_id: SessionId) -> Session | None:
        """Load the session, locked: two refreshes of one token must not both win."""
        ...

    async def list_live(self, account_id: AccountId, *, at: datetime) -> list[Session]: ...

    def add(self, session: Session) -> None: ...


class UserUnitOfWork(Protocol):
    @property
    def accounts(self) -> AccountRepository: ...

    @property
    def sessions(self) -> SessionRepository: ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    async def act_in(self, tenant_id: TenantId) -> None: ...

    async def add_membership(
        self, account_id: AccountId, tenant_id: TenantId, *, roles: Sequence[str], at: datetime
    ) -> None:
        """Join the account to the tenant with these of its roles, by name."""
        ...

    async def may_act(self, session: Session) -> bool:
        """Tell whether its account is let into its tenant.

        The new session's row holds both as they are: what ends sessions comes before or after.
        """
        ...

    async def revoke_keys(self, account_id: AccountId) -> list[KeyMark]:
        """Delete the API keys of an account, which is locked, in every tenant."""
        ...

    async def mark_bootstrapped(self, *, at: datetime) -> bool:
        """Take the one mark that lets a first admin be made; False if it was taken before."""
        ...

    async def commit(self, result: object = None) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantChoice:
    """A tenant an account may act in."""

    id: TenantId
    slug: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SignInCandidate:
    """What sign-in must know of an account before anybody is known to be calling."""

    account_id: AccountId
    username: str
    password_hash: str
    is_active: bool
    is_known_address: bool
    last_tenant_id: TenantId | None
    tenants: list[TenantChoice]


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """One's own account, as the tenant at hand shows it."""

    id: AccountId
    username: str
    email: str
    email_verified: bool
    display_name: str | None
    tenant_id: TenantId
    tenant: str
    password_change_required: bool
    created_at: datetime
    updated_at: datetime
    version: int


class UserQueries(Protocol):
    async def find_sign_in(self, login: str, address: str | None) -> SignInCandidate | None:
        """Look an account up by user name or e-mail, without regard to case.

        `address` is where the call comes from: the candidate says whether it was so before.
        """
        ...

    async def get_profile(self, account_id: AccountId, tenant_id: TenantId) -> Profile: ...


class PasswordHasher(Protocol):
    """Argon2id in a bounded pool of threads."""

    async def hash(self, password: str) -> str: ...

    async def verify(self, password: str, password_hash: str | None) -> bool:
        """Check a password; without a hash, spend the same time and say no.

        Raises:
            HashingBusyError: too many are waiting already.
        """
        ...

    def is_outdated(self, password_hash: str) -> bool: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessClaims:
    """What an access token says; verified, but its session may have ended."""

    account_id: AccountId
    session_id: SessionId
    tenant_id: TenantId
    version: int
    expires_at: int


class TokenIssuer(Protocol):
    def issue_access(self, session: Session, *, at: datetime) -> str: ...

    def read_access(self, token: str) -> AccessClaims | None:
        """Verify an access token; `None` for anything that is not one of ours, still valid."""
        ...

    def issue_refresh(self, session_id: SessionId, generation: int) -> str:
        """Derive the refresh token of a generation: the same each time it is asked for."""
        ...

    def repeat_refresh(self, session_id: SessionId, generation: int, *, token_hash: bytes) -> str:
        """Make the token of this hash again, whichever key of the ring it was made with."""
        ...

    def hash_refresh(self, token: str) -> bytes: ...

    def session_of_refresh(self, token: str) -> SessionId | None:
        """Verify that a refresh token is one of ours, of any generation, and tell its session.

        Whoever only knows a session's id cannot make one, so nothing about the session may be
        judged, let alone ended, before this has told.
        """
        ...


class SessionCache(Protocol):
    async def revoke(self, session_id: SessionId, *, version: int) -> None:
        """Make every process refuse the session from the moment this returns.

        Without Redis it returns once every cached entry has died of old age.
        """
        ...

    async def revoke_all(self, versions: Mapping[SessionId, int]) -> None:
        """Do the same to many sessions, each at its version, in one round trip."""
        ...
