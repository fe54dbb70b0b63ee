"""Who may call a route: one dependency that authenticates, checks and notes denials."""

from collections.abc import Awaitable
from typing import Annotated, cast

from fastapi import Depends, Request, params
from starlette.types import Scope

from maas.shared.application.ports import (
    Authenticator,
    InvalidApiKeyError,
    InvalidTokenError,
    RateLimiter,
)
from maas.shared.domain.call import ACTION_ATTRIBUTE, Call, current_call
from maas.shared.domain.errors import PermissionDeniedError, UnauthenticatedError, may_refuse
from maas.shared.domain.principal import Principal
from maas.shared.domain.rate_limit import RateLimitedError
from maas.shared.interface.addresses import parse_address
from maas.shared.interface.rate_limits import (
    count_on_address,
    enforce,
    find_limiter,
    route_class_of,
)

MAX_CREDENTIAL_BYTES = 4096
DENIED_ACTION = "access.denied"

HEALTH_PATHS = frozenset(
    {"/health", "/health/live", "/health/ready", "/health/db", "/health/redis"}
)
DOCS_PATHS = frozenset({"/docs", "/docs/oauth2-redirect", "/redoc"})

PUBLIC_ROUTES: frozenset[tuple[str, str]] = frozenset(
    {
        *(("GET", path) for path in HEALTH_PATHS),
        *(("GET", path) for path in DOCS_PATHS),
        ("GET", "/docs/assets/{name}"),
        ("GET", "/openapi.json"),
        ("GET", "/metrics"),  # by its own rule: see `require_loopback_or`
        ("GET", "/api/version"),
        ("GET", "/.well-known/jwks.json"),
        ("OPTIONS", "/api/v1/uploads"),
        ("POST", "/api/v1/auth/login"),
        ("POST", "/api/v1/auth/token"),
        ("POST", "/api/v1/auth/refresh"),
        ("POST", "/api/v1/auth/register"),
        ("POST", "/api/v1/auth/email/verify"),
        ("POST", "/api/v1/auth/password/forgot"),
        ("POST", "/api/v1/auth/password/reset"),
    }
)
"""Method and path of every route that may be called without a permission."""


_PROXY_HEADERS = frozenset({b"forwarded", b"via", b"x-real-ip"})


class CredentialError(UnauthenticatedError):
    code = "invalid-credential"
    title = "The credential cannot be used"


class AddressNotAllowedError(PermissionDeniedError):
    code = "address-not-allowed"
    title = "The API key is not for this address"

    def __init__(self) -> None:
        super().__init__("The key's `allowed_networks` do not include where you call from.")


def credential_of(scope: Scope) -> str:
    """Read the one credential a request presents.

    Raises:
        UnauthenticatedError: none, more than one, malformed, or longer than 4 KiB.
    """
    headers = scope["headers"]
    bearers = [value for name, value in headers if name == b"authorization"]
    api_keys = [value for name, value in headers if name == b"x-api-key"]
    match (bearers, api_keys):
        case ([bearer], []):
            return _text(_without_scheme(bearer))
        case ([], [api_key]):
            return _text(api_key)
        case ([], []):
            raise UnauthenticatedError(
                "Send `Authorization: Bearer <token>` or an `X-API-Key` header."
            )
        case _:
            raise CredentialError("Send one credential: Authorization or X-API-Key, once.")


def _without_scheme(header: bytes) -> bytes:
    scheme, _, credential = header.partition(b" ")
    if scheme.lower() != b"bearer":
        raise CredentialError("The Authorization header takes the Bearer scheme.")
    return credential


def _text(credential: bytes) -> str:
    if len(credential) > MAX_CREDENTIAL_BYTES:
        raise CredentialError("The credential is longer than 4 KiB.")
    text = credential.decode("latin-1").strip(" ")
    if not text or not text.isascii() or not text.isprintable() or " " in text:
        raise CredentialError("The credential is empty or malformed.")
    return text


@may_refuse(
    UnauthenticatedError,
    CredentialError,
    InvalidTokenError,
    InvalidApiKeyError,
    AddressNotAllowedError,
    RateLimitedError,
)
async def authenticate(request: Request) -> Principal:
    """Let the call act as whoever its credential belongs to, once a request.

    Raises:
        UnauthenticatedError: no credential, or not a good one.
        AddressNotAllowedError: a good key, used from where it may not be; it is recorded.
        RateLimitedError: too many requests by it, or too many bad ones from this address.
    """
    call = current_call()
    if call.principal is not None:
        return call.principal
    limiter = find_limiter(request.scope)
    if limiter is None:
        principal = await _identify(request.scope)
        call.act_as(principal)
    else:
        principal = await _identify_within_limits(request.scope, call, limiter)
    limits = principal.key_limits
    if limits is not None and not limits.allows_address(call.address):
        if limiter is not None:
            await count_on_address(limiter, call, stranger="bad-key")
        await _record_denial(request, reason=AddressNotAllowedError.code)
        raise AddressNotAllowedError
    if limiter is not None:
        await enforce(limiter, call)
    return principal


async def _identify_within_limits(scope: Scope, call: Call, limiter: RateLimiter) -> Principal:
    """Find out who is calling; whoever counts it has noted so in the call.

    A credential that is no good counts on the address, unless the call does already.
    """
    call.route_class = route_class_of(scope)
    try:
        principal = await _identify(scope)
    except InvalidApiKeyError:
        await count_on_address(limiter, call, stranger="bad-key")
        raise
    except UnauthenticatedError:
        await count_on_address(limiter, call, stranger="address")
        raise
    except RateLimitedError:
        await enforce(limiter, call)
        raise
    call.act_as(principal)
    return principal


def _identify(scope: Scope) -> Awaitable[Principal]:
    authenticator = cast("Authenticator", scope["state"]["authenticator"])
    return authenticator.authenticate(credential_of(scope))


async def require(request: Request, permission: str, or_else: str | None = None) -> Principal:
    """Authenticate, then refuse and record the refusal unless one of the permissions is held.

    Raises:
        PermissionDeniedError: the caller lacks the permission.
    """
    principal = await authenticate(request)
    if principal.may(permission) or (or_else is not None and principal.may(or_else)):
        return principal
    await _record_denial(request, reason=PermissionDeniedError.code)
    raise PermissionDeniedError(f"This needs the permission `{permission}`.")


async def _record_denial(request: Request, *, reason: str) -> None:
    action = getattr(request.scope.get("endpoint"), ACTION_ATTRIBUTE, DENIED_ACTION)
    await current_call().recorder.record(action=action, outcome="denied", reason=reason)


async def require_loopback_or(request: Request, permission: str) -> None:
    """Let local processes through, others by permission.

    Only the real peer counts, and a forwarded request is not local, whoever forwards it.
    """
    if not is_local(request.scope):
        await require(request, permission)


def is_local(scope: Scope) -> bool:
    client = scope.get("client")
    address = None if client is None else parse_address(client[0])
    return address is not None and address.is_loopback and not _is_forwarded(scope)


def _is_forwarded(scope: Scope) -> bool:
    return any(
        name in _PROXY_HEADERS or name.startswith(b"x-forwarded-") for name, _ in scope["headers"]
    )


@may_refuse(
    UnauthenticatedError,
    CredentialError,
    InvalidTokenError,
    InvalidApiKeyError,
    AddressNotAllowedError,
    PermissionDeniedError,
)
class Requirement:
    """The dependency behind `requires`; `permission` is there for whoever walks the routes."""

    __slots__ = ("or_else", "permission")

    def __init__(self, permission: str, or_else: str | None = None) -> None:
        for each in (permission, or_else or permission):
            resource, separator, action = each.partition(":")
            if not (resource and separator and action) or "*" in each:
                message = f"{each!r} is not <resource>:<action> without wildcards"
                raise ValueError(message)
        self.permission = permission
        self.or_else = or_else

    async def __call__(self, request: Request) -> None:
        await require(request, self.permission, self.or_else)


def requires(permission: str, *, or_else: str | None = None) -> params.Depends:
    """Make a route ask for a permission: `dependencies=[requires("model:write")]`.

    `or_else` lets those in as well who hold another one; what they see is the use case's to say.
    """
    return cast("params.Depends", Depends(Requirement(permission, or_else)))


def known_caller() -> Principal:
    """Tell who is calling, on a route whose requirement has found out already.

    For the hottest routes: the `Caller` dependency says the same for 12 us more.

    Raises:
        UnauthenticatedError: the route requires nothing, so nobody has been asked.
    """
    principal = current_call().principal
    if principal is None:
        raise UnauthenticatedError
    return principal


Caller = Annotated[Principal, Depends(authenticate)]
"""Who is calling; on a route that `requires` something, no second authentication happens."""
