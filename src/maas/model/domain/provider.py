"""A supplier's account at one address: what it is called, where it is, and who else may call it."""

import re
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Protocol, TypedDict

from typing_extensions import Unpack, override

from maas.model.domain.provider_health import UNKNOWN, ProviderHealth
from maas.model.domain.provider_types import PROVIDER_TYPES, ProviderType
from maas.model.domain.text import Description
from maas.model.public import ProviderId, ProviderKind, ProviderStatus, Reach
from maas.shared.domain.errors import (
    ConflictError,
    InvalidInputError,
    NotFoundError,
    PermissionDeniedError,
    RuleViolatedError,
)
from maas.shared.domain.grants import Grant
from maas.shared.domain.ids import AccountId, TenantId
from maas.shared.domain.text import compose, has_invisible

MAX_PROVIDERS: Final = 200
"""Of one tenant, deleted ones not counted: each is called on a schedule."""

MAX_PROVIDER_GRANTS: Final = 1_000
MAX_PROVIDER_NAME_CHARS: Final = 100
MAX_BASE_URL_CHARS: Final = 500
MAX_KEY_CHARS: Final = 4_096

_API_VERSION = re.compile(r"[A-Za-z0-9.-]{1,32}")
_KEY = re.compile(r"[\x21-\x7e]+")


class ProviderNotFoundError(NotFoundError):
    code = "provider-not-found"
    title = "No such provider"


class ProviderNameTakenError(ConflictError):
    code = "provider-name-taken"
    title = "Provider name already in use"

    def __init__(self) -> None:
        super().__init__("Another provider of this tenant has this name: choose another.")


class TooManyProvidersError(RuleViolatedError):
    code = "too-many-providers"
    title = "The tenant has as many providers as it may"

    def __init__(self) -> None:
        super().__init__(f"A tenant has at most {MAX_PROVIDERS} providers: delete one first.")


class InvalidProviderNameError(InvalidInputError):
    code = "invalid-provider-name"
    title = "Not a name of a provider"

    def __init__(self) -> None:
        super().__init__(
            f"A provider's name is one line of 1 to {MAX_PROVIDER_NAME_CHARS} characters, none of "
            "them invisible."
        )


class InvalidApiVersionError(InvalidInputError):
    code = "invalid-api-version"
    title = "Not an API version"

    def __init__(self) -> None:
        super().__init__(
            "An API version has 1 to 32 letters, digits, dots and dashes (ASCII), as in `preview`."
        )


class ApiVersionNotUsedError(InvalidInputError):
    code = "api-version-not-used"
    title = "This type of provider has no API versions"

    def __init__(self) -> None:
        super().__init__(
            "Leave the API version out, or set it to null: the type's calls have none.",
            loc=("body", "api_version"),
        )


class BaseUrlMissingError(InvalidInputError):
    code = "base-url-missing"
    title = "This type of provider has no base URL of its own"

    def __init__(self) -> None:
        super().__init__(
            "Send `base_url`: `GET /api/v1/provider-types` has an example for each type.",
            loc=("body", "base_url"),
        )


class TargetRefusedError(InvalidInputError):
    """The message says what would be right, and nothing of what lies where."""

    code = "target-refused"
    title = "The base URL may not be called"

    def __init__(self, detail: str) -> None:
        super().__init__(detail, loc=("body", "base_url"))


class InvalidSupplierKeyError(InvalidInputError):
    code = "invalid-supplier-key"
    title = "Not a key that can be sent"

    def __init__(self) -> None:
        super().__init__(
            f"A key has 1 to {MAX_KEY_CHARS} visible ASCII characters, and no spaces.",
            loc=("body", "api_key"),
        )


class ProviderOfOperatorError(PermissionDeniedError):
    code = "provider-of-operator"
    title = "Only the platform's operator changes this provider"

    def __init__(self) -> None:
        super().__init__(
            "It lies at a private target: whoever holds `platform:suppliers` changes it."
        )


class ProviderGrantsOfOperatorError(PermissionDeniedError):
    code = "provider-grants-of-operator"
    title = "Only the platform's operator grants providers to other tenants"

    def __init__(self) -> None:
        super().__init__(
            "It would stand in the other tenant's list unasked: whoever holds `platform:suppliers` "
            "grants it."
        )


class CredentialNotSetError(NotFoundError):
    code = "credential-not-set"
    title = "The provider has no credential"


class CredentialUnreadableError(ConflictError):
    code = "credential-unreadable"
    title = "The provider's credential cannot be read back"

    def __init__(self) -> None:
        super().__init__("It does not open with the keys there are: set the credential again.")


class ProviderGrantNotFoundError(NotFoundError):
    code = "provider-grant-not-found"
    title = "The provider is not granted to this tenant"


class TooManyProviderGrantsError(RuleViolatedError):
    code = "too-many-provider-grants"
    title = "The provider is granted to as many tenants as it can be"

    def __init__(self) -> None:
        super().__init__(f"A provider is granted to at most {MAX_PROVIDER_GRANTS} tenants.")


class ProviderGrantToSelfError(RuleViolatedError):
    code = "provider-grant-to-self"
    title = "The provider is this tenant's already"


@dataclass(frozen=True, slots=True)
class ProviderName:
    """What people call a provider, in Unicode's composed form (NFC); unique in its tenant."""

    value: str

    def __post_init__(self) -> None:
        if has_invisible(self.value):
            raise InvalidProviderNameError
        text = compose(self.value.strip(), max_chars=MAX_PROVIDER_NAME_CHARS)
        if not 1 <= len(text) <= MAX_PROVIDER_NAME_CHARS:
            raise InvalidProviderNameError
        object.__setattr__(self, "value", text)

    @override
    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, slots=True)
class ApiVersion:
    """What a supplier takes as `api-version` in the query, as in `preview`."""

    value: str

    def __post_init__(self) -> None:
        if not _API_VERSION.fullmatch(self.value):
            raise InvalidApiVersionError

    @override
    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, slots=True)
class SupplierKey:
    """A supplier's secret. It shows itself to nobody but who asks for `plain`."""

    plain: str = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.plain) > MAX_KEY_CHARS or not _KEY.fullmatch(self.plain):
            raise InvalidSupplierKeyError

    @override
    def __str__(self) -> str:
        return "***"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A base URL that may be called, in the one spelling of the parser that will send it."""

    base_url: str
    reach: Reach


class ProviderChanges(TypedDict, total=False):
    """What may be revised; what is absent stays."""

    name: ProviderName
    type: ProviderKind
    target: Target
    api_version: ApiVersion | None
    description: Description | None
    status: ProviderStatus


@dataclass(eq=False, kw_only=True)
class Provider:
    """A supplier as one tenant calls it. `revision` counts the changes, for ETags.

    `credential_set_at` tells since when there is a key; the key itself is kept elsewhere. `health`
    is what the watch found, and no part of a revision.
    """

    id: ProviderId
    tenant_id: TenantId
    name: ProviderName
    type: ProviderKind
    base_url: str
    reach: Reach
    api_version: ApiVersion | None = None
    description: Description | None = None
    status: ProviderStatus = "active"
    created_by: AccountId
    created_at: datetime
    updated_at: datetime
    deleted_at: datetime | None = None
    revision: int = 1
    credential_set_at: datetime | None = None
    health: ProviderHealth = UNKNOWN

    def __post_init__(self) -> None:
        self._check_api_version()

    @property
    def kind(self) -> ProviderType:
        return PROVIDER_TYPES[self.type]

    def check_operator(self, *, is_operator: bool) -> None:
        """Refuse unless the caller may change a provider that lies where this one does.

        Raises:
            ProviderOfOperatorError: it lies at a private target.
        """
        if self.reach == "private" and not is_operator:
            raise ProviderOfOperatorError

    def revise(self, *, at: datetime, **changes: Unpack[ProviderChanges]) -> None:
        """Set what is given, leave the rest; what changes nothing leaves the revision as it is.

        The credential is gone where the type or the base URL changed, were it by a path alone: a
        key was given for one address, and whoever changes that may not be who knows the key.

        Raises:
            ApiVersionNotUsedError.
        """
        was = self._state()
        target = changes.pop("target", None)
        for name, to in changes.items():
            setattr(self, name, to)
        if target is not None:
            self.base_url, self.reach = target.base_url, target.reach
        self._check_api_version()
        if self._state() == was:
            return
        if (self.type, self.base_url) != was[:2]:
            self.credential_set_at = None
        self._touch(at)

    def have_credential(self, *, at: datetime) -> None:
        self.credential_set_at = at
        self._touch(at)

    def lose_credential(self, *, at: datetime) -> None:
        """Have no key any more.

        Raises:
            CredentialNotSetError: there was none.
        """
        if self.credential_set_at is None:
            raise CredentialNotSetError
        self.credential_set_at = None
        self._touch(at)

    def delete(self, *, at: datetime) -> None:
        """Take it out of sight and its key away; its name is free again."""
        self.deleted_at = at
        self.credential_set_at = None
        self._touch(at)

    def _state(self) -> tuple[object, ...]:
        return (
            self.type,
            self.base_url,
            self.reach,
            self.name,
            self.api_version,
            self.description,
            self.status,
        )

    def _check_api_version(self) -> None:
        if self.api_version is not None and not self.kind.uses_api_version:
            raise ApiVersionNotUsedError

    def _touch(self, at: datetime) -> None:
        self.updated_at = at
        self.revision += 1


class ProviderRepository(Protocol):
    """Finds the tenant's own providers."""

    async def get(self, provider_id: ProviderId) -> Provider:
        """Load the provider, locked.

        Raises:
            ProviderNotFoundError: not there, deleted, or another tenant's.
        """
        ...

    async def is_name_taken(self, name: ProviderName) -> bool: ...

    async def count(self) -> int:
        """Count the tenant's providers; nobody adds one until the commit."""
        ...

    def add(self, provider: Provider) -> None: ...

    async def put_credential(self, provider: Provider, sealed: bytes, *, by: AccountId) -> None:
        """Keep a sealed key, set when the provider says; the one before it is gone."""
        ...

    async def remove_credential(self, provider: Provider) -> None:
        """Keep no key, whether there was one or not."""
        ...

    async def grant(self, provider_id: ProviderId, grant: Grant) -> tuple[Grant, bool]:
        """Have the grant, or the one the tenant had before; and tell whether it is new.

        Raises:
            TooManyProviderGrantsError.
        """
        ...

    async def revoke(self, provider_id: ProviderId, grantee_id: TenantId) -> None:
        """Have the grant no longer.

        Raises:
            ProviderGrantNotFoundError.
        """
        ...
