from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from typing import Any, cast
from uuid import UUID

import pytest

from maas.audit.application.events import QueuedEvent
from maas.audit.application.queries import AuditEventNotFoundError, AuditQueries, EventFilter
from maas.audit.public import Actor
from maas.audit.wiring import AuditContext
from maas.shared.domain.ids import DEFAULT_TENANT_ID, TenantId, new_id
from maas.shared.domain.page import PageRequest
from tests.integration.audit.helpers import Trail

pytestmark = pytest.mark.integration

ADA = Actor("account", UUID(int=1), "ada")
BOB = Actor("account", UUID(int=2), "bob")


@pytest.fixture
def queries(audit: AuditContext) -> AuditQueries:
    return cast("AuditQueries", audit.state["audit_queries"])


@pytest.fixture
async def events(trail: Trail) -> list[QueuedEvent]:
    made = [
        trail.make("account.created", actor=ADA, resource_kind="account", resource_id="a1"),
        trail.make("account.updated", actor=ADA, resource_kind="account", resource_id="a1"),
        trail.make("accounting.closed", actor=BOB, address="198.51.100.9"),
        trail.make("auth.login", outcome="failure", reason="no", address="2001:db8::5"),
        trail.make(
            "model.created", actor=BOB, resource_kind="model", resource_id="m1", address=None
        ),
        trail.make("model.read", outcome="denied", address="192.0.2.200"),
    ]
    foreign = trail.make("account.created", actor=ADA, tenant_id=TenantId(new_id()))
    await trail.add(*made, foreign)
    await trail.flush().run()
    return made


async def found(queries: AuditQueries, events: Sequence[QueuedEvent], **wanted: Any) -> set[int]:
    page = await queries.list_events(
        DEFAULT_TENANT_ID, wanted=EventFilter(**wanted), page=PageRequest(include_total=True)
    )
    numbers = {event.id: number for number, event in enumerate(events)}
    assert page.total == len(page.items)
    return {numbers[item.id] for item in page.items}  # type: ignore[index]  # ids are UUIDs


class TestListEvents:
    @pytest.mark.parametrize(
        ("wanted", "expected"),
        [
            ({}, {0, 1, 2, 3, 4, 5}),
            ({"actor_id": ADA.id}, {0, 1}),
            ({"action": "account.created"}, {0}),
            ({"action": "account.*"}, {0, 1}),
            ({"action": "account*"}, {0, 1, 2}),
            ({"action": "*"}, {0, 1, 2, 3, 4, 5}),
            ({"action": "account.%"}, set()),
            ({"resource_kind": "account", "resource_id": "a1"}, {0, 1}),
            ({"resource_kind": "model"}, {4}),
            ({"outcome": "failure"}, {3}),
            ({"outcome": "denied"}, {5}),
            ({"outcome": "success"}, {0, 1, 2, 4}),
            ({"address": ip_network("192.0.2.7")}, {0, 1}),
            ({"address": ip_network("192.0.2.0/24")}, {0, 1, 5}),
            ({"address": ip_network("0.0.0.0/0")}, {0, 1, 2, 5}),
            ({"address": ip_network("2001:db8::/32")}, {3}),
            ({"address": ip_network("192.0.2.0/24"), "actor_id": ADA.id}, {0, 1}),
            ({"since": datetime(2200, 1, 1, tzinfo=UTC)}, set()),
            ({"until": datetime(2020, 1, 1, tzinfo=UTC)}, set()),
            ({"since": datetime(2020, 1, 1, tzinfo=UTC)}, {0, 1, 2, 3, 4, 5}),
        ],
        ids=str,
    )
    async def test_by(
        self,
        queries: AuditQueries,
        events: list[QueuedEvent],
        wanted: dict[str, Any],
        expected: set[int],
    ) -> None:
        assert await found(queries, events, **wanted) == expected

    async def test_by_request_and_by_exact_time(
        self, queries: AuditQueries, events: list[QueuedEvent]
    ) -> None:
        event = await queries.get_event(DEFAULT_TENANT_ID, events[3].id)
        at = event.occurred_at

        assert await found(queries, events, request_id=event.request_id) == {3}
        assert await found(queries, events, since=at, until=at + timedelta(microseconds=1)) == {3}
        assert await found(queries, events, since=at, until=at) == set()

    async def test_pages_newest_first_and_stays_put_while_rows_are_added(
        self,
        queries: AuditQueries,
        events: list[QueuedEvent],
        trail: Trail,
    ) -> None:
        seen: list[UUID] = []
        after = None
        while True:
            page = await queries.list_events(
                DEFAULT_TENANT_ID, wanted=EventFilter(), page=PageRequest(limit=2, after=after)
            )
            seen += [item.id for item in page.items]
            if page.next is None:
                break
            after = page.next
            await trail.add(trail.make())
            await trail.flush().run()

        assert seen == [event.id for event in reversed(events)]


class TestGetEvent:
    async def test_shows_all_of_it(self, queries: AuditQueries, trail: Trail) -> None:
        event = trail.make(
            "account.updated",
            actor=ADA,
            resource_kind="account",
            resource_id="a1",
            before={"status": "active"},
            after={"status": "suspended"},
        )
        await trail.add(event)
        await trail.flush().run()

        details = await queries.get_event(DEFAULT_TENANT_ID, event.id)

        assert details.seq == 1
        assert details.recorded_at >= details.occurred_at
        assert (details.actor.kind, details.actor.id, details.actor.name) == (
            "account", ADA.id, "ada",
        )  # fmt: skip
        assert details.resource is not None
        assert (details.resource.kind, details.resource.id) == ("account", "a1")
        assert details.changes.before == {"status": "active"}
        assert details.changes.after == {"status": "suspended"}
        assert details.address == "192.0.2.7"
        assert len(details.leaf) == len(details.row_hash) == 64

    async def test_hides_another_tenants_event(
        self, queries: AuditQueries, events: list[QueuedEvent]
    ) -> None:
        with pytest.raises(AuditEventNotFoundError):
            await queries.get_event(TenantId(new_id()), events[0].id)
        with pytest.raises(AuditEventNotFoundError):
            await queries.get_event(DEFAULT_TENANT_ID, new_id())
