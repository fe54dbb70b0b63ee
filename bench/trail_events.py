"""Months of a tenant's events, skewed as real trails are: few make most, most make few."""

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from typing_extensions import override

from maas.audit.domain.chain import leaf_of
from maas.audit.domain.event import AuditEvent, PersonalFields
from maas.audit.domain.record import Record
from maas.audit.domain.retention import classify
from maas.audit.public import ChangeValue
from maas.shared.domain.call import Outcome
from maas.shared.domain.ids import ApiKeyId, EventId, SessionId, TenantId
from maas.shared.domain.principal import ActorKind

PEOPLE: Final = 3_000
RESOURCES: Final = 200_000
ADDRESSES: Final = 6_000
DAYS: Final = 90
QUIET: Final = (0.35, 0.7)
"""Between these parts of the time nothing failed: over a month without a failure."""

RARE_PEOPLE: Final = 20
RARE_EVERY: Final = 200_003
"""Of so many events, one is of one of the rare people, or a rare act."""

LATE_EVERY: Final = 5_003
BATCH: Final = 250
"""So many events are recorded at one time, under one checkpoint."""

AGENTS: Final = (
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0 Safari",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 Version/18.1 Safari",
    "python-httpx/0.28.1",
    "curl/8.11.0",
)
_GIVEN: Final = (
    "anna", "ben", "carla", "david", "emma", "felix", "greta", "hugo", "iris", "jonas", "klara",
    "liam", "mona", "nils",
)  # fmt: skip
_FAMILY: Final = (
    "adler", "baker", "castro", "dubois", "eriksen", "fischer", "garcia", "huber", "ito", "jansen",
)  # fmt: skip
_CHINESE: Final = ("王伟", "李娜", "张敏", "刘洋", "陈静", "杨磊", "黄强", "赵军", "吴艳", "周杰")


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of act, and how many of a thousand events it is."""

    share: float
    action: str
    resource_kind: str | None = None
    outcome: Outcome = "success"
    reason: str | None = None


KINDS: Final = (
    Kind(300, "inference.completed", "model"),
    Kind(120, "model_file.downloaded", "model_file"),
    Kind(110, "auth.refresh", "session"),
    Kind(100, "auth.login", "session"),
    Kind(80, "audit.read"),
    Kind(60, "model.updated", "model"),
    Kind(50, "model_version.transitioned", "model_version"),
    Kind(40, "model.created", "model"),
    Kind(40, "model_file.uploaded", "model_file"),
    Kind(30, "auth.logout", "session"),
    Kind(20, "profile.updated", "account"),
    Kind(10, "user.roles_changed", "account"),
    Kind(8, "user.created", "account"),
    Kind(5, "role.updated", "role"),
    Kind(2, "user.suspended", "account", reason="left-team"),
    Kind(1, "api_key.created", "api_key"),
    Kind(0.2, "tenant.updated", "tenant"),
    Kind(15, "auth.login", None, "failure", "invalid-credentials"),
    Kind(3, "model_file.uploaded", "model_file", "failure", "digest-mismatch"),
    Kind(2, "inference.completed", "model", "failure", "model-unavailable"),
    Kind(0.5, "auth.refresh", "session", "failure", "refresh-token-reused"),
    Kind(4, "access.denied", None, "denied", "permission-denied"),
)
CHANGES: Final[dict[str, tuple[dict[str, ChangeValue], dict[str, ChangeValue]]]] = {
    "model.updated": ({"description": "Answers"}, {"description": "Answers questions"}),
    "model.created": ({}, {"name": "team/model", "framework": "gguf", "description": "Answers"}),
    "model_version.transitioned": ({"status": "uploading"}, {"status": "ready"}),
    "model_file.uploaded": ({}, {"path": "weights/model.gguf", "size": 4_000_000_000}),
    "user.roles_changed": ({"roles": ["user"]}, {"roles": ["developer", "user"]}),
    "profile.updated": ({"display_name": "A. Adler"}, {"display_name": "Anna Adler"}),
}
RARE: Final = Kind(0, "tenant.deleted", "tenant", reason="closed at the owner's wish 应业主要求")


class _KeptFields(PersonalFields):
    """Many events of one session share their salt here, and so what they commit to."""

    __slots__ = ("_kept",)
    _kept: dict[str, str]

    @override
    def __post_init__(self) -> None:
        PersonalFields.__post_init__(self)
        object.__setattr__(self, "_kept", PersonalFields.commitments(self))

    @override
    def commitments(self) -> dict[str, str]:
        return self._kept


@dataclass(frozen=True, slots=True)
class Person:
    kind: ActorKind
    id: UUID | None
    name: str | None
    email: str | None
    address: str | None
    agent: str


@dataclass(frozen=True, slots=True)
class Span:
    """The time events come from, and how many of them."""

    first: datetime
    last: datetime
    events: int

    def at(self, number: int) -> datetime:
        return self.first + (self.last - self.first) * (number / self.events)


@dataclass(frozen=True, slots=True)
class Batch:
    """Events in the order of the log, all recorded at one time."""

    recorded_at: datetime
    records: Sequence[Record]


@dataclass(frozen=True, slots=True)
class _Act:
    at: datetime
    person: Person
    kind: Kind
    thing: str
    session: tuple[UUID, PersonalFields]
    request_id: str


class Tenant:
    """Who acts in it, and on what; the same for the same seed, whichever slice is made."""

    def __init__(self, tenant_id: TenantId, *, seed: int = 1) -> None:
        chance = random.Random(seed)  # noqa: S311  no secret depends on it
        self.id = tenant_id
        self.seed = seed
        self.addresses = [_address(number) for number in range(ADDRESSES)]
        self.people = [self._person(number, chance) for number in range(PEOPLE)]
        self.rare = [self._person(PEOPLE + number, chance) for number in range(RARE_PEOPLE)]
        self.resources = [str(UUID(int=chance.getrandbits(128))) for _ in range(RESOURCES)]
        self._person_weights = _falling(PEOPLE, 1.0)
        self._resource_weights = _falling(RESOURCES, 0.7)
        self._kind_weights = list(itertools.accumulate(kind.share for kind in KINDS))
        self._stranger = Person("anonymous", None, None, None, None, AGENTS[3])

    def _person(self, number: int, chance: random.Random) -> Person:
        given, family = _GIVEN[number % len(_GIVEN)], _FAMILY[number // 7 % len(_FAMILY)]
        name = f"{given}.{family}{number}"
        if number % 10 == 3:  # noqa: PLR2004  one in ten
            name = f"{_CHINESE[number // 10 % len(_CHINESE)]}{number}"
        return Person(
            kind="service_account" if number % 40 == 0 else "account",
            id=UUID(int=chance.getrandbits(128)),
            name=name,
            email=f"{given}.{family}{number}@example.com" if number % 4 == 0 else None,
            address=self.addresses[min(int(chance.expovariate(1 / 800)), ADDRESSES - 1)],
            agent=AGENTS[number % len(AGENTS)],
        )

    def make(self, span: Span, first: int, count: int) -> Iterator[Batch]:
        """Make events number `first` and on, `count` of them, batch by batch."""
        chance = random.Random(f"{self.seed} {first}")  # noqa: S311  likewise
        people = chance.choices(self.people, cum_weights=self._person_weights, k=count)
        kinds = chance.choices(KINDS, cum_weights=self._kind_weights, k=count)
        things = chance.choices(self.resources, cum_weights=self._resource_weights, k=count)
        sessions: dict[int, tuple[UUID, PersonalFields]] = {}
        request_id = ""
        for begin in range(0, count, BATCH):
            records = []
            for offset in range(begin, min(begin + BATCH, count)):
                number = first + offset
                at = span.at(number)
                person, kind = self._cast(people[offset], kinds[offset], number, span.events)
                # One request in four leaves a second event.
                if offset % 4 != 1 or not request_id:
                    request_id = str(_id_at(at, chance))
                session = sessions.get(id(person))
                if session is None or person.id is None:
                    session = sessions[id(person)] = self._open_session(person, chance, at)
                if number % LATE_EVERY == 1:
                    at -= timedelta(hours=chance.uniform(0, 48))
                act = _Act(at, person, kind, things[offset], session, request_id)
                records.append(self._record(act, chance))
            last = span.at(first + min(begin + BATCH, count))
            yield Batch(last + timedelta(seconds=0.7), records)

    def _cast(self, person: Person, kind: Kind, number: int, events: int) -> tuple[Person, Kind]:
        """Put in the rare ones where they belong, and leave failures out of the quiet time."""
        if number % RARE_EVERY == 1:
            turn = number // RARE_EVERY
            return self.rare[turn % RARE_PEOPLE], (KINDS[3], RARE)[turn % 2]
        if kind.outcome != "success" and QUIET[0] < number / events < QUIET[1]:
            return person, KINDS[0]
        return (self._stranger if kind.reason == "invalid-credentials" else person), kind

    def _open_session(
        self, person: Person, chance: random.Random, at: datetime
    ) -> tuple[UUID, PersonalFields]:
        is_stranger = person.id is None
        personal = _KeptFields(
            salt=chance.randbytes(32),
            actor_name=person.name,
            email=f"guess{chance.randrange(500)}@example.com" if is_stranger else person.email,
            # Now and then somebody is on the way.
            address=chance.choice(self.addresses)
            if is_stranger or chance.random() < 0.1  # noqa: PLR2004  one in ten
            else person.address,
            user_agent=person.agent,
        )
        return _id_at(at, chance), personal

    def _record(self, act: _Act, chance: random.Random) -> Record:
        at, person, kind, request_id = act.at, act.person, act.kind, act.request_id
        session_id, personal = act.session
        has_session = person.kind == "account"
        event_id = _id_at(at, chance)
        before, after = CHANGES.get(kind.action, ({}, {}))
        resource_id = act.thing if kind.resource_kind else None
        event = AuditEvent(
            id=EventId(event_id), occurred_at=at, tenant_id=self.id, actor_kind=person.kind,
            actor_id=person.id, action=kind.action, outcome=kind.outcome, request_id=request_id,
            session_id=SessionId(session_id) if has_session else None,
            api_key_id=ApiKeyId(person.id) if person.kind == "service_account" and person.id
            else None,
            resource_kind=kind.resource_kind, resource_id=resource_id, reason=kind.reason,
            before=before, after=after, personal=personal,
        )  # fmt: skip
        payload = event.payload()
        return Record(
            event_id=event_id, tenant_id=str(self.id), occurred_at=at, actor_kind=person.kind,
            actor_id=_text(person.id), session_id=_text(event.session_id),
            api_key_id=_text(event.api_key_id), action=kind.action,
            resource_kind=kind.resource_kind, resource_id=resource_id, outcome=kind.outcome,
            reason=kind.reason, request_id=request_id, duration_ms=chance.randrange(400),
            payload=payload, leaf=leaf_of(payload), retention_class=classify(kind.action),
            actor_name=personal.actor_name, email=personal.email, address=personal.address,
            user_agent=personal.user_agent, salt=personal.salt,
        )  # fmt: skip


def _text(identifier: UUID | None) -> str | None:
    return None if identifier is None else str(identifier)


def _falling(count: int, steepness: float) -> list[float]:
    """Weigh the first most and each later one less, as words are used and people are busy."""
    return list(itertools.accumulate((rank + 1) ** -steepness for rank in range(count)))


def _address(number: int) -> str:
    if number % 3 == 2:  # noqa: PLR2004  one in three
        return f"2001:db8:{number % 7:x}::{number:x}"
    return f"{(10, 172, 198)[number % 5 % 3]}.{number % 31}.{number // 256 % 256}.{number % 256}"


def _id_at(at: datetime, chance: random.Random) -> UUID:
    """Make a UUIDv7 of that time."""
    millis = int(at.timestamp() * 1000)
    return UUID(
        int=millis << 80 | 7 << 76 | chance.getrandbits(12) << 64 | 2 << 62 | chance.getrandbits(62)
    )
