"""How a deployment is doing: its calls of the last hour, and its targets at this moment."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from maas.inference.application.deployment_queries import DeploymentQueries
from maas.inference.application.ports import Routes
from maas.inference.application.target_states import UNTRIED, TargetNow, TargetStates
from maas.inference.domain.deployment import DeploymentNotFoundError
from maas.inference.domain.failures import UnknownModelError
from maas.inference.domain.figures import Figures
from maas.inference.domain.route import Unfit
from maas.inference.public import DeploymentId, TargetId
from maas.shared.domain.principal import Principal


@dataclass(frozen=True, slots=True, kw_only=True)
class RecentCalls:
    """Of all processes together, from `since` on."""

    since: datetime
    figures: Figures


class RecentCallsReader(Protocol):
    async def find(self, deployment_id: DeploymentId) -> RecentCalls | None:
        """Tell of the last hour; `None` while nobody could."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentMetrics:
    """`unfit` tells why targets are not called; the others are, unless their circuit is open."""

    recent: RecentCalls | None
    targets: Mapping[TargetId, TargetNow]
    unfit: Mapping[TargetId, Unfit]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentMetricsService:
    deployments: DeploymentQueries
    routes: Routes
    recent: RecentCallsReader
    states: TargetStates

    async def get(self, caller: Principal, deployment_id: DeploymentId) -> DeploymentMetrics:
        """Tell how a deployment of the caller's own tenant is doing.

        Raises:
            DeploymentNotFoundError: there is none, or it is another tenant's.
        """
        deployment = await self.deployments.get_deployment(caller, deployment_id)
        if deployment.tenant_id != caller.tenant_id:
            raise DeploymentNotFoundError
        try:
            route = await self.routes.get_own(caller.tenant_id, deployment_id)
        except UnknownModelError:
            # It was deleted a moment ago.
            raise DeploymentNotFoundError from None
        recent = await self.recent.find(deployment_id)
        own = dict.fromkeys([target.id for target in deployment.targets or ()], UNTRIED)
        return DeploymentMetrics(
            recent=recent,
            # Also of targets that it had, as long as calls are under way there.
            targets={**own, **self.states.look(deployment_id)},
            unfit=route.unfit,
        )
