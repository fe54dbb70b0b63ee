"""Class A: the event in the transaction of its change, and the fast path after it."""

import asyncio
from collections.abc import Callable

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from maas.audit.infrastructure.stream import STREAM
from maas.audit.public import AuditedResource
from maas.audit.wiring import AuditContext
from maas.shared.domain.errors import ConflictError
from maas.shared.domain.ids import new_id
from maas.shared.infrastructure.unit_of_work import SqlUnitOfWork
from tests.integration.audit.helpers import Trail, acting

pytestmark = pytest.mark.integration

UnitOfWork = Callable[[], SqlUnitOfWork]
# Counts as a change and changes nothing: these tests are about the event beside it.
CHANGE = text("DO $$ BEGIN END $$")
RESOURCE = AuditedResource("model", frozenset({"name"}))


async def commit_change(audit: AuditContext, unit_of_work: UnitOfWork) -> None:
    async with acting(audit) as scope, unit_of_work() as uow:
        scope.change(RESOURCE, new_id(), after={"name": "名"})
        await uow.session.execute(CHANGE)
        await uow.commit()


async def streamed(trail: Trail) -> int:
    """Wait for the fast path, which answers do not wait for."""
    for _ in range(100):
        if await trail.redis.client.xlen(STREAM):
            break
        await asyncio.sleep(0.01)
    return len(await trail.entries())


async def test_a_commit_writes_the_event_beside_the_change(
    audit: AuditContext, unit_of_work: UnitOfWork, trail: Trail
) -> None:
    await commit_change(audit, unit_of_work)

    rows = await trail.superuser.fetch("SELECT * FROM audit_outbox")
    assert len(rows) == 1
    assert '"after":{"name":"名"}'.encode() in rows[0]["payload"]
    assert '"address": "192.0.2.7"' in rows[0]["personal"]
    assert rows[0]["duration_ms"] >= 0


async def test_a_rollback_leaves_nothing_and_the_failure_is_recorded(
    audit: AuditContext, unit_of_work: UnitOfWork, trail: Trail
) -> None:
    async def fail() -> None:
        async with acting(audit), unit_of_work() as uow:
            await uow.session.execute(CHANGE)
            raise ConflictError

    with pytest.raises(ConflictError):
        await fail()

    assert await trail.count("audit_outbox") == 0
    entries = await trail.entries()
    assert len(entries) == 1
    assert b'"outcome":"failure"' in entries[0][1][b"payload"]


async def test_a_failed_commit_leaves_the_failure_to_be_recorded(
    audit: AuditContext, unit_of_work: UnitOfWork, trail: Trail
) -> None:
    await trail.superuser.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE 'refused at commit'; END $$;"
        "CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON audit_outbox DEFERRABLE"
        " INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse()"
    )

    async def lose_the_commit() -> None:
        async with acting(audit):
            try:
                async with unit_of_work() as uow:
                    await uow.session.execute(CHANGE)
                    await uow.commit()
            except DBAPIError as exc:
                raise ConflictError(str(exc)) from exc

    try:
        with pytest.raises(ConflictError, match="refused at commit"):
            await lose_the_commit()
    finally:
        await trail.superuser.execute("DROP FUNCTION refuse CASCADE")

    assert await trail.count("audit_outbox") == 0
    assert await streamed(trail) == 1
    assert b'"outcome":"failure"' in (await trail.entries())[0][1][b"payload"]


async def test_the_fast_path_and_the_outbox_together_log_one_row(
    audit: AuditContext, unit_of_work: UnitOfWork, trail: Trail
) -> None:
    await commit_change(audit, unit_of_work)
    assert await streamed(trail) == 1
    await trail.age()

    report = await trail.flush().run()

    assert report.written == 1
    assert await trail.check_chain() == 1
    assert await trail.nothing_waits()


async def test_without_redis_the_commit_stands_and_the_outbox_is_flushed(
    audit: AuditContext, unit_of_work: UnitOfWork, trail: Trail
) -> None:
    trail.redis._shut_until = float("inf")

    await commit_change(audit, unit_of_work)
    await trail.age()
    report = await trail.flush().run()

    assert report.written == 1
    assert await trail.check_chain() == 1


async def test_a_young_row_is_left_to_the_fast_path(
    audit: AuditContext, unit_of_work: UnitOfWork, trail: Trail
) -> None:
    await commit_change(audit, unit_of_work)
    await trail.superuser.execute(
        "UPDATE audit_outbox SET created_at = clock_timestamp() + interval '1 hour'"
    )

    taken = await trail.flush().outbox.take(10)

    assert taken == []
    assert await trail.count("audit_outbox") == 1
