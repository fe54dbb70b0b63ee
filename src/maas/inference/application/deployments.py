"""Naming what answers calls, and letting other tenants call it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypedDict, cast

from typing_extensions import Unpack

from maas.audit.public import current_scope
from maas.inference.application.deployment_ports import CheckRevision, DeploymentUnitOfWork
from maas.inference.application.deployment_queries import (
    DeploymentDetails,
)
from maas.inference.application.trail import DEPLOYMENT, trail_of
from maas.inference.domain.deployment import (
    MAX_DEPLOYMENTS,
    Deployment,
    DeploymentChanges,
    DeploymentGrantToSelfError,
    DeploymentName,
    DeploymentNameTakenError,
    DeploymentOfOperatorError,
    DeploymentStatus,
    DeploymentText,
    DeploymentVisibility,
    Target,
    TargetMissingError,
    TargetStatus,
    TargetThing,
    TooManyDeploymentsError,
)
from maas.inference.domain.route import TargetLimits
from maas.inference.public import MANAGE_DEPLOYMENTS, DeploymentId, TargetId
from maas.model.public import ServedVersions, SuppliedModels, VersionReference
from maas.shared.domain.clock import Clock
from maas.shared.domain.grants import Grant
from maas.shared.domain.ids import TenantId, new_id
from maas.shared.domain.pricing import Prices
from maas.shared.domain.principal import Principal


@dataclass(frozen=True, slots=True, kw_only=True)
class NewTarget:
    to: TargetThing
    priority: int = 0
    weight: int = 1
    status: TargetStatus = "active"
    limits: TargetLimits = field(default_factory=TargetLimits)
    price: Prices | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewDeployment:
    name: DeploymentName
    targets: Sequence[NewTarget]
    description: DeploymentText | None = None
    status: DeploymentStatus = "active"
    visibility: DeploymentVisibility = "tenant"
    currency: str | None = None
    max_body_bytes: int | None = None
    max_output_tokens: int | None = None
    max_choices: int | None = None
    cache_seconds: int | None = None
    capture_days: int | None = None


class DeploymentUpdate(TypedDict, total=False):
    """What a caller may set; what is absent stays. Targets are set all together."""

    name: DeploymentName
    description: DeploymentText | None
    status: DeploymentStatus
    visibility: DeploymentVisibility
    currency: str | None
    max_body_bytes: int | None
    max_output_tokens: int | None
    max_choices: int | None
    cache_seconds: int | None
    capture_days: int | None
    targets: Sequence[NewTarget]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeploymentService:
    """What puts a name into other tenants' lists wants `platform:deployments`."""

    unit_of_work: Callable[[], DeploymentUnitOfWork]
    supplied: SuppliedModels
    served: ServedVersions
    clock: Clock

    async def create(self, principal: Principal, new: NewDeployment) -> DeploymentDetails:
        """Give the caller's tenant a name to call.

        Raises:
            DeploymentOfOperatorError, TargetMissingError, TargetTwiceError.
            DeploymentNameTakenError, TooManyDeploymentsError.
        """
        now = self.clock.now()
        deployment = Deployment(
            id=DeploymentId(new_id()),
            tenant_id=principal.tenant_id,
            name=new.name,
            description=new.description,
            status=new.status,
            visibility=new.visibility,
            currency=new.currency,
            max_body_bytes=new.max_body_bytes,
            max_output_tokens=new.max_output_tokens,
            max_choices=new.max_choices,
            cache_seconds=new.cache_seconds,
            capture_days=new.capture_days,
            created_by=principal.account_id,
            created_at=now,
            updated_at=now,
            targets=_targets(new.targets),
        )
        deployment.check_offer(is_operator=_is_operator(principal))
        missing = await self._find_missing(principal, deployment.targets)
        async with self.unit_of_work() as uow:
            if await uow.deployments.count() >= MAX_DEPLOYMENTS:
                raise TooManyDeploymentsError
            if await uow.deployments.is_name_taken(deployment.name):
                raise DeploymentNameTakenError
            if missing:
                raise TargetMissingError(min(missing))
            await uow.deployments.add(deployment)
            details = DeploymentDetails.of(deployment)
            current_scope().change(DEPLOYMENT, deployment.id, after=trail_of(deployment))
            await uow.commit(details)
        return details

    async def revise(
        self,
        principal: Principal,
        deployment_id: DeploymentId,
        *,
        check: CheckRevision,
        **changes: Unpack[DeploymentUpdate],
    ) -> DeploymentDetails:
        """Change a deployment; of its targets only new ones have to be there.

        Raises:
            DeploymentNotFoundError, DeploymentOfOperatorError, DeploymentNameTakenError.
            TargetMissingError, TargetTwiceError.
        """
        revised = cast("DeploymentChanges", {**changes})
        missing: frozenset[int] = frozenset()
        if "targets" in changes:
            targets = _targets(changes["targets"])
            revised["targets"] = targets
            missing = await self._find_missing(principal, targets)
        async with self.unit_of_work() as uow:
            deployment = await uow.deployments.get(deployment_id)
            current_scope().resource(DEPLOYMENT, deployment.id)
            check(deployment.revision)
            known = {target.to for target in deployment.targets}
            for index in sorted(missing):
                if revised["targets"][index].to not in known:
                    raise TargetMissingError(index)
            before = trail_of(deployment)
            name = changes.get("name", deployment.name)
            if name != deployment.name and await uow.deployments.is_name_taken(name):
                raise DeploymentNameTakenError
            had = deployment.targets
            deployment.revise(at=self.clock.now(), is_operator=_is_operator(principal), **revised)
            if deployment.targets != had:
                await uow.deployments.put_targets(deployment)
            current_scope().change(
                DEPLOYMENT, deployment.id, before=before, after=trail_of(deployment)
            )
            await uow.commit()
        return DeploymentDetails.of(deployment)

    async def delete(self, deployment_id: DeploymentId, *, check: CheckRevision) -> None:
        """Take a deployment out of sight for good; its name is free again.

        Raises:
            DeploymentNotFoundError.
        """
        async with self.unit_of_work() as uow:
            deployment = await uow.deployments.get(deployment_id)
            current_scope().resource(DEPLOYMENT, deployment.id)
            check(deployment.revision)
            before = trail_of(deployment)
            deployment.delete(at=self.clock.now())
            current_scope().change(DEPLOYMENT, deployment.id, before=before)
            await uow.commit()

    async def grant(
        self, principal: Principal, deployment_id: DeploymentId, grantee_id: TenantId
    ) -> tuple[Grant, bool]:
        """Let another tenant call the deployment, and tell whether that is new.

        Raises:
            DeploymentNotFoundError, DeploymentOfOperatorError.
            DeploymentGrantToSelfError, TooManyDeploymentGrantsError.
        """
        async with self.unit_of_work() as uow:
            deployment = await uow.deployments.get(deployment_id)
            current_scope().resource(DEPLOYMENT, deployment.id)
            if not _is_operator(principal):
                raise DeploymentOfOperatorError
            if grantee_id == deployment.tenant_id:
                raise DeploymentGrantToSelfError
            grant = Grant(
                tenant_id=grantee_id,
                created_by=principal.account_id,
                created_at=self.clock.now(),
            )
            kept, is_new = await uow.deployments.grant(deployment.id, grant)
            current_scope().change(DEPLOYMENT, deployment.id, after={"granted_to": str(grantee_id)})
            await uow.commit()
        return kept, is_new

    async def revoke(self, deployment_id: DeploymentId, grantee_id: TenantId) -> None:
        """Let another tenant call the deployment no longer.

        Raises:
            DeploymentNotFoundError, DeploymentGrantNotFoundError.
        """
        async with self.unit_of_work() as uow:
            deployment = await uow.deployments.get(deployment_id)
            current_scope().resource(DEPLOYMENT, deployment.id)
            await uow.deployments.revoke(deployment.id, grantee_id)
            current_scope().change(
                DEPLOYMENT, deployment.id, before={"granted_to": str(grantee_id)}
            )
            await uow.commit()

    async def _find_missing(
        self, principal: Principal, targets: Sequence[Target]
    ) -> frozenset[int]:
        """Tell which targets, by their places, lead to nothing the tenant and the caller see."""
        versions = {each.to for each in targets if isinstance(each.to, VersionReference)}
        models = {each.to for each in targets if not isinstance(each.to, VersionReference)}
        seen: frozenset[TargetThing] = await self.supplied.find_visible(
            principal.tenant_id, models
        ) | await self.served.find_visible(principal, versions)
        return frozenset(index for index, each in enumerate(targets) if each.to not in seen)


def _targets(new: Sequence[NewTarget]) -> tuple[Target, ...]:
    return tuple(
        Target(
            id=TargetId(new_id()),
            to=each.to,
            priority=each.priority,
            weight=each.weight,
            status=each.status,
            limits=each.limits,
            price=each.price,
        )
        for each in new
    )


def _is_operator(principal: Principal) -> bool:
    return principal.may(MANAGE_DEPLOYMENTS)
