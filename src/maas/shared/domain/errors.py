"""The kinds of refusal every context shares; `interface/problems.py` gives each its status."""

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import ClassVar, TypeVar

REFUSALS_ATTRIBUTE = "__refusals__"
"""Where a route, or what a route depends on, carries the refusals it may end in."""

T = TypeVar("T")


class MaasError(Exception):
    """A refusal with a stable code that a client may act on.

    Subclass one of the kinds below beside the code that raises it. `code` is kebab-case, unique and
    listed in `docs/errors.md`; `detail` says what happened and what to do, and is shown to the
    caller, so it must hold neither secrets nor the caller's input.
    """

    code: ClassVar[str] = "error"
    title: ClassVar[str] = "Error"

    def __init__(self, detail: str | None = None, *, retry_after: timedelta | None = None) -> None:
        self.detail = detail or self.title
        self.retry_after = retry_after
        super().__init__(self.detail)

    @property
    def extensions(self) -> Mapping[str, object]:
        """Extra members of the problem document, JSON values only."""
        return {}


class InvalidInputError(MaasError):
    """Input that is wrong in itself (422)."""

    code = "invalid-input"
    title = "The request is not valid"

    def __init__(self, detail: str | None = None, *, loc: tuple[str | int, ...] = ()) -> None:
        super().__init__(detail)
        self.loc = loc


class UnauthenticatedError(MaasError):
    """Nobody is known to be calling (401)."""

    code = "unauthenticated"
    title = "Sign in first"


class PaymentRequiredError(MaasError):
    """A budget of money does not cover the call (402)."""

    code = "payment-required"
    title = "The budget does not cover this"


class PermissionDeniedError(MaasError):
    """The caller is known and may not (403)."""

    code = "permission-denied"
    title = "You may not do this"


class NotFoundError(MaasError):
    """There is no such thing, or the caller may not see it (404)."""

    code = "not-found"
    title = "Not found"


class SlowRequestError(MaasError):
    """The caller took too long to send its request (408)."""

    code = "request-too-slow"
    title = "The request took too long to arrive"


class ConflictError(MaasError):
    """Somebody or something else was there first (409)."""

    code = "conflict"
    title = "Conflicts with what is there"


class RuleViolatedError(MaasError):
    """A rule of the domain forbids it in this state (409)."""

    code = "rule-violated"
    title = "Not possible in this state"


class PreconditionFailedError(MaasError):
    """The thing changed since it was read (412)."""

    code = "precondition-failed"
    title = "Changed since you read it"


class PayloadTooLargeError(MaasError):
    """More bytes than the route takes (413)."""

    code = "payload-too-large"
    title = "Too large"


class UnsupportedMediaError(MaasError):
    """A content type or encoding the route does not read (415)."""

    code = "unsupported-media-type"
    title = "Content type not accepted"


class PreconditionRequiredError(MaasError):
    """The route wants an `If-Match` (428)."""

    code = "precondition-required"
    title = "If-Match is required"


class TooManyRequestsError(MaasError):
    """Slow down; `retry_after` says for how long (429)."""

    code = "too-many-requests"
    title = "Too many requests"


class UnavailableError(MaasError):
    """Something this needs is down for the moment (503)."""

    code = "unavailable"
    title = "Not available at the moment"


class BadGatewayError(MaasError):
    """Another server that this needs answered, and not as it should (502)."""

    code = "bad-gateway"
    title = "What this needs failed"


class GatewayTimeoutError(MaasError):
    """Another server that this needs did not answer in time (504)."""

    code = "gateway-timeout"
    title = "What this needs did not answer in time"


class ChunkMismatchError(MaasError):
    """A piece of an upload is not what its checksum says (460, which the tus protocol gives it)."""

    code = "chunk-mismatch"
    title = "The bytes differ from their checksum"


class StorageFullError(MaasError):
    """There is no room to keep it (507)."""

    code = "storage-full"
    title = "Storage is full"


def may_refuse(*errors: type[MaasError]) -> Callable[[T], T]:
    """Say which refusals a route, or what routes depend on, may end in; OpenAPI lists them.

    It only marks, so the order beside other decorators of a route does not matter.
    """

    def mark(marked: T) -> T:
        setattr(marked, REFUSALS_ATTRIBUTE, (*getattr(marked, REFUSALS_ATTRIBUTE, ()), *errors))
        return marked

    return mark
