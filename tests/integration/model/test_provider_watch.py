"""The watch of suppliers: who is asked when, by whom, and who reads what came of it."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta

import asyncpg
import pytest

from maas.audit.public import AuditScope
from maas.model.application.provider_checks import SupplierCheck
from maas.model.application.provider_ports import SupplierAccount
from maas.model.application.provider_queries import ProviderDetails
from maas.model.application.provider_watch import WatchService
from maas.model.application.providers import NewProvider, ProviderService
from maas.model.domain.provider import ProviderName, SupplierKey
from maas.model.domain.provider_check import SupplierAnswer, SupplierCallError
from maas.model.infrastructure.provider_credentials import SealedCredentials
from maas.model.infrastructure.provider_queries import PostgresProviderQueries
from maas.model.infrastructure.provider_repository import SqlProviderUnitOfWork
from maas.model.infrastructure.provider_targets import SupplierTargets
from maas.model.infrastructure.provider_watch import open_watch
from maas.model.public import ProviderId
from maas.shared.domain.principal import Principal
from maas.shared.infrastructure.clock import SystemClock
from maas.shared.infrastructure.database import Database
from maas.shared.infrastructure.sealing import Sealer
from maas.shared.infrastructure.sealing_ring import FixedKeys, RingKey
from maas.shared.infrastructure.settings import OutgoingSettings, Settings
from tests.integration.model.conftest import FakeAudit, NoIdempotency, acting_as, make_principal
from tests.integration.model.test_providers import as_operator

pytestmark = pytest.mark.integration

KEY = SupplierKey("sk-canary-0123456789")
SEALS = SealedCredentials(Sealer(FixedKeys([RingKey.derived("a secret of tests alone")])))
HOUR = timedelta(hours=1)
MAY_CHANGE = "SELECT has_table_privilege('provider_health', 'INSERT, UPDATE, DELETE, TRUNCATE')"


@dataclass
class ScriptedCalls:
    """Suppliers that all have no models, but those that are down; `asked` is in order."""

    down: set[ProviderId] = field(default_factory=set)
    broken: set[ProviderId] = field(default_factory=set)
    asked: list[ProviderId] = field(default_factory=list)
    started: asyncio.Event = field(default_factory=asyncio.Event)
    go_on: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.go_on.set()

    async def send(
        self,
        account: SupplierAccount,
        path: str,
        *,
        body: object = None,  # the port's; the watch posts nothing
    ) -> SupplierAnswer:
        assert (account.key, path, body) == (KEY, "/models", None)
        self.asked.append(account.id)
        self.started.set()
        await self.go_on.wait()
        if account.id in self.broken:
            raise ZeroDivisionError
        if account.id in self.down:
            raise SupplierCallError("connection-refused")
        return SupplierAnswer(status=200, body=b'{"data": []}')


@dataclass
class Told:
    scopes: list[AuditScope] = field(default_factory=list)

    async def write(self, connection: object, scopes: Sequence[AuditScope]) -> None:
        assert connection is not None
        self.scopes += scopes


@dataclass(frozen=True, kw_only=True)
class Watched:
    database: Database
    settings: Settings
    calls: ScriptedCalls = field(default_factory=ScriptedCalls)
    told: Told = field(default_factory=Told)

    @property
    def service(self) -> ProviderService:
        return ProviderService(
            unit_of_work=lambda: SqlProviderUnitOfWork(
                self.database.engine, audit=FakeAudit(), idempotency=NoIdempotency()
            ),
            check_target=SupplierTargets(OutgoingSettings()),
            seals=SEALS,
            clock=SystemClock(),
        )

    async def make(self, owner: Principal, name: str = "OpenAI") -> ProviderId:
        async with acting_as(owner):
            made = await self.service.create(
                owner, NewProvider(name=ProviderName(name), type="openai")
            )
        async with acting_as(owner):
            await self.service.set_credential(owner, made.id, KEY, check=lambda _: None)
        return made.id

    async def run(self, *, interval: timedelta = timedelta(0), seconds: float = 10) -> int | None:
        async with open_watch(self.settings.database, seals=SEALS, events=self.told) as ledger:
            if ledger is None:
                return None
            check = SupplierCheck(calls=self.calls)
            watch = WatchService(ledger=ledger, check=check, clock=SystemClock(), interval=interval)
            return await watch.run(seconds=seconds)

    async def read(self, caller: Principal, provider_id: ProviderId) -> ProviderDetails:
        return await PostgresProviderQueries(self.database).get_provider(caller, provider_id)


@pytest.fixture
def watched(database: Database, settings: Settings) -> Watched:
    return Watched(database=database, settings=settings)


@pytest.fixture
def stranger() -> Principal:
    return make_principal()


async def test_many_providers_of_one_tenant_do_not_keep_another_waiting(
    watched: Watched, principal: Principal, stranger: Principal
) -> None:
    many = [await watched.make(principal, f"n{number}") for number in range(5)]
    one = await watched.make(stranger)

    assert await watched.run() == 6
    assert one in watched.calls.asked[:2]
    assert set(watched.calls.asked) == {one, *many}


async def test_nobody_is_asked_twice_within_the_interval(
    watched: Watched, principal: Principal
) -> None:
    await watched.make(principal)

    assert [await watched.run(interval=HOUR), await watched.run(interval=HOUR)] == [1, 0]
    assert await watched.run(seconds=-1) == 0, "the time was up before it began"


async def test_one_run_at_a_time(watched: Watched, principal: Principal) -> None:
    await watched.make(principal)
    watched.calls.go_on.clear()
    first = asyncio.create_task(watched.run())
    await watched.calls.started.wait()

    second = await watched.run()
    watched.calls.go_on.set()

    assert second is None
    assert await first == 1


async def test_what_is_deleted_or_disabled_meanwhile_leaves_nothing(
    watched: Watched,
    principal: Principal,
    superuser: "asyncpg.Connection[asyncpg.Record]",
) -> None:
    gone = await watched.make(principal)
    watched.calls.go_on.clear()
    run = asyncio.create_task(watched.run())
    await watched.calls.started.wait()
    async with acting_as(principal):
        await watched.service.delete(principal, gone, check=lambda _: None)
    watched.calls.go_on.set()
    await run
    off = await watched.make(principal, "off")
    async with acting_as(principal):
        await watched.service.revise(principal, off, check=lambda _: None, status="disabled")

    assert await watched.run() == 0
    assert await superuser.fetchval("SELECT count(*) FROM provider_health") == 0


async def test_a_key_that_does_not_open_and_a_fault_of_ours_stop_nobody_else(
    watched: Watched,
    principal: Principal,
    superuser: "asyncpg.Connection[asyncpg.Record]",
) -> None:
    shut, broken, well = [await watched.make(principal, name) for name in ("a", "b", "c")]
    watched.calls.broken.add(broken)
    await superuser.execute(
        "UPDATE provider_credentials SET sealed = (SELECT sealed FROM provider_credentials"
        " WHERE provider_id = $1) WHERE provider_id = $2",
        well,
        shut,
    )
    await watched.run()
    found = {each: (await watched.read(principal, each)).health for each in (shut, broken, well)}

    assert found[shut].outcome == "credential-unreadable"
    assert (found[broken].status, found[broken].outcome) == ("unknown", None)
    assert (found[well].status, found[well].outcome) == ("healthy", "ok")


async def test_who_fell_ill_and_recovered_is_told_once_each(
    watched: Watched, principal: Principal
) -> None:
    provider = await watched.make(principal)
    watched.calls.down.add(provider)
    for _ in range(5):
        await watched.run()
    ill = (await watched.read(principal, provider)).health
    watched.calls.down.clear()
    for _ in range(2):
        await watched.run()

    assert (ill.status, ill.outcome) == ("unhealthy", "connection-refused")
    scopes = [(each.action, each.tenant_id, each.resource_id) for each in watched.told.scopes]
    assert scopes == [
        ("provider.unhealthy", principal.tenant_id, str(provider)),
        ("provider.recovered", principal.tenant_id, str(provider)),
    ]
    assert watched.told.scopes[0].after == {"health": "unhealthy", "outcome": "connection-refused"}


async def test_the_database_shows_health_to_owner_and_grantee_alone(
    watched: Watched, principal: Principal, stranger: Principal
) -> None:
    provider = await watched.make(principal)
    await watched.run()
    async with acting_as(principal):
        await watched.service.grant(as_operator(principal), provider, stranger.tenant_id)
    seen = []
    for tenant_id in (principal.tenant_id, stranger.tenant_id, make_principal().tenant_id):
        async with watched.database.tenant(tenant_id) as connection:
            seen.append(await connection.fetchval("SELECT count(*) FROM provider_health"))
            assert not await connection.fetchval(MAY_CHANGE), "the watch alone writes it"
    granted = (await watched.read(stranger, provider)).health

    assert seen == [1, 1, 0]
    assert (granted.status, granted.outcome, granted.duration_ms) == ("healthy", None, None)
