"""The audit context over the worker's real servers, and the flush beside it."""

from collections.abc import AsyncIterator, Callable
from datetime import datetime
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from maas.audit.application.events import EventComposer, QueuedEvent
from maas.audit.application.flush import FlushService
from maas.audit.public import Actor, AuditScope
from maas.audit.wiring import AuditContext, FlushContext, build_audit, build_flush
from maas.shared.domain.call import Call
from maas.shared.domain.ids import DEFAULT_TENANT_ID, TenantId, new_id
from maas.shared.infrastructure.clock import SystemClock
from maas.shared.infrastructure.database import Database
from maas.shared.infrastructure.redis import RedisGate
from maas.shared.infrastructure.settings import Settings
from maas.shared.infrastructure.unit_of_work import SqlUnitOfWork
from tests.fakes.clock import FakeClock
from tests.fakes.recorder import FakeRecorder
from tests.integration.audit.helpers import Superuser, Trail


class NoIdempotency:
    async def begin(self, session: AsyncSession, call: Call) -> None: ...

    async def finish(self, session: AsyncSession, call: Call, result: object) -> None: ...


@pytest.fixture
async def audit(
    database: Database, redis_gate: RedisGate, settings: Settings
) -> AsyncIterator[AuditContext]:
    context = build_audit(
        database=database, redis=redis_gate, clock=SystemClock(), settings=settings.audit
    )
    yield context
    await context.close()


@pytest.fixture
def unit_of_work(database: Database, audit: AuditContext) -> Callable[[], SqlUnitOfWork]:
    return lambda: SqlUnitOfWork(database.engine, audit=audit.port, idempotency=NoIdempotency())


def make_event(
    action: str = "model.created",
    *,
    tenant_id: TenantId = DEFAULT_TENANT_ID,
    actor: Actor | None = None,
    address: str | None = "192.0.2.7",
    at: datetime | None = None,
    **fields: Any,
) -> QueuedEvent:
    scope = AuditScope(action, tenant_id=tenant_id, **fields)
    scope.actor = actor or Actor("account", new_id(), "ada")
    call = Call(request_id=new_id().hex, recorder=FakeRecorder(), address=address)
    clock = SystemClock() if at is None else FakeClock(at)
    return EventComposer(clock).compose(scope, call)


@pytest.fixture
async def trail(
    settings: Settings, database: Database, redis_gate: RedisGate, superuser: Superuser
) -> AsyncIterator[Trail]:
    made: list[FlushContext] = []

    def make_flush(**options: Any) -> FlushService:
        batch_size = options.pop("batch_size", settings.audit.batch_size)
        redis = options.pop("redis", settings.redis)
        changed = settings.audit.model_copy(update={"batch_size": batch_size})
        update = {"audit": changed, "redis": redis}
        made.append(build_flush(settings.model_copy(update=update), **options))
        return made[-1].service

    yield Trail(make_event, make_flush, redis_gate, superuser)
    for context in made:
        await context.close()
