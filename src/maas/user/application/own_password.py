"""Asking for one's own password again, held like a sign-in."""

from dataclasses import dataclass

from maas.shared.domain.call import current_call
from maas.user.application.ports import PasswordHasher
from maas.user.application.throttle import AttemptOutcome, LoginThrottle
from maas.user.domain.account import Account


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnPassword:
    passwords: PasswordHasher
    throttle: LoginThrottle

    async def is_right(self, account: Account, password: str) -> bool:
        """Compare the password: whoever stole a session must not try until one fits.

        Raises:
            TooManyLoginsError: too soon after wrong ones; `retry_after` says how long to wait.
            HashingBusyError: too many others are signing in.
        """
        attempt = await self.throttle.admit(
            login=account.username.key,
            address=current_call().address,
            account_id=account.id,
            # A session may be stolen at an address that is known, so that earns nothing here.
            is_known=False,
        )
        outcome: AttemptOutcome = "unknown"
        try:
            compared = None if attempt.is_decoy else account.password_hash
            is_right = await self.passwords.verify(password, compared)
            outcome = "right" if is_right else "failed"
        finally:
            await self.throttle.settle(attempt, outcome)
        return is_right
