"""How a deployment is doing: its calls of the last hour, and its targets at this moment."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from maas.inference.application.deployment_queries import DeploymentQueries
from maas.inference.application.target_states import TargetNow, TargetStates
from maas.inference.domain.deployment import DeploymentNotFoundError
from maas.inference.domain.figures import Figures
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
    recent: RecentCalls | None
    targets: Mapping[TargetId, TargetNow]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentMetricsService:
    deployments: DeploymentQueries
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
        return DeploymentMetrics(
            recent=await self.recent.find(deployment_id), targets=self.states.look(deployment_id)
        )
