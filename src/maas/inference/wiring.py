"""Builds inference from resources."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from maas.inference.application.deployment_ports import DeploymentUnitOfWork
from maas.inference.application.deployments import DeploymentService
from maas.inference.application.ports import Routes
from maas.inference.domain.route import Endpoint
from maas.inference.domain.routes import FindLocal
from maas.inference.infrastructure.deployment_queries import PostgresDeploymentQueries
from maas.inference.infrastructure.deployment_repository import SqlDeploymentUnitOfWork
from maas.inference.infrastructure.routes import PostgresRoutes
from maas.inference.infrastructure.runtime_endpoint import derive_token, endpoint_of
from maas.inference.infrastructure.upstreams import OutgoingUpstreams
from maas.model.public import ServedVersion, ServedVersions, SuppliedModels
from maas.shared.domain.clock import Clock
from maas.shared.infrastructure.database import Database
from maas.shared.infrastructure.outgoing_clients import ClientsByReach
from maas.shared.infrastructure.settings import Settings
from maas.shared.infrastructure.unit_of_work import AuditPort, IdempotencyPort


@dataclass(frozen=True, slots=True, kw_only=True)
class InferenceContext:
    """The wired context; `state` is what its routes find on `request.state`."""

    routes: Routes
    state: Mapping[str, object]
    close: Callable[[], Awaitable[None]]


def build_inference(
    settings: Settings,
    *,
    database: Database,
    audit: AuditPort,
    idempotency: IdempotencyPort,
    clock: Clock,
    supplied: SuppliedModels,
    served: ServedVersions,
) -> InferenceContext:
    """Build inference; nothing connects before the first call."""

    def unit_of_work() -> DeploymentUnitOfWork:
        return SqlDeploymentUnitOfWork(database.engine, audit=audit, idempotency=idempotency)

    clients = ClientsByReach.of(settings.outgoing)
    upstreams = OutgoingUpstreams(clients)
    routes = PostgresRoutes(
        database, supplied=supplied, served=served, find_local=_find_local(settings)
    )
    return InferenceContext(
        routes=routes,
        state={
            "upstreams": upstreams,
            "routes": routes,
            "deployments": DeploymentService(
                unit_of_work=unit_of_work, supplied=supplied, served=served, clock=clock
            ),
            "deployment_queries": PostgresDeploymentQueries(database),
        },
        close=upstreams.close,
    )


def _find_local(settings: Settings) -> FindLocal:
    url, token = settings.runtime.url, derive_token(settings.secret_key.get_secret_value())

    def find(version: ServedVersion) -> Endpoint | None:
        if url is None:
            return None
        return endpoint_of(url, token=token, version_id=version.id, model=version.model_name)

    return find
