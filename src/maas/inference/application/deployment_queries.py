"""What is shown of deployments, and the questions that are asked without loading an aggregate."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, Self

from maas.inference.domain.deployment import (
    Deployment,
    DeploymentStatus,
    DeploymentVisibility,
    Target,
)
from maas.inference.public import DeploymentId
from maas.shared.domain.grants import Grant
from maas.shared.domain.ids import AccountId, TenantId
from maas.shared.domain.page import Page, PageRequest
from maas.shared.domain.principal import Principal


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentDetails:
    """A deployment as its own tenant sees it; to another, `targets` and `created_by` are `None`."""

    id: DeploymentId
    tenant_id: TenantId
    name: str
    description: str | None
    status: DeploymentStatus
    visibility: DeploymentVisibility
    currency: str | None
    max_body_bytes: int | None
    max_output_tokens: int | None
    max_choices: int | None
    cache_seconds: int | None
    capture_days: int | None
    targets: Sequence[Target] | None
    created_by: AccountId | None
    created_at: datetime
    updated_at: datetime
    revision: int

    @classmethod
    def of(cls, deployment: Deployment) -> Self:
        return cls(
            id=deployment.id,
            tenant_id=deployment.tenant_id,
            name=str(deployment.name),
            description=None if deployment.description is None else str(deployment.description),
            status=deployment.status,
            visibility=deployment.visibility,
            currency=deployment.currency,
            max_body_bytes=deployment.max_body_bytes,
            max_output_tokens=deployment.max_output_tokens,
            max_choices=deployment.max_choices,
            cache_seconds=deployment.cache_seconds,
            capture_days=deployment.capture_days,
            targets=tuple(deployment.targets),
            created_by=deployment.created_by,
            created_at=deployment.created_at,
            updated_at=deployment.updated_at,
            revision=deployment.revision,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentFilter:
    name: str | None = None
    status: DeploymentStatus | None = None


class DeploymentQueries(Protocol):
    """What a caller may see: the tenant's own deployments, granted ones, and public ones."""

    async def get_deployment(
        self, caller: Principal, deployment_id: DeploymentId
    ) -> DeploymentDetails:
        """Raises DeploymentNotFoundError."""
        ...

    async def list_deployments(
        self, caller: Principal, wanted: DeploymentFilter, page: PageRequest
    ) -> Page[DeploymentDetails]:
        """List them, newest first."""
        ...

    async def list_grants(
        self, caller: Principal, deployment_id: DeploymentId, page: PageRequest
    ) -> Page[Grant]:
        """List to whom a deployment of the caller's own tenant is granted, newest first.

        Raises DeploymentNotFoundError.
        """
        ...
