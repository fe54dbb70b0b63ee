"""The limits on requests at the edge: what is refused, and what every answer says of it.

The fields are those of draft-ietf-httpapi-ratelimit-headers-11.
"""

from typing import Final, cast

from starlette.types import Scope

from maas.shared.application.ports import RateLimiter
from maas.shared.domain.call import Call
from maas.shared.domain.rate_limit import (
    RateLimitedError,
    RouteClass,
    Standing,
    StrangerClass,
)

LIMITED_ACTION: Final = "access.limited"
STATE_KEY: Final = "rate_limits"
"""Where the lifespan's state has the limiter; `None` there switches the limits off."""

_CLASSES: tuple[tuple[str, RouteClass], ...] = (
    ("/api/v1/admin/", "admin"),
    ("/api/v1/auth/", "auth"),
    ("/api/v1/uploads", "upload"),
    ("/v1/", "inference"),
)
_FILES = "/files/"
_CHANGING_FILES = frozenset({"PUT", "PATCH", "POST"})


def find_limiter(scope: Scope) -> RateLimiter | None:
    return cast("RateLimiter | None", scope["state"].get(STATE_KEY))


def route_class_of(scope: Scope) -> RouteClass:
    """Tell by what the requests of a good credential are limited on a route."""
    path: str = scope["path"]
    for prefix, route_class in _CLASSES:
        if path.startswith(prefix):
            return route_class
    if _FILES in path and scope["method"] in _CHANGING_FILES:
        return "upload"
    return "default"


async def enforce(limiter: RateLimiter, call: Call) -> None:
    """Let the call go on, or refuse it; the first refusal a minute of a subject is recorded.

    Raises:
        RateLimitedError: no room was left for it.
    """
    standing = call.standing
    if standing is None or not standing.is_exceeded:
        return
    limiter.tell_refusal(standing)
    if standing.is_news:
        await call.recorder.record(
            action=LIMITED_ACTION, outcome="denied", reason=RateLimitedError.code
        )
    raise RateLimitedError(standing)


async def count_on_address(limiter: RateLimiter, call: Call, *, stranger: StrangerClass) -> None:
    """Count a credential that is no good, or not from here, on the address it came from.

    Whoever found it shall not use up what its holder has. A call counts there once.

    Raises:
        RateLimitedError: there were too many of them.
    """
    counted = call.standing
    if counted is None or not counted.is_of_address:
        if counted is not None:
            await limiter.give_back(counted)
        call.standing = await limiter.take_of_address(call.address, stranger=stranger)
    await enforce(limiter, call)


def limit_headers(standing: Standing) -> list[tuple[bytes, bytes]]:
    """Spell what applies to the call, and how much of it is left."""
    policies = ", ".join([level.rate.policy for level in standing.levels])
    left = ", ".join(
        [
            f'"{level.rate.name}";r={level.available};t={level.pace_seconds}'
            for level in standing.levels
        ]
    )
    return [(b"ratelimit-policy", policies.encode()), (b"ratelimit", left.encode())]
