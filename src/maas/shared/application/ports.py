"""What use cases and routes need from the outside, whatever provides it."""

from typing import Protocol

from maas.shared.domain.principal import Principal


class Authenticator(Protocol):
    """Turns a presented credential into the caller it belongs to."""

    async def authenticate(self, credential: str) -> Principal:
        """Check a session token or an API key, against the live session every time.

        Raises:
            UnauthenticatedError: malformed, forged, expired or revoked; never says which.
            UnavailableError: neither Redis nor PostgreSQL can tell.
        """
        ...
