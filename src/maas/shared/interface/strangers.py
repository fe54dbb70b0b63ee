"""Requests that nobody vouches for count on their address, before any work is done for them."""

from starlette.types import Scope

from maas.shared.domain.call import Call
from maas.shared.domain.errors import MaasError
from maas.shared.interface.problems import Problem, problem_of
from maas.shared.interface.rate_limits import enforce, find_limiter
from maas.shared.interface.security import PUBLIC_ROUTES

REGISTRATION_PATH = "/api/v1/auth/register"


async def limit_stranger(scope: Scope, call: Call, *, has_credential: bool) -> Problem | None:
    """Count a request on its address unless it shows a credential; tell why it is refused, if so.

    What anybody may get is answered from memory and not limited. What anybody may post is work, so
    a credential, which nobody would look at, makes no difference there.
    """
    limiter = find_limiter(scope)
    if limiter is None or not _is_counted(scope, has_credential=has_credential):
        return None
    is_registration = scope["path"] == REGISTRATION_PATH
    call.standing = await limiter.take_of_address(call.address, is_registration=is_registration)
    try:
        await enforce(limiter, call)
    except MaasError as exc:
        return problem_of(exc)
    return None


def _is_counted(scope: Scope, *, has_credential: bool) -> bool:
    method = scope["method"]
    # A browser asks by OPTIONS what it may send, without being asked to and without a credential.
    if method == "OPTIONS":
        return False
    if (method.replace("HEAD", "GET"), scope["path"]) in PUBLIC_ROUTES:
        return bool(method == "POST")
    return not has_credential
