"""The brake on guessing passwords, as sign-in sees it."""

from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from maas.shared.domain.errors import TooManyRequestsError
from maas.shared.domain.ids import AccountId

AttemptOutcome: TypeAlias = Literal["right", "failed", "unknown"]
"""`unknown`: the password was not compared, so nobody learned anything."""


class TooManyLoginsError(TooManyRequestsError):
    """Too soon after failed sign-ins; the same whether or not there is such an account."""

    code = "too-many-logins"
    title = "Too many failed sign-ins"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginAttempt:
    """A guess that may be made; `settle` it with what came of it.

    A decoy must be answered as a wrong password after a comparison with nobody's: the account is
    held under its other name, and a 429 would tell that the two names are one account's.
    """

    keys: tuple[str, ...]
    is_known: bool
    is_decoy: bool


class LoginThrottle(Protocol):
    async def admit(
        self, *, login: str, address: str | None, account_id: AccountId | None, is_known: bool
    ) -> LoginAttempt:
        """Let a guess through, counted as under way from now.

        `is_known` says that this account was opened from this address before: then only the two of
        them together are held, so that strangers' failures lock nobody out.

        Raises:
            TooManyLoginsError: too soon; `retry_after` says how long to wait.
        """
        ...

    async def settle(self, attempt: LoginAttempt, outcome: AttemptOutcome) -> None: ...
