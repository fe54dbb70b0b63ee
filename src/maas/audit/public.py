"""All that other contexts may use of the trail: the decorator, the scope it opens, and its words.

A route says `@audited("model.created")` and nothing more. The use case, if it knows more than the
decorator, tells the open scope: which resource, what changed. `UnitOfWork.commit()` writes the
event into the transaction of the change; what commits nothing is recorded when the scope closes.
"""

import functools
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar, Token
from dataclasses import dataclass, field
from datetime import datetime
from types import TracebackType
from typing import ParamSpec, Protocol, TypeAlias, TypeVar
from uuid import UUID

from maas.shared.domain.call import ACTION_ATTRIBUTE, Call, Outcome, current_call
from maas.shared.domain.errors import (
    MaasError,
    PermissionDeniedError,
    UnavailableError,
    may_refuse,
)
from maas.shared.domain.ids import AccountId, EventId, TenantId
from maas.shared.domain.principal import ActorKind

P = ParamSpec("P")
R = TypeVar("R")

ChangeValue: TypeAlias = str | int | bool | Sequence[str] | None
"""What a change may hold: no floats, whose text is not canonical, and nothing nested."""


class AuditUnavailableError(UnavailableError):
    code = "audit-unavailable"
    title = "This cannot be recorded at the moment, so it was not done"


@dataclass(frozen=True, slots=True)
class AuditedResource:
    """A kind of thing events are about, and the only fields of it that may enter the trail."""

    kind: str
    fields: frozenset[str]


@dataclass(frozen=True, slots=True)
class Actor:
    """Who did it. `name` is personal and kept beside the hashed event, never in it."""

    kind: ActorKind
    id: UUID | None
    name: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ForgottenPerson:
    """Whose personal fields are to go, and what the person is called where somebody else acted."""

    id: AccountId
    names: Sequence[str] = ()
    emails: Sequence[str] = ()


@dataclass(slots=True)
class AuditScope:
    """What is known so far about the act under way."""

    action: str
    outcome: Outcome = "success"
    reason: str | None = None
    resource_kind: str | None = None
    resource_id: str | None = None
    before: dict[str, ChangeValue] = field(default_factory=dict)
    after: dict[str, ChangeValue] = field(default_factory=dict)
    actor: Actor | None = None
    tenant_id: TenantId | None = None
    email: str | None = None
    must: bool = True
    is_written: bool = False
    is_refused: bool = False
    rows: "list[AuditScope]" = field(default_factory=list)
    forgotten: list[ForgottenPerson] = field(default_factory=list)
    opened_seconds: float = field(default_factory=time.monotonic)

    @property
    def duration_ms(self) -> int:
        """How long the act has been under way; advisory, and never hashed."""
        return max(0, round((time.monotonic() - self.opened_seconds) * 1000))

    def resource(self, resource: AuditedResource, resource_id: object) -> None:
        """Say what the act is about."""
        self.resource_kind = resource.kind
        self.resource_id = str(resource_id)

    def change(
        self,
        resource: AuditedResource,
        resource_id: object,
        *,
        before: Mapping[str, ChangeValue] | None = None,
        after: Mapping[str, ChangeValue] | None = None,
    ) -> None:
        """Say what changed; fields outside the resource's list are dropped.

        With both sides given, only what differs is kept.
        """
        self.resource(resource, resource_id)
        old = {name: value for name, value in (before or {}).items() if name in resource.fields}
        new = {name: value for name, value in (after or {}).items() if name in resource.fields}
        if before is not None and after is not None:
            differing = {name for name in old.keys() | new.keys() if old.get(name) != new.get(name)}
            old = {name: value for name, value in old.items() if name in differing}
            new = {name: value for name, value in new.items() if name in differing}
        self.before, self.after = old, new

    def fail(self, reason: str, *, action: str | None = None) -> None:
        """Say that what is committed records a failure, such as a reused refresh token."""
        self.outcome = "failure"
        self.reason = reason
        self.action = action or self.action

    def refuse(self, reason: str) -> None:
        """Say that nothing was done, which is then recorded even if an outage is the reason."""
        self.outcome, self.reason, self.is_refused = "failure", reason, True

    def forget_person(
        self, account_id: AccountId, *, names: Sequence[str] = (), emails: Sequence[str] = ()
    ) -> None:
        """Have a person's personal fields erased from the trail, once this act is committed.

        It is asked for in the act's own transaction; a task does it. What they did stays. By their
        names and e-mails they are found in what nobody had signed in for, such as a failed
        sign-in, and in what others did about them; these are kept only until that is done.
        """
        self.forgotten.append(ForgottenPerson(id=account_id, names=names, emails=emails))

    def skip(self) -> None:
        """Say that nothing happened: the answer to an earlier call is being repeated."""
        self.is_written = True


class ComposedEvent(Protocol):
    """An event as `audit_outbox` takes it, its bytes fixed for good; `personal_json` is JSON."""

    @property
    def id(self) -> EventId: ...
    @property
    def tenant_id(self) -> TenantId: ...
    @property
    def payload(self) -> bytes: ...
    @property
    def personal_json(self) -> str: ...
    @property
    def duration_ms(self) -> int | None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedEvent:
    """An event of the log; `after` is what its change says, `duration_ms` is advisory."""

    id: EventId
    seq: int
    occurred_at: datetime
    recorded_at: datetime
    actor_kind: str
    actor_id: UUID | None
    api_key_id: UUID | None
    outcome: str
    reason: str | None
    resource_kind: str | None
    resource_id: str | None
    request_id: str
    after: Mapping[str, object]


class RecordedEvents(Protocol):
    """The log, for contexts whose documents are events of theirs."""

    async def list_of_request(
        self,
        tenant_id: TenantId,
        request_id: str,
        *,
        action: str,
        actor_id: UUID | None,
        telling: str,
    ) -> Sequence[RecordedEvent]:
        """List what a request left under an action, newest first, `actor_id`'s or everybody's.

        Only events whose change has a field `telling`. Callers may give many requests one id: it is
        the last 20 of them.
        """
        ...

    async def find_proof(
        self, tenant_id: TenantId, event_id: EventId
    ) -> Mapping[str, object] | None:
        """Prove that an event is in the log, as `maas audit verify --proof` takes it.

        There is no proof of what is not covered by a checkpoint, or where the chain is damaged.
        """
        ...


class EventComposer(Protocol):
    """Makes events for whoever writes them beside a change that no unit of work commits."""

    def compose(self, scope: AuditScope, call: Call) -> ComposedEvent:
        """Fix what the event says; it is recorded once its row in `audit_outbox` is committed."""
        ...


class Trail(EventComposer, Protocol):
    """The trail for changes that are committed in batches, each with its event."""

    @property
    def is_on(self) -> bool:
        """Whether events are to be written at all; production always has them."""
        ...

    def offer(self, event: ComposedEvent) -> None:
        """Let it be flushed soon, now that its commit stands; the outbox has it all the same."""
        ...


_scope: ContextVar[AuditScope] = ContextVar("maas_audit_scope")


class NoAuditScopeError(RuntimeError):
    """Code that fills in an audit scope ran where none is open."""


def current_scope() -> AuditScope:
    """Tell which act is being audited.

    Raises:
        NoAuditScopeError: no `@audited` route, task or command is under way.
    """
    try:
        return _scope.get()
    except LookupError:
        message = "no audit scope is open: put @audited on the route, task or command"
        raise NoAuditScopeError(message) from None


def find_scope() -> AuditScope | None:
    return _scope.get(None)


@contextmanager
def audit_row(action: str) -> Iterator[AuditScope]:
    """Fill in an event of its own for one row of a bulk act.

    The open scope's commit writes one event a row instead of its own; without a commit, the rows
    never were, and the scope records what became of the whole.
    """
    row = AuditScope(action)
    current_scope().rows.append(row)
    token = _scope.set(row)
    try:
        yield row
    finally:
        _scope.reset(token)


class audit_scope:  # noqa: N801  reads as a statement: `async with audit_scope("model.created"):`
    """Open a scope for the length of an `async with` block and record what it did not commit."""

    __slots__ = ("_scope", "_token")
    _token: Token[AuditScope]

    def __init__(self, action: str, *, must: bool = True) -> None:
        self._scope = AuditScope(action, must=must)

    async def __aenter__(self) -> AuditScope:
        self._token = _scope.set(self._scope)
        return self._scope

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            await self._record_unwritten(error)
        finally:
            _scope.reset(self._token)

    async def _record_unwritten(self, error: BaseException | None) -> None:
        """Record an act that no commit recorded.

        A crash or an outage (any error but a refusal) records nothing: what it would claim is not
        known, and a transaction it broke left no change behind. Unless the act itself said that
        it was refused.
        """
        scope = self._scope
        if scope.is_written:
            return
        is_known = scope.is_refused or not isinstance(error, UnavailableError)
        if isinstance(error, MaasError) and is_known:
            denied = isinstance(error, PermissionDeniedError)
            scope.outcome = "denied" if denied else "failure"
            scope.reason = scope.reason or error.code
        elif error is not None:
            return
        await current_call().recorder.record(
            action=scope.action, outcome=scope.outcome, reason=scope.reason
        )
        scope.is_written = True


def audited(
    action: str, *, must: bool = True
) -> Callable[[Callable[P, Awaitable[R]]], Callable[P, Awaitable[R]]]:
    """Make an async route, task or command leave exactly one event under this action.

    `must=False` is for ordinary reads: they are answered even while nothing can record them, and
    the trail tells later how many those were. What is refused or denied is recorded or not
    answered, whatever this says.
    """

    def decorate(function: Callable[P, Awaitable[R]]) -> Callable[P, Awaitable[R]]:
        @functools.wraps(function)
        async def within_scope(*args: P.args, **kwargs: P.kwargs) -> R:
            async with audit_scope(action, must=must):
                return await function(*args, **kwargs)

        setattr(within_scope, ACTION_ATTRIBUTE, action)
        return may_refuse(AuditUnavailableError)(within_scope)

    return decorate
