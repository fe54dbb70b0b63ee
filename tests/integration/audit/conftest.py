"""The audit context over the worker's real servers, and the flush beside it."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from maas.audit.application.events import EventComposer, QueuedEvent
from maas.audit.application.flush import FlushService
from maas.audit.flush_wiring import FlushContext, build_flush
from maas.audit.public import Actor, AuditScope
from maas.audit.wiring import AuditContext, build_audit
from maas.main import create_app
from maas.shared.domain.call import Call
from maas.shared.domain.ids import DEFAULT_TENANT_ID, AccountId, SessionId, TenantId, new_id
from maas.shared.domain.principal import Principal
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


@dataclass
class FakeAuthenticator:
    permissions: frozenset[str] = frozenset({"audit:*"})
    tenant_id: TenantId = DEFAULT_TENANT_ID
    account_id: AccountId = field(default_factory=lambda: AccountId(new_id()))

    async def authenticate(self, credential: str) -> Principal:
        return Principal(
            kind="account",
            account_id=self.account_id,
            tenant_id=self.tenant_id,
            username=credential,
            permissions=self.permissions,
            version=1,
            session_id=SessionId(new_id()),
        )


@pytest.fixture
def authenticator() -> FakeAuthenticator:
    return FakeAuthenticator()


@pytest.fixture
async def client(
    settings: Settings, database: Database, authenticator: FakeAuthenticator
) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(settings)
    async with app.router.lifespan_context(app) as state:

        async def with_state(scope: dict[str, object], receive: object, send: object) -> None:
            scope["state"] = {**(state or {}), "authenticator": authenticator}
            await app(scope, receive, send)  # type: ignore[arg-type]  # httpx types it loosely

        transport = httpx.ASGITransport(app=with_state)  # type: ignore[arg-type]  # likewise
        async with httpx.AsyncClient(
            transport=transport,
            base_url="http://maas.test",
            headers={"Authorization": "Bearer ada"},
        ) as client:
            yield client
