"""What use cases and routes need from the outside, whatever provides it."""

from typing import Protocol

from maas.shared.domain.errors import UnauthenticatedError
from maas.shared.domain.principal import Principal
from maas.shared.domain.rate_limit import Standing, StrangerClass


class InvalidTokenError(UnauthenticatedError):
    code = "invalid-token"
    title = "The token is not valid"

    def __init__(self) -> None:
        super().__init__("The access token is malformed, expired or revoked; refresh or sign in.")


class InvalidApiKeyError(UnauthenticatedError):
    code = "invalid-api-key"
    title = "The API key is not valid"

    def __init__(self) -> None:
        super().__init__(
            "The API key is mistyped, expired, rotated out or revoked, or its holder may not act."
        )


class Authenticator(Protocol):
    """Turns a presented credential into the caller it belongs to."""

    async def authenticate(self, credential: str) -> Principal:
        """Check a session token or an API key, against the live session every time.

        Raises:
            InvalidTokenError: malformed, forged, expired or revoked; never says which.
            InvalidApiKeyError: likewise.
            UnavailableError: neither Redis nor PostgreSQL can tell.
        """
        ...


class RateLimiter(Protocol):
    """Counts requests; those of good credentials are counted by who checks these."""

    async def take_of_address(
        self,
        address: str | None,
        *,
        stranger: StrangerClass = "address",
        is_registration: bool = False,
    ) -> Standing:
        """Count a request on its address, also while Redis is gone."""
        ...

    async def give_back(self, standing: Standing) -> None:
        """Undo the counting of a request that should not have been counted there."""
        ...

    def tell_refusal(self, standing: Standing) -> None:
        """Count a refused request in the metrics."""
        ...
