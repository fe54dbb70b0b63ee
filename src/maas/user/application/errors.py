"""Refusals of identity and access that several use cases share."""

from maas.shared.domain.errors import (
    ConflictError,
    InvalidInputError,
    NotFoundError,
    RuleViolatedError,
    UnauthenticatedError,
    UnavailableError,
)


class InvalidCredentialsError(UnauthenticatedError):
    """Unknown name, wrong password, inactive account: the answer never says which."""

    code = "invalid-credentials"
    title = "User name or password is wrong"


class NoMembershipError(RuleViolatedError):
    code = "no-membership"
    title = "Not a member of that tenant"

    def __init__(self) -> None:
        super().__init__(
            "Your account is an active member of no such tenant: it may be suspended there."
        )


class InvalidRefreshTokenError(UnauthenticatedError):
    code = "invalid-refresh-token"
    title = "The refresh token is not valid any more"

    def __init__(self) -> None:
        super().__init__("The refresh token is unknown, expired or revoked; sign in again.")


class RefreshTokenReusedError(UnauthenticatedError):
    code = "refresh-token-reused"
    title = "The refresh token was used before"

    def __init__(self) -> None:
        super().__init__(
            "This refresh token was replaced earlier, so the session was ended in case it was "
            "stolen; sign in again."
        )


class HashingBusyError(UnavailableError):
    code = "hashing-busy"
    title = "Too many sign-ins at the moment"


class AccountNotFoundError(NotFoundError):
    code = "account-not-found"
    title = "No such account"


class UsernameTakenError(ConflictError):
    code = "username-taken"
    title = "User name already in use"


class EmailTakenError(ConflictError):
    code = "email-taken"
    title = "E-mail already in use"


class WrongPasswordError(InvalidInputError):
    code = "wrong-password"
    title = "The current password is wrong"


class SamePasswordError(InvalidInputError):
    code = "same-password"
    title = "The new password is the current one"

    def __init__(self) -> None:
        super().__init__("Choose a password that you do not use now.")
