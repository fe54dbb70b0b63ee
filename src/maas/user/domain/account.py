"""A person's account: one in the whole platform, whatever tenants it belongs to."""

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, TypeAlias

from typing_extensions import override

from maas.shared.domain.errors import InvalidInputError
from maas.shared.domain.ids import AccountId, TenantId
from maas.shared.domain.text import has_invisible

AccountStatus: TypeAlias = Literal["pending", "active", "suspended", "deactivated"]
"""`pending`: registered, and the e-mail address not shown to be theirs yet."""

MAX_EMAIL_CHARS = 254
MAX_DISPLAY_NAME_CHARS = 200

_USERNAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9])?")
_EMAIL = re.compile(r"[^@\s<>\"(),:;\\\[\]]{1,64}@[^@\s<>\"(),:;\\\[\]]+\.[^@\s<>\"(),:;\\\[\]]+")


class InvalidUsernameError(InvalidInputError):
    code = "invalid-username"
    title = "Not a user name"

    def __init__(self) -> None:
        super().__init__(
            "A user name has 1 to 64 letters, digits, dots, dashes or underscores (ASCII), "
            "and starts and ends with a letter or digit."
        )


class InvalidEmailError(InvalidInputError):
    code = "invalid-email"
    title = "Not an e-mail address"

    def __init__(self) -> None:
        super().__init__("An e-mail address looks like name@example.com.")


class InvalidDisplayNameError(InvalidInputError):
    code = "invalid-display-name"
    title = "Not a display name"

    def __init__(self) -> None:
        super().__init__(
            f"A display name has 1 to {MAX_DISPLAY_NAME_CHARS} characters, none of them invisible."
        )


@dataclass(frozen=True, slots=True)
class Username:
    """The name one signs in with; unique without regard to case."""

    value: str

    def __post_init__(self) -> None:
        if not _USERNAME.fullmatch(self.value):
            raise InvalidUsernameError

    @property
    def key(self) -> str:
        """The form that is unique."""
        return self.value.lower()

    @override
    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, slots=True)
class EmailAddress:
    """An address as it was typed; unique without regard to case."""

    value: str

    def __post_init__(self) -> None:
        if len(self.value) > MAX_EMAIL_CHARS or not _EMAIL.fullmatch(self.value):
            raise InvalidEmailError

    @property
    def key(self) -> str:
        """The form that is unique."""
        return self.value.lower()

    @override
    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, slots=True)
class DisplayName:
    """How a person wants to be shown, in any script."""

    value: str

    def __post_init__(self) -> None:
        text = self.value.strip()
        if not 1 <= len(text) <= MAX_DISPLAY_NAME_CHARS:
            raise InvalidDisplayNameError
        if has_invisible(text):
            raise InvalidDisplayNameError
        object.__setattr__(self, "value", text)

    @override
    def __str__(self) -> str:
        return self.value


@dataclass(eq=False, kw_only=True)
class Account:
    """One person. `version` counts the changes, for ETags and optimistic locking."""

    id: AccountId
    username: Username
    email: EmailAddress
    display_name: DisplayName | None
    password_hash: str
    password_change_required: bool
    status: AccountStatus
    home_tenant_id: TenantId
    last_tenant_id: TenantId | None
    created_at: datetime
    updated_at: datetime
    email_verified_at: datetime | None = None
    version: int = 1

    def rename(self, display_name: DisplayName | None, *, at: datetime) -> None:
        if display_name == self.display_name:
            return
        self.display_name = display_name
        self.updated_at = at

    def set_password(self, password_hash: str, *, at: datetime) -> None:
        """Take a password the person chose, which ends the duty to change a given one."""
        self.password_hash = password_hash
        self.password_change_required = False
        self.updated_at = at

    def verify_email(self, *, at: datetime) -> None:
        """Take the address as shown to be theirs; it is what a pending account waits for."""
        self.email_verified_at = at
        self.updated_at = at
        if self.status == "pending":
            self.status = "active"

    def give_password(self, password_hash: str, *, at: datetime) -> None:
        """Take a password somebody else chose: it is to be changed at once."""
        self.password_hash = password_hash
        self.password_change_required = True
        self.updated_at = at

    def move_to(self, email: EmailAddress, *, at: datetime) -> None:
        """Take another address, which nobody has verified yet."""
        if email == self.email:
            return
        self.email = email
        self.email_verified_at = None
        self.updated_at = at

    def deactivate(self, *, at: datetime) -> None:
        """Keep the owner out, by their own wish, until somebody reactivates the account."""
        self.status = "deactivated"
        self.updated_at = at

    def reactivate(self, *, at: datetime) -> None:
        """Let the owner in again; an account in any other state is left as it is."""
        if self.status == "deactivated":
            self.status = "active"
            self.updated_at = at

    def move_home(self, tenant_id: TenantId, *, at: datetime) -> None:
        """Have another tenant's administrators look after the account."""
        self.home_tenant_id = tenant_id
        self.updated_at = at

    def rehash_password(self, password_hash: str) -> None:
        """Keep the same password under today's hashing parameters."""
        self.password_hash = password_hash

    def sign_in_to(self, tenant_id: TenantId) -> None:
        self.last_tenant_id = tenant_id
