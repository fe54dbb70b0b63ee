"""Events as a busy platform makes them, composed by the code that composes all events."""

import random
from collections.abc import Iterator
from dataclasses import dataclass

from maas.audit.application.events import EventComposer, QueuedEvent
from maas.audit.public import AuditedResource, AuditScope
from maas.shared.domain.call import Call, Outcome
from maas.shared.domain.ids import DEFAULT_TENANT_ID, AccountId, SessionId, new_id
from maas.shared.domain.principal import Principal
from maas.shared.infrastructure.clock import SystemClock

ACTORS = 2_000
RESOURCES = 20_000
AGENTS = (
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0 Safari",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 Version/18.1 Safari",
    "python-httpx/0.28.1",
    "curl/8.11.0",
)
ACCOUNT = AuditedResource("account", frozenset({"status", "roles"}))
MODEL = AuditedResource("model", frozenset({"name", "framework", "description"}))
VERSION = AuditedResource("model_version", frozenset({"version", "status"}))
FILE = AuditedResource("model_file", frozenset({"path", "sha256", "size"}))


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of act; those that change something are written to the outbox as well."""

    share: int
    action: str
    outcome: Outcome = "success"
    reason: str | None = None
    resource: AuditedResource | None = None
    is_change: bool = False


KINDS = (
    Kind(20, "auth.login", resource=AuditedResource("session", frozenset())),
    Kind(6, "auth.login", "failure", "invalid-credentials"),
    Kind(14, "auth.refresh", resource=AuditedResource("session", frozenset())),
    Kind(4, "access.denied", "denied", "permission-denied"),
    Kind(12, "model_file.downloaded", resource=FILE),
    Kind(8, "audit.read"),
    Kind(8, "model.created", resource=MODEL, is_change=True),
    Kind(8, "model.updated", resource=MODEL, is_change=True),
    Kind(8, "model_version.transitioned", resource=VERSION, is_change=True),
    Kind(5, "model_file.uploaded", resource=FILE, is_change=True),
    Kind(4, "user.created", resource=ACCOUNT, is_change=True),
    Kind(3, "user.roles_changed", resource=ACCOUNT, is_change=True),
)


class NoRecorder:
    """These calls compose events and record none."""

    async def record(self, *, action: str, outcome: Outcome, reason: str | None = None) -> None:
        raise NotImplementedError


def make_events(count: int, *, seed: int) -> Iterator[tuple[QueuedEvent, bool]]:
    """Make events of the default tenant; each comes with whether its act changed something."""
    chance = random.Random(seed)  # noqa: S311  no secret depends on it
    composer, recorder = EventComposer(SystemClock()), NoRecorder()
    people = [_person(number) for number in range(ACTORS)]
    resources = [new_id() for _ in range(RESOURCES)]
    weights = [kind.share for kind in KINDS]
    for number in range(count):
        (kind,) = chance.choices(KINDS, weights)
        where = chance.randrange(ACTORS)
        who = None if kind.reason == "invalid-credentials" else people[where]
        call = Call(
            request_id=str(new_id()),
            recorder=recorder,
            # Offices, and people at home: few addresses make most of the events.
            address=f"10.0.{where % 8}.{where % 250}" if where % 4 else f"2001:db8::{where:x}",
            user_agent=AGENTS[where % len(AGENTS)],
            principal=who,
            tenant_id=DEFAULT_TENANT_ID,
        )
        scope = AuditScope(kind.action, kind.outcome, kind.reason)
        if kind.resource is not None:
            scope.change(kind.resource, chance.choice(resources), **_change(kind, number))
        yield composer.compose(scope, call), kind.is_change


def _person(number: int) -> Principal:
    return Principal(
        kind="account",
        account_id=AccountId(new_id()),
        tenant_id=DEFAULT_TENANT_ID,
        username=f"person.{number}",
        permissions=frozenset(),
        version=1,
        session_id=SessionId(new_id()),
    )


def _change(kind: Kind, number: int) -> dict[str, dict[str, str | int | list[str]]]:
    match kind.resource:
        case AuditedResource(kind="model"):
            after = {"name": f"team/model-{number}", "framework": "gguf", "description": "Answers"}
            return {"after": dict(after)}
        case AuditedResource(kind="model_version"):
            return {"before": {"status": "uploading"}, "after": {"status": "ready"}}
        case AuditedResource(kind="model_file"):
            return {"after": {"path": "weights/model.gguf", "sha256": f"{number:064x}"}}
        case AuditedResource(kind="account"):
            return {"before": {"roles": ["user"]}, "after": {"roles": ["developer", "user"]}}
        case _:
            return {}
