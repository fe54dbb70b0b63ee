"""Every filter, alone and with each other, against a filter that knows no index."""

import itertools
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address, ip_network
from typing import Any, get_args
from uuid import UUID

import pytest

from maas.audit.application.events import EventComposer, QueuedEvent
from maas.audit.application.queries import AuditQueries, EventDetails, EventFilter, Order
from maas.audit.domain.record import Record, read_record
from maas.audit.infrastructure import queries as searching
from maas.audit.infrastructure import words
from maas.audit.infrastructure.queries import PostgresAuditQueries
from maas.audit.public import Actor, AuditScope
from maas.audit.wiring import erase_personal_fields
from maas.shared.domain.call import Call, Outcome
from maas.shared.domain.ids import (
    DEFAULT_TENANT_ID,
    AccountId,
    ApiKeyId,
    SessionId,
    TenantId,
    new_id,
)
from maas.shared.domain.page import PageRequest
from maas.shared.domain.principal import Principal
from maas.shared.infrastructure.clock import SystemClock
from maas.shared.infrastructure.database import Database
from maas.shared.infrastructure.settings import Settings
from tests.fakes.clock import FakeClock
from tests.fakes.recorder import FakeRecorder
from tests.integration.audit.helpers import Trail

pytestmark = pytest.mark.integration

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
ORDERS: tuple[Order, ...] = get_args(Order)
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
PEOPLE = [
    Actor("account", UUID(int=1), "ada.lovelace"),
    Actor("account", UUID(int=2), "İbrahim 王伟"),
    Actor("service_account", UUID(int=3), "100%_sure\\bot"),
    Actor("system", None, "erasure"),
    Actor("anonymous", None),
]
ACTIONS = ("auth.login", "auth.refresh", "model.created", "model_file.uploaded", "inference.run")
ADDRESSES = ("10.0.0.1", "10.0.0.2", "10.9.0.1", "2001:db8::1", None)
REASONS = (None, None, "left-team", "应业主要求", "Straße ÄÖ")
EMAILS = (None, "Guess1@Example.com", None, "guess2@example.com")
SESSIONS = (None, SessionId(UUID(int=50)), SessionId(UUID(int=51)))
KEYS = (None, None, ApiKeyId(UUID(int=60)))
COUNT = 120


def make(number: int) -> QueuedEvent:
    """Make an event that shares each of its fields with some others, in ever other company."""

    def pick(choices: Sequence[Any], salt: int) -> Any:
        return choices[(number * 7 + number // 5 * salt + salt) % len(choices)]

    action = pick(ACTIONS, 1)
    scope = AuditScope(action, pick(OUTCOMES, 2), pick(REASONS, 3), tenant_id=DEFAULT_TENANT_ID)
    scope.actor = pick(PEOPLE, 5)
    scope.email = pick(EMAILS, 7)
    if not action.startswith("auth"):
        scope.resource_kind, scope.resource_id = action.split(".")[0], pick(["r1", "r2", "r3"], 4)
    principal = Principal(
        kind="account",
        account_id=AccountId(UUID(int=1)),
        tenant_id=DEFAULT_TENANT_ID,
        username="ada",
        permissions=frozenset(),
        version=1,
        session_id=pick(SESSIONS, 11),
        api_key_id=pick(KEYS, 13),
    )
    call = Call(
        request_id=f"request-{number // 3}",
        recorder=FakeRecorder(),
        address=pick(ADDRESSES, 9),
        principal=principal,
    )
    # Some at the same time, some late.
    at = NOW + timedelta(minutes=number // 2) - timedelta(days=40 if number % 17 == 0 else 0)
    return EventComposer(FakeClock(at)).compose(scope, call)


@pytest.fixture
async def records(trail: Trail) -> list[Record]:
    events = [make(number) for number in range(COUNT)]
    await trail.add(*events)
    await trail.flush().run()
    return [
        read_record(
            payload=event.payload, personal=event.personal.to_json().encode(), duration_ms=None
        )
        for event in events
    ]


@pytest.fixture
def queries(database: Database) -> AuditQueries:
    return PostgresAuditQueries(database)


FILTERS: list[dict[str, Any]] = [
    {"actor_id": UUID(int=1)},
    {"action": "auth.login"},
    {"action": "model*"},
    {"action": "*"},
    {"resource_kind": "model"},
    {"resource_id": "r1"},
    {"resource_kind": "model_file", "resource_id": "r2"},
    {"outcome": "success"},
    {"outcome": "failure"},
    {"address": ip_network("10.0.0.1")},
    {"address": ip_network("10.0.0.0/8")},
    {"address": ip_network("2001:db8::/32")},
    {"request_id": "request-4"},
    {"session_id": UUID(int=50)},
    {"api_key_id": UUID(int=60)},
    {"q": "AUTH"},
    {"q": "e"},
    {"q": "王"},
    {"q": "guess"},
    {"q": "业主"},
    {"since": NOW + timedelta(minutes=20)},
    {"until": NOW + timedelta(minutes=20)},
]
TEXTS = [
    "%", "_", "\\", "%_", "i", "İ", "i̇", "ß", "SS", "straße", "äö", ".*", "'", "' OR 1=1", "()",
    "lovelace ", "ada.lovelace", "100%", "nobody has this", "x" * 200, "\u202e", ":*",
    "&", "|", "!",
]  # fmt: skip
TESTS: dict[str, Callable[[Record, Any], bool]] = {
    "action": lambda r, v: r.action.startswith(v[:-1]) if v.endswith("*") else r.action == v,
    "since": lambda r, v: r.occurred_at >= v,
    "until": lambda r, v: r.occurred_at < v,
    "address": lambda r, v: r.address is not None and ip_address(r.address) in v,
    "q": lambda r, v: any(
        v.lower() in (text or "").lower() for text in (r.action, r.reason, r.actor_name, r.email)
    ),
}


def has(record: Record, wanted: dict[str, Any]) -> bool:
    return all(
        TESTS[name](record, value) if name in TESTS else getattr(record, name) == str(value)
        for name, value in wanted.items()
    )


def expected(records: Sequence[Record], wanted: dict[str, Any], order: Order) -> list[UUID]:
    found = sorted((r.occurred_at, r.event_id) for r in records if has(r, wanted))
    ids = [event_id for _, event_id in found]
    return ids if order == "oldest" else ids[::-1]


async def read_all(
    queries: AuditQueries, wanted: dict[str, Any], order: Order, *, limit: int = 50
) -> list[EventDetails]:
    found: list[EventDetails] = []
    after = None
    while True:
        page = await queries.list_events(
            DEFAULT_TENANT_ID,
            wanted=EventFilter(**wanted),
            page=PageRequest(limit=limit, after=after),
            order=order,
        )
        assert len(page.items) <= limit
        found += page.items
        if page.next is None:
            return found
        after = page.next


async def check(
    queries: AuditQueries, records: Sequence[Record], wanted: dict[str, Any], *, limit: int = 50
) -> None:
    for order in ORDERS:
        found = await read_all(queries, wanted, order, limit=limit)
        assert [item.id for item in found] == expected(records, wanted, order), (wanted, order)


async def test_each_filter_finds_what_it_says_page_by_page(
    queries: AuditQueries, records: list[Record]
) -> None:
    for wanted in FILTERS:
        await check(queries, records, wanted, limit=7)


async def test_any_two_filters_find_what_both_say(
    queries: AuditQueries, records: list[Record]
) -> None:
    number = 0
    for first, second in itertools.combinations(FILTERS, 2):
        if first.keys() & second.keys():
            continue
        wanted, order = {**first, **second}, ORDERS[number % 2]
        found = await read_all(queries, wanted, order)
        assert [item.id for item in found] == expected(records, wanted, order), (wanted, order)
        number += 1


async def test_a_text_is_taken_letter_by_letter(
    queries: AuditQueries, records: list[Record]
) -> None:
    for text in TEXTS:
        found = await read_all(queries, {"q": text}, "newest")
        # PostgreSQL and Python fold a few letters differently, such as the dotted capital i.
        if text not in {"İ", "i̇"}:
            assert [item.id for item in found] == expected(records, {"q": text}, "newest"), text


async def test_a_text_in_very_many_words_is_found_all_the_same(
    queries: AuditQueries, records: list[Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(words, "MOST_WORDS", 2)
    monkeypatch.setattr(words, "MOST_ADDRESSES", 1)

    await check(queries, records, {"q": "e"}, limit=7)
    await check(queries, records, {"q": "e", "outcome": "failure"})
    await check(queries, records, {"address": ip_network("10.0.0.0/8")}, limit=7)


@pytest.mark.parametrize("most", [1, 6, 40])
async def test_of_many_values_few_keys_are_read_and_yet_nothing_is_left_out(
    queries: AuditQueries,
    records: list[Record],
    monkeypatch: pytest.MonkeyPatch,
    most: int,
) -> None:
    monkeypatch.setattr(searching, "MOST_KEYS", most)

    for wanted in FILTERS:
        await check(queries, records, wanted, limit=7)
    await check(queries, records, {"q": "e"}, limit=3)


async def test_without_patience_pages_are_short_and_yet_nothing_is_left_out(
    database: Database, records: list[Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("maas.audit.infrastructure.queries.FIRST_STRETCHES", (10, 10, 10))
    queries = PostgresAuditQueries(database, patience=timedelta(0))
    wanted: dict[str, Any] = {"actor_id": UUID(int=1), "q": "guess"}

    first = await queries.list_events(
        DEFAULT_TENANT_ID, wanted=EventFilter(**wanted), page=PageRequest()
    )

    assert first.next is not None
    assert len(first.items) < len(expected(records, wanted, "newest"))
    await check(queries, records, wanted)
    await check(queries, records, wanted, limit=2)


async def test_the_total_is_of_all_pages(queries: AuditQueries, records: list[Record]) -> None:
    questions: list[dict[str, Any]] = [
        {},
        {"q": "guess"},
        {"q": "nobody"},
        {"action": "auth.*", "outcome": "denied"},
    ]
    for wanted in questions:
        page = await queries.list_events(
            DEFAULT_TENANT_ID,
            wanted=EventFilter(**wanted),
            page=PageRequest(limit=1, include_total=True),
        )
        assert page.total == len(expected(records, wanted, "newest"))


async def test_events_that_come_in_between_double_and_hide_nothing(
    queries: AuditQueries, records: list[Record], trail: Trail
) -> None:
    wanted = EventFilter(action="auth.*")
    seen: list[UUID] = []
    after = None
    for number in itertools.count(COUNT):
        page = await queries.list_events(
            DEFAULT_TENANT_ID, wanted=wanted, page=PageRequest(limit=20, after=after)
        )
        seen += [item.id for item in page.items]
        if (after := page.next) is None:
            break
        await trail.add(make(number))
        await trail.flush().run()

    assert seen == expected(records, {"action": "auth.*"}, "newest")


async def test_personal_fields_whose_event_was_dropped_end_no_list(
    queries: AuditQueries, records: list[Record], trail: Trail
) -> None:
    await trail.superuser.execute(
        "INSERT INTO audit_personal (event_id, tenant_id, address, salt, occurred_at)"
        " SELECT gen_random_uuid(), $1, '10.0.0.1', '', $2::timestamptz - n * interval '1 day'"
        " FROM generate_series(1, 3) AS n",
        DEFAULT_TENANT_ID,
        NOW - timedelta(days=60),
    )

    await check(queries, records, {"address": ip_network("10.0.0.1")}, limit=2)


async def test_other_tenants_have_words_of_their_own(
    queries: AuditQueries, records: list[Record]
) -> None:
    questions: list[dict[str, Any]] = [
        {"q": "auth"},
        {"q": "e"},
        {"action": "auth.*"},
        {"resource_kind": "model"},
    ]
    for wanted in questions:
        page = await queries.list_events(
            TenantId(new_id()),
            wanted=EventFilter(**wanted),
            page=PageRequest(),
        )
        assert page.items == []


async def test_who_is_erased_is_found_by_name_no_more(
    queries: AuditQueries, records: list[Record], trail: Trail, settings: Settings
) -> None:
    assert await read_all(queries, {"q": "LOVELACE"}, "newest") != []
    await trail.superuser.execute("INSERT INTO audit_erasures (actor_id) VALUES ($1)", PEOPLE[0].id)

    await erase_personal_fields(settings.database, clock=SystemClock())
    await trail.add(make(0))
    await trail.flush().run()

    assert await read_all(queries, {"q": "lovelace"}, "newest") == []
    kept = await trail.superuser.fetch("SELECT term FROM audit_terms WHERE field = 'name'")
    assert "ada.lovelace" not in {row["term"] for row in kept}
    assert {"100%_sure\\bot", "erasure"} <= {row["term"] for row in kept}
    emails = await trail.superuser.fetch("SELECT DISTINCT email FROM audit_personal")
    left = await trail.superuser.fetch("SELECT term FROM audit_terms WHERE field = 'email'")
    assert {row["term"] for row in left} == {row["email"] for row in emails} - {None}


async def test_neighbours_are_of_the_request_and_of_the_session(
    queries: AuditQueries, records: list[Record]
) -> None:
    for record in records[30:36]:
        near = await queries.get_neighbours(DEFAULT_TENANT_ID, record.event_id)

        assert near.event.id == record.event_id
        same_request = expected(records, {"request_id": record.request_id}, "oldest")
        assert [item.id for item in near.request] == [
            event_id for event_id in same_request if event_id != record.event_id
        ]
        around: list[UUID] = [record.event_id]
        if record.session_id is not None:
            around = expected(records, {"session_id": record.session_id}, "oldest")
        elif record.actor_id is not None:
            around = expected(records, {"actor_id": record.actor_id}, "oldest")
        place = around.index(record.event_id)
        assert [item.id for item in near.before] == around[max(0, place - 20) : place]
        assert [item.id for item in near.after] == around[place + 1 : place + 21]
