"""Personal fields of those who are gone: erased, and not written again."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from sqlalchemy import text

from maas.audit.application.events import EventComposer, QueuedEvent
from maas.audit.infrastructure.erasure import open_personal_fields
from maas.audit.public import Actor, audit_row
from maas.audit.wiring import AuditContext, erase_personal_fields
from maas.shared.domain.ids import AccountId, TenantId, new_id
from maas.shared.infrastructure.clock import SystemClock
from maas.shared.infrastructure.settings import Settings
from maas.shared.infrastructure.unit_of_work import SqlUnitOfWork
from tests.integration.audit.helpers import Superuser, Trail, acting, names

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(60),
    pytest.mark.usefixtures("clean"),
]

Erase = Callable[[], Awaitable[int]]
CHANGE = text("DO $$ BEGIN END $$")
NewUnitOfWork = Callable[[], SqlUnitOfWork]

GONE, STAYING = AccountId(new_id()), AccountId(new_id())
TENANT, OTHER_TENANT = TenantId(new_id()), TenantId(new_id())


@pytest.fixture
def erase(settings: Settings) -> Erase:
    return lambda: erase_personal_fields(settings.database, clock=SystemClock())


async def ask(superuser: Superuser, actor_id: AccountId = GONE) -> None:
    await superuser.execute("INSERT INTO audit_erasures (actor_id) VALUES ($1)", actor_id)


def made_by(trail: Trail, actor_id: AccountId, tenant_id: TenantId = TENANT) -> QueuedEvent:
    return trail.make(tenant_id=tenant_id, actor=Actor("account", actor_id, "grace"))


async def known(superuser: Superuser) -> set[str]:
    """List the events whose personal fields are there."""
    rows = await superuser.fetch("SELECT event_id::text AS id FROM audit_personal")
    return {row["id"] for row in rows}


async def records(superuser: Superuser) -> list[tuple[str, int]]:
    """List the events that erasures left, which wait in the outbox."""
    rows = await superuser.fetch("SELECT payload FROM audit_outbox")
    events: list[dict[str, Any]] = [json.loads(row["payload"]) for row in rows]
    return sorted(
        (event["tenant_id"], event["changes"]["after"]["erased_events"]) for event in events
    )


async def until_blocked(superuser: Superuser) -> None:
    """Wait until the erasure waits for the flush."""
    blocked = 0
    while not blocked:
        # Within a transaction the view would go on showing what it showed first.
        await superuser.execute("SELECT pg_stat_clear_snapshot()")
        blocked = await superuser.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            " AND datname = current_database() AND pid <> pg_backend_pid()"
        )


class TestErasing:
    async def test_takes_one_persons_fields_from_every_tenant_and_no_others(
        self, trail: Trail, erase: Erase, superuser: Superuser
    ) -> None:
        gone = [made_by(trail, GONE), made_by(trail, GONE, OTHER_TENANT), made_by(trail, GONE)]
        others = [made_by(trail, STAYING), made_by(trail, STAYING, OTHER_TENANT)]
        await trail.add(*gone, *others)
        await trail.flush().run()
        await ask(superuser)

        erased = await erase()

        assert erased == 3
        assert await known(superuser) == set(names(*others))
        assert await trail.logged() == names(*gone, *others)
        assert await records(superuser) == sorted([(str(TENANT), 2), (str(OTHER_TENANT), 1)])

    async def test_leaves_the_chain_whole(
        self, trail: Trail, erase: Erase, superuser: Superuser
    ) -> None:
        await trail.add(made_by(trail, GONE), made_by(trail, STAYING))
        await trail.flush().run()
        before = await superuser.fetch("SELECT * FROM audit_chain ORDER BY seq")
        await ask(superuser)

        await erase()

        assert await superuser.fetch("SELECT * FROM audit_chain ORDER BY seq") == before

    async def test_again_changes_nothing_more(
        self, trail: Trail, erase: Erase, superuser: Superuser
    ) -> None:
        await trail.add(made_by(trail, GONE))
        await trail.flush().run()
        await ask(superuser)
        await erase()

        assert await erase() == 0
        assert len(await records(superuser)) == 1

    async def test_goes_on_where_it_was_cut_off(
        self, trail: Trail, erase: Erase, settings: Settings, superuser: Superuser
    ) -> None:
        await trail.add(*(made_by(trail, GONE) for _ in range(7)))
        await trail.flush().run()
        await ask(superuser)
        composer = EventComposer(SystemClock())
        async with open_personal_fields(settings.database, composer=composer) as personal:
            slices = [await personal.erase_slice(3) for _ in range(3)]

        rest = await erase()

        assert (slices, rest) == ([0, 3, 3], 1)
        assert await known(superuser) == set()
        assert [count for _, count in await records(superuser)] == [1, 3, 3]

    async def test_by_two_at_once_counts_each_row_once(
        self, trail: Trail, erase: Erase, superuser: Superuser
    ) -> None:
        await trail.add(*(made_by(trail, GONE) for _ in range(9)), made_by(trail, STAYING))
        await trail.flush().run()
        await ask(superuser)
        await ask(superuser, STAYING)

        erased = await asyncio.gather(erase(), erase())

        assert sum(erased) == 10
        assert sum(count for _, count in await records(superuser)) == 10

    async def test_that_has_to_wait_keeps_no_other_waiting(
        self, trail: Trail, erase: Erase, superuser: Superuser
    ) -> None:
        await trail.add(made_by(trail, STAYING))
        await trail.flush().run()
        await trail.keep(made_by(trail, GONE))
        await superuser.execute(
            "INSERT INTO audit_erasures (actor_id, names) VALUES ($1, '{grace}')", GONE
        )
        await ask(superuser, STAYING)

        erased = await erase()

        done = "SELECT actor_id FROM audit_erasures WHERE erased_at IS NOT NULL"
        assert (erased, await superuser.fetchval(done)) == (1, STAYING)
        assert await superuser.fetchval("SELECT names FROM audit_erasures WHERE names <> '{}'")

    async def test_of_nobody_does_nothing(self, erase: Erase, superuser: Superuser) -> None:
        await ask(superuser)

        assert await erase() == 0
        assert await superuser.fetchval("SELECT erased_at IS NOT NULL FROM audit_erasures")


class TestFlush:
    async def test_after_the_request_logs_the_event_and_no_personal_fields(
        self, trail: Trail, superuser: Superuser
    ) -> None:
        late, other = made_by(trail, GONE), made_by(trail, STAYING)
        await ask(superuser)
        await trail.keep(late)
        await trail.add(other)

        await trail.flush().run()

        assert sorted(await trail.logged()) == sorted(names(late, other))
        assert await known(superuser) == set(names(other))

    async def test_under_way_is_waited_for(
        self, trail: Trail, erase: Erase, superuser: Superuser
    ) -> None:
        await ask(superuser)
        async with superuser.transaction():
            await superuser.execute("SELECT seq FROM audit_head FOR UPDATE")
            erasing = asyncio.ensure_future(erase())
            await until_blocked(superuser)
            event = made_by(trail, GONE)
            await superuser.execute(
                "INSERT INTO audit_log (seq, recorded_at, retention_class, event_id, tenant_id,"
                " occurred_at, actor_kind, actor_id, action, outcome, request_id, payload)"
                " VALUES (1, now(), 'operations', $1, $2, now(), 'account', $3, 'a.b', 'success',"
                " 'r', '')",
                event.id,
                TENANT,
                GONE,
            )
            await superuser.execute(
                "INSERT INTO audit_personal (event_id, tenant_id, actor_name, salt)"
                " VALUES ($1, $2, 'grace', '')",
                event.id,
                TENANT,
            )

        assert await erasing == 1


class TestRequest:
    async def test_stands_and_falls_with_the_act(
        self, audit: AuditContext, unit_of_work: NewUnitOfWork, superuser: Superuser
    ) -> None:
        async with acting(audit, "user.removed") as scope, unit_of_work() as uow:
            scope.forget_person(GONE)
        async with acting(audit, "user.removed") as scope, unit_of_work() as uow:
            scope.forget_person(STAYING)
            await uow.session.execute(CHANGE)
            await uow.commit()

        rows = await superuser.fetch("SELECT actor_id FROM audit_erasures")
        assert [row["actor_id"] for row in rows] == [STAYING]

    async def test_of_one_row_of_a_bulk_act_is_taken_too(
        self, audit: AuditContext, unit_of_work: NewUnitOfWork, superuser: Superuser
    ) -> None:
        async with acting(audit, "user.bulk"), unit_of_work() as uow:
            with audit_row("user.removed") as row:
                row.forget_person(GONE)
            await uow.session.execute(CHANGE)
            await uow.commit()

        rows = await superuser.fetch("SELECT actor_id FROM audit_erasures")
        assert [row["actor_id"] for row in rows] == [GONE]
