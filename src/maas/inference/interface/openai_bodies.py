"""The memory that bodies of calls take, from when they are whole until their calls have ended."""

from typing import Final

from starlette.types import Scope

from maas.inference.application.bills import TooManyCallsError
from maas.inference.domain.shares import Shares
from maas.shared.domain.errors import PayloadTooLargeError
from maas.shared.domain.ids import TenantId

MOST_BODY_BYTES: Final = 512 * 1024 * 1024
"""Of all bodies under way in a process, of which one tenant has half at most."""

FREE_BYTES: Final = 64 * 1024
"""A shorter body is not counted: there are only so many calls."""

COPIES: Final = 3
"""A body is there as it came, parsed, and spelled for its target."""

_VALUE_BYTES: Final = 64
_BEFORE_VALUES: Final = (b",", b"[", b"{", b":")

ROOM_KEY: Final = "maas.room"
"""Where the state of the process has its `Shares`, and a scope what was taken of them."""


def take_room(scope: Scope, tenant_id: TenantId, body: bytes) -> None:
    """Count a body that is about to be parsed, until `give_back_room`.

    Raises:
        PayloadTooLargeError: it takes more than any body may.
        TooManyCallsError: others take too much.
    """
    if len(body) <= FREE_BYTES:
        return
    values = sum(map(body.count, _BEFORE_VALUES))
    size = len(body) * COPIES + values * _VALUE_BYTES
    if size > MOST_BODY_BYTES // 2:
        raise PayloadTooLargeError("The body has too many values.")
    room: Shares = scope["state"][ROOM_KEY]
    if not room.take(tenant_id, size):
        raise TooManyCallsError
    scope[ROOM_KEY] = (tenant_id, size)


def give_back_room(scope: Scope) -> None:
    taken: tuple[TenantId, int] | None = scope.pop(ROOM_KEY, None)
    if taken is not None:
        room: Shares = scope["state"][ROOM_KEY]
        room.give_back(*taken)
