"""The call being served: who makes it, from where, under which id.

One mutable `Call` per request, task or command sits in a ContextVar. The edge makes it, the
security dependency fills in the principal, and whoever writes audit events or opens a transaction
reads it.
"""

from contextvars import ContextVar, Token
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Protocol, TypeAlias

from maas.shared.domain.idempotency import IdempotencyClaim
from maas.shared.domain.ids import TenantId
from maas.shared.domain.principal import Principal
from maas.shared.domain.rate_limit import RouteClass, Standing

Outcome: TypeAlias = Literal["success", "failure", "denied"]

ACTION_ATTRIBUTE = "__audit_action__"
"""Where a route function carries the action it is audited under."""


class EventRecorder(Protocol):
    """Records what has no transaction of its own: failures, denials, audited reads."""

    async def record(self, *, action: str, outcome: Outcome, reason: str | None = None) -> None:
        """Return only once the event is durable.

        Raises:
            UnavailableError: no place could take it, so the answer must not be given.
        """
        ...


@dataclass(slots=True, kw_only=True)
class Call:
    """Facts about one request, task or command.

    `address` is the client's, after trusted proxies; `tenant_id` is the tenant its transactions act
    in, the principal's unless a public route (sign-in) sets it. `route_class` is what the caller's
    requests are limited by, if at all; `standing` is what the limits made of this one.
    """

    request_id: str
    recorder: EventRecorder
    address: str | None = None
    user_agent: str | None = None
    principal: Principal | None = None
    tenant_id: TenantId | None = None
    idempotency: IdempotencyClaim | None = None
    route_class: RouteClass | None = None
    standing: Standing | None = None

    def act_as(self, principal: Principal) -> None:
        """Let the rest of the call run as this principal, in its tenant."""
        self.principal = principal
        self.tenant_id = principal.tenant_id


_current: ContextVar[Call] = ContextVar("maas_call")


class NoCallError(RuntimeError):
    """Code that needs a call ran outside of one; open it with `serving(Call(...))`."""


def current_call() -> Call:
    """Tell which call is being served.

    Raises:
        NoCallError: outside of any `serving` block.
    """
    try:
        return _current.get()
    except LookupError:
        message = "no call is being served here: wrap the work in `with serving(Call(...))`"
        raise NoCallError(message) from None


def find_call() -> Call | None:
    return _current.get(None)


class serving:  # noqa: N801  reads as a statement: `with serving(call):`
    """Make a call the current one for the length of a `with` block."""

    __slots__ = ("_call", "_token")
    _token: Token[Call]

    def __init__(self, call: Call) -> None:
        self._call = call

    def __enter__(self) -> Call:
        self._token = _current.set(self._call)
        return self._call

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _current.reset(self._token)
