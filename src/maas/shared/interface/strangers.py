"""Requests that nobody vouches for count on their address, before any work is done for them."""

from http import HTTPStatus

from starlette.types import Scope

from maas.shared.domain.call import Call, find_call
from maas.shared.domain.errors import MaasError
from maas.shared.domain.rate_limit import StrangerClass
from maas.shared.interface.problems import Problem, problem_of
from maas.shared.interface.rate_limits import count_on_address, enforce, find_limiter
from maas.shared.interface.security import PUBLIC_ROUTES

REGISTRATION_PATH = "/api/v1/auth/register"
REFRESH_PATH = "/api/v1/auth/refresh"


async def limit_stranger(scope: Scope, call: Call, *, has_credential: bool) -> Problem | None:
    """Count a request on its address unless it shows a credential; tell why it is refused, if so.

    What anybody may get is answered from memory and not limited. What anybody may post is work, so
    a credential, which nobody would look at, makes no difference there.
    """
    limiter = find_limiter(scope)
    if limiter is None or not _is_counted(scope, has_credential=has_credential):
        return None
    is_registration = scope["path"] == REGISTRATION_PATH
    call.standing = await limiter.take_of_address(
        call.address, stranger=_class_of(scope), is_registration=is_registration
    )
    try:
        await enforce(limiter, call)
    except MaasError as exc:
        return problem_of(exc)
    return None


async def limit_unrouted(scope: Scope) -> Problem | None:
    """Count what leads to no route on its address: nobody has looked at its credential."""
    limiter, call = find_limiter(scope), find_call()
    if limiter is None or call is None or call.standing is not None or scope["method"] == "OPTIONS":
        return None
    try:
        await count_on_address(limiter, call, stranger="address")
    except MaasError as exc:
        return problem_of(exc)
    return None


async def forgive_refresh(scope: Scope, call: Call, *, status: int | None) -> None:
    """Give back what a good refresh token was counted for: its neighbours' bad ones count alone."""
    limiter = find_limiter(scope)
    if limiter is None or call.standing is None or status != HTTPStatus.OK:
        return
    if scope["method"] == "POST" and scope["path"] == REFRESH_PATH:
        await limiter.give_back(call.standing)


def _class_of(scope: Scope) -> StrangerClass:
    if (scope["method"], scope["path"]) not in PUBLIC_ROUTES:
        return "address"
    return "refresh" if scope["path"] == REFRESH_PATH else "public"


def _is_counted(scope: Scope, *, has_credential: bool) -> bool:
    method = scope["method"]
    # A browser asks by OPTIONS what it may send, without being asked to and without a credential.
    if method == "OPTIONS":
        return False
    if (method.replace("HEAD", "GET"), scope["path"]) in PUBLIC_ROUTES:
        return bool(method == "POST")
    return not has_credential
