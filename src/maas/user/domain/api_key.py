"""API keys: what a program presents instead of a session, and how it is rolled over."""

import ipaddress
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from typing_extensions import override

from maas.shared.domain.errors import (
    InvalidInputError,
    NotFoundError,
    PermissionDeniedError,
    RuleViolatedError,
)
from maas.shared.domain.ids import AccountId, ApiKeyId, ServiceAccountId, TenantId
from maas.user.domain.key_text import NewKey
from maas.user.domain.role import PermissionPattern, spell_permissions

DEFAULT_LIFETIME = timedelta(days=90)
LONGEST_LIFETIME = timedelta(days=366)
DEFAULT_GRACE = timedelta(hours=24)
LONGEST_GRACE = timedelta(days=7)
MAX_KEYS = 100
MAX_SCOPES = 100
MAX_NETWORKS = 50
MAX_MODELS = 200


class ApiKeyNotFoundError(NotFoundError):
    code = "api-key-not-found"
    title = "No such API key"


class InvalidNetworkError(InvalidInputError):
    code = "invalid-network"
    title = "Not a network"

    def __init__(self) -> None:
        super().__init__(
            "Write an address or a network, as in 192.0.2.7 or 2001:db8::/32; a network's address "
            "has no bit set after its prefix."
        )


class InvalidExpiryError(InvalidInputError):
    code = "invalid-expiry"
    title = "Not a time to expire at"

    def __init__(self) -> None:
        super().__init__(
            f"A key expires in the future, within {LONGEST_LIFETIME.days} days from now.",
            loc=("body", "expires_at"),
        )


class TooManyKeysError(RuleViolatedError):
    code = "too-many-api-keys"
    title = "Too many API keys"

    def __init__(self) -> None:
        super().__init__(f"Nobody holds more than {MAX_KEYS} keys: delete some first.")


class RotationUnderWayError(RuleViolatedError):
    code = "rotation-under-way"
    title = "The rotation before this one is not over"

    def __init__(self) -> None:
        super().__init__(
            "Both secrets are in use until the grace of the last rotation is over: wait for "
            "`previous_valid_until`, or rotate with `grace_seconds` 0, which ends both."
        )


class ScopesBeyondHolderError(PermissionDeniedError):
    code = "scopes-beyond-holder"
    title = "The service account may do less"

    def __init__(self) -> None:
        super().__init__("A key's scopes lie within what its service account may do by its roles.")


class OutlivesCallerError(PermissionDeniedError):
    code = "outlives-caller"
    title = "A key prolongs no key beyond its own end"

    def __init__(self) -> None:
        super().__init__(
            "A key makes and prolongs keys up to its own `expires_at`, and never itself: sign in "
            "for a later one."
        )


class SupersededKeyError(PermissionDeniedError):
    code = "superseded-key"
    title = "This secret was replaced"

    def __init__(self) -> None:
        super().__init__(
            "The key was rotated: until its grace is over its secret of before does what it did, "
            "but only the new one manages keys. If the new one was lost, repeat the rotation with "
            "its `Idempotency-Key`, or rotate in a session."
        )


@dataclass(frozen=True, slots=True)
class Network:
    """An address or a network, in its one spelling."""

    value: str

    def __post_init__(self) -> None:
        try:
            network = ipaddress.ip_network(self.value)
        except ValueError:
            raise InvalidNetworkError from None
        # A zone is of one machine, and a mapped address is seen as the IPv4 one it is.
        is_mapped = network.version == 6 and network.network_address.ipv4_mapped is not None  # noqa: PLR2004  IPv6
        if "%" in self.value or is_mapped:
            raise InvalidNetworkError
        object.__setattr__(self, "value", str(network))

    @override
    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """Whose key it is: exactly one of the two is set."""

    account_id: AccountId | None = None
    service_account_id: ServiceAccountId | None = None


@dataclass(eq=False, kw_only=True)
class ApiKey:
    """A key of a person or of a service account, in one tenant.

    Either `account_id` or `service_account_id` is set. `auth_version` counts what a process that
    remembers the key's rights must not miss; `version` counts changes, for ETags.
    """

    id: ApiKeyId
    tenant_id: TenantId
    account_id: AccountId | None
    service_account_id: ServiceAccountId | None
    public_id: str
    prefix: str
    name: str
    scopes: list[str]
    allowed_networks: list[str] | None
    allowed_models: list[str] | None
    requests_per_minute: int | None
    secret_hash: bytes
    is_secret_used: bool
    previous_hash: bytes | None
    previous_valid_until: datetime | None
    rotated_at: datetime | None
    expires_at: datetime
    last_used_at: datetime | None
    created_by: AccountId
    created_by_key: ApiKeyId | None
    created_at: datetime
    updated_at: datetime
    auth_version: int = 1
    version: int = 1

    def rotate(self, new: NewKey, *, grace: timedelta, at: datetime) -> None:
        """Take a new secret; the one before is good for the grace, and then no more.

        A successor that nobody has used yet is replaced, and the window of the secret in use only
        ever gets shorter: so an answer that was lost is asked for again. With no grace every other
        secret ends at once.

        Raises:
            RotationUnderWayError: two secrets are in use already.
        """
        is_in_window = self.previous_valid_until is not None and self.previous_valid_until > at
        if not grace:
            self.previous_hash = self.previous_valid_until = None
        elif is_in_window and self.is_secret_used:
            raise RotationUnderWayError
        elif is_in_window and self.previous_valid_until is not None:
            self.previous_valid_until = min(self.previous_valid_until, at + grace)
        else:
            self.previous_hash = self.secret_hash
            self.previous_valid_until = at + grace
        self.secret_hash, self.is_secret_used = new.secret_hash, False
        self.rotated_at = at
        self.auth_version += 1
        self._touch(at)

    def rename(self, name: str, *, at: datetime) -> None:
        self.name = name
        self._touch(at)

    def allow(self, scopes: Collection[PermissionPattern], *, at: datetime) -> None:
        """Reach exactly so far, as long as the holder does."""
        self.scopes = spell_permissions(scopes)
        self.auth_version += 1
        self._touch(at)

    def bind(
        self,
        *,
        networks: Collection[Network] | None,
        models: Collection[str] | None,
        requests_per_minute: int | None,
        at: datetime,
    ) -> None:
        """Take the key only from these networks, for these models, so often; `None` is no bound."""
        self.allowed_networks = spell_networks(networks)
        self.allowed_models = spell_models(models)
        self.requests_per_minute = requests_per_minute
        self.auth_version += 1
        self._touch(at)

    def expire_at(self, moment: datetime, *, at: datetime) -> None:
        """Choose when the key ends.

        Raises:
            InvalidExpiryError: in the past, or too far off.
        """
        check_expiry(moment, at=at)
        self.expires_at = moment
        self.auth_version += 1
        self._touch(at)

    def _touch(self, at: datetime) -> None:
        self.updated_at = at
        self.version += 1


def spell_networks(networks: Collection[Network] | None) -> list[str] | None:
    return None if networks is None else sorted({network.value for network in networks})


def spell_models(models: Collection[str] | None) -> list[str] | None:
    return None if models is None else sorted(set(models))


def check_expiry(moment: datetime, *, at: datetime) -> None:
    if not at < moment <= at + LONGEST_LIFETIME:
        raise InvalidExpiryError


class ApiKeyRepository(Protocol):
    """The keys of the tenant acted in; a holder is a person or a service account."""

    async def get_held(self, key_id: ApiKeyId, holder: Holder) -> ApiKey:
        """Load a key of this holder, which is locked already, and lock it too.

        Raises:
            ApiKeyNotFoundError.
        """
        ...

    async def count_held(self, holder: Holder) -> int: ...

    def add(self, key: ApiKey) -> None: ...

    async def remove(self, key: ApiKey) -> None: ...
