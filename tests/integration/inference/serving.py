"""Suppliers, versions and deployments of any tenant, made by the services that make them."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from maas.inference.application.deployment_queries import DeploymentDetails
from maas.inference.application.deployments import DeploymentService, NewDeployment, NewTarget
from maas.inference.domain.deployment import DeploymentName, TargetThing
from maas.inference.domain.route import Endpoint, Route
from maas.inference.infrastructure.deployment_queries import PostgresDeploymentQueries
from maas.inference.infrastructure.deployment_repository import SqlDeploymentUnitOfWork
from maas.inference.infrastructure.routes import PostgresRoutes
from maas.inference.infrastructure.runtime_endpoint import endpoint_of
from maas.model.application.provider_models import (
    NewPrice,
    NewProviderModel,
    ProviderModelService,
)
from maas.model.application.providers import NewProvider, ProviderService
from maas.model.domain.provider import ProviderName, SupplierKey
from maas.model.domain.provider_model import Currency, ProviderModelName, UnitPrice
from maas.model.infrastructure.provider_credentials import SealedCredentials
from maas.model.infrastructure.provider_repository import SqlProviderUnitOfWork
from maas.model.infrastructure.provider_targets import SupplierTargets
from maas.model.infrastructure.served_versions import PostgresServedVersions
from maas.model.infrastructure.supplied_models import PostgresSuppliedModels
from maas.model.public import (
    Capability,
    ProviderId,
    ProviderKind,
    ProviderModelId,
    ServedVersion,
)
from maas.shared.domain.ids import TenantId
from maas.shared.domain.principal import Principal
from maas.shared.infrastructure.clock import SystemClock
from maas.shared.infrastructure.database import Database
from maas.shared.infrastructure.sealing import Sealer
from maas.shared.infrastructure.sealing_ring import FixedKeys, RingKey
from maas.shared.infrastructure.settings import OutgoingSettings
from tests.integration.model.conftest import FakeAudit, NoIdempotency, acting_as

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
KEY = SupplierKey("sk-canary-0123456789")
SEALS = SealedCredentials(Sealer(FixedKeys([RingKey.derived("a secret of tests alone")])))


def anything(_: int) -> None:
    """Expect nothing."""


def as_operator(principal: Principal) -> Principal:
    return replace(principal, permissions=frozenset({"platform:*"}))


def at_runtime(version: ServedVersion) -> Endpoint | None:
    return endpoint_of(
        "http://127.0.0.1:8100", token="t", version_id=version.id, model=version.model_name
    )


@dataclass(kw_only=True)
class Serving:
    """Everything over one database; `now` is the time routes are kept by."""

    database: Database
    seals: SealedCredentials = field(default=SEALS)
    now: float = 0.0

    @property
    def suppliers(self) -> ProviderService:
        return ProviderService(
            unit_of_work=self._provider_work,
            check_target=SupplierTargets(OutgoingSettings()),
            seals=SEALS,
            clock=SystemClock(),
        )

    @property
    def models(self) -> ProviderModelService:
        return ProviderModelService(unit_of_work=self._provider_work, clock=SystemClock())

    @property
    def supplied(self) -> PostgresSuppliedModels:
        return PostgresSuppliedModels(self.database, self.seals)

    @property
    def served(self) -> PostgresServedVersions:
        return PostgresServedVersions(self.database)

    @property
    def deployments(self) -> DeploymentService:
        return DeploymentService(
            unit_of_work=self.make_unit_of_work,
            supplied=self.supplied,
            served=self.served,
            clock=SystemClock(),
        )

    @property
    def queries(self) -> PostgresDeploymentQueries:
        return PostgresDeploymentQueries(self.database)

    def make_unit_of_work(self) -> SqlDeploymentUnitOfWork:
        return SqlDeploymentUnitOfWork(
            self.database.engine, audit=FakeAudit(), idempotency=NoIdempotency()
        )

    def _provider_work(self) -> SqlProviderUnitOfWork:
        return SqlProviderUnitOfWork(
            self.database.engine, audit=FakeAudit(), idempotency=NoIdempotency()
        )

    def make_routes(self) -> PostgresRoutes:
        return PostgresRoutes(
            self.database,
            supplied=self.supplied,
            served=self.served,
            find_local=at_runtime,
            now=lambda: self.now,
        )

    async def route(self, tenant_id: TenantId, name: str) -> Route:
        """Read a route as a process that has read none."""
        return await self.make_routes().get(tenant_id, name)

    async def connect(
        self,
        owner: Principal,
        name: str = "OpenAI",
        *,
        type: ProviderKind = "openai",  # noqa: A002  its name everywhere else
        key: SupplierKey | None = KEY,
        **values: Any,
    ) -> ProviderId:
        async with acting_as(owner):
            made = await self.suppliers.create(
                owner, NewProvider(name=ProviderName(name), type=type, **values)
            )
        if key is not None:
            async with acting_as(owner):
                await self.suppliers.set_credential(owner, made.id, key, check=anything)
        return made.id

    async def add_model(
        self,
        owner: Principal,
        provider_id: ProviderId,
        name: str = "gpt-4o",
        *,
        capabilities: Sequence[Capability] = ("chat",),
        prices: Sequence[tuple[str, str]] = (("USD", "2.5"),),
    ) -> ProviderModelId:
        new = NewProviderModel(
            name=ProviderModelName(name),
            capabilities=list(capabilities),
            context_length=128_000,
            max_output_tokens=4_096,
        )
        async with acting_as(owner):
            made = await self.models.add(owner, provider_id, new)
        for currency, amount in prices:
            await self.set_price(owner, provider_id, made.id, currency, amount)
        return made.id

    async def set_price(
        self,
        owner: Principal,
        provider_id: ProviderId,
        model_id: ProviderModelId,
        currency: str,
        amount: str,
    ) -> None:
        price = NewPrice(
            currency=Currency(currency),
            input=UnitPrice(amount),
            output=UnitPrice("10"),
            request=UnitPrice("0.01"),
        )
        async with acting_as(owner):
            await self.models.set_price(owner, provider_id, model_id, price)

    async def deploy(
        self, owner: Principal, name: str, *things: TargetThing, **values: Any
    ) -> DeploymentDetails:
        new = NewDeployment(
            name=DeploymentName(name), targets=[NewTarget(to=each) for each in things], **values
        )
        async with acting_as(owner):
            return await self.deployments.create(owner, new)

    async def deploy_new(self, owner: Principal, name: str, **values: Any) -> DeploymentDetails:
        """Deploy a model of a supplier of its own."""
        provider_id = await self.connect(owner, f"of {name}")
        return await self.deploy(owner, name, await self.add_model(owner, provider_id), **values)

    async def revise(self, owner: Principal, made: DeploymentDetails, **changes: Any) -> None:
        async with acting_as(owner):
            await self.deployments.revise(owner, made.id, check=anything, **changes)

    async def delete(self, owner: Principal, made: DeploymentDetails) -> None:
        async with acting_as(owner):
            await self.deployments.delete(made.id, check=anything)

    async def grant(self, owner: Principal, made: DeploymentDetails, grantee: Principal) -> None:
        async with acting_as(owner):
            await self.deployments.grant(as_operator(owner), made.id, grantee.tenant_id)
