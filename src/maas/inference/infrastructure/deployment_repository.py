"""Loading and keeping deployments, and the transaction they are kept in."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import delete, exists, func, insert, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from typing_extensions import override

from maas.inference.domain.deployment import (
    MAX_DEPLOYMENT_GRANTS,
    Deployment,
    DeploymentGrantNotFoundError,
    DeploymentName,
    DeploymentNameTakenError,
    DeploymentNotFoundError,
    DeploymentRepository,
    TooManyDeploymentGrantsError,
)
from maas.inference.infrastructure.deployment_rows import read_target, target_row
from maas.inference.infrastructure.deployment_tables import (
    deployment_grants,
    deployment_targets,
    deployments,
)
from maas.inference.public import DeploymentId
from maas.shared.domain.call import current_call
from maas.shared.domain.grants import Grant
from maas.shared.domain.ids import TenantId
from maas.shared.infrastructure.constraints import constraint_of
from maas.shared.infrastructure.grants import SqlGrants
from maas.shared.infrastructure.unit_of_work import SqlUnitOfWork


class SqlDeploymentRepository:
    def __init__(self, session: AsyncSession, tenant_id: TenantId | None) -> None:
        self._session = session
        self._tenant_id = tenant_id
        self._grants = SqlGrants(session, deployment_grants.c.deployment_id, tenant_id)

    async def get(self, deployment_id: DeploymentId) -> Deployment:
        found = await self._session.execute(
            select(Deployment)
            .where(
                deployments.c.id == deployment_id,
                deployments.c.tenant_id == self._tenant_id,
                deployments.c.deleted_at.is_(None),
            )
            .with_for_update(key_share=True)
        )
        deployment: Deployment | None = found.scalar_one_or_none()
        if deployment is None:
            raise DeploymentNotFoundError
        # Statements of their own: the one that waits for the lock sees other tables as they were
        # before it waited.
        of_deployment = deployment_targets.c.deployment_id == deployment_id
        of_tenant = deployment_targets.c.tenant_id == self._tenant_id
        targets = await self._session.execute(
            select(deployment_targets)
            .where(of_deployment, of_tenant)
            .order_by(deployment_targets.c.position)
        )
        deployment.targets = tuple(read_target(dict(row)) for row in targets.mappings())
        deployment.is_granted = bool(
            await self._session.scalar(
                select(
                    exists().where(
                        deployment_grants.c.deployment_id == deployment_id,
                        deployment_grants.c.tenant_id == self._tenant_id,
                    )
                )
            )
        )
        return deployment

    async def is_name_taken(self, name: DeploymentName) -> bool:
        found = await self._session.scalar(
            select(
                exists().where(
                    deployments.c.tenant_id == self._tenant_id,
                    deployments.c.name == name,
                    deployments.c.deleted_at.is_(None),
                )
            )
        )
        return bool(found)

    async def count(self) -> int:
        await self._session.execute(
            select(
                func.pg_advisory_xact_lock(
                    func.hashtextextended(f"maas.deployments {self._tenant_id}", 0)
                )
            )
        )
        found = await self._session.scalar(
            select(func.count())
            .select_from(deployments)
            .where(deployments.c.tenant_id == self._tenant_id, deployments.c.deleted_at.is_(None))
        )
        return int(found or 0)

    async def add(self, deployment: Deployment) -> None:
        self._session.add(deployment)
        # Its targets are written by hand, and refer to its row.
        with _naming_the_taken():
            await self._session.flush()
        await self._insert_targets(deployment)

    async def put_targets(self, deployment: Deployment) -> None:
        await self._session.execute(
            delete(deployment_targets).where(
                deployment_targets.c.deployment_id == deployment.id,
                deployment_targets.c.tenant_id == deployment.tenant_id,
            )
        )
        await self._insert_targets(deployment)

    async def _insert_targets(self, deployment: Deployment) -> None:
        rows = [
            target_row(deployment, position, target)
            for position, target in enumerate(deployment.targets)
        ]
        await self._session.execute(insert(deployment_targets), rows)

    async def grant(self, deployment_id: DeploymentId, grant: Grant) -> tuple[Grant, bool]:
        return await self._grants.add(
            deployment_id,
            grant,
            at_most=MAX_DEPLOYMENT_GRANTS,
            too_many=TooManyDeploymentGrantsError,
        )

    async def revoke(self, deployment_id: DeploymentId, grantee_id: TenantId) -> None:
        if not await self._grants.remove(deployment_id, grantee_id):
            raise DeploymentGrantNotFoundError


class SqlDeploymentUnitOfWork(SqlUnitOfWork):
    deployments: DeploymentRepository

    @override
    def _open(self) -> None:
        tenant_id = self._tenant_id or current_call().tenant_id
        self.deployments = SqlDeploymentRepository(self.session, tenant_id)

    @override
    async def commit(self, result: object = None) -> None:
        with _naming_the_taken():
            await super().commit(result)


@contextmanager
def _naming_the_taken() -> Iterator[None]:
    try:
        yield
    except IntegrityError as exc:
        if constraint_of(exc) == "uq_deployments_tenant_id_name":
            raise DeploymentNameTakenError from exc
        raise
