"""Making versions and leading them through their life."""

from collections.abc import Callable
from dataclasses import dataclass

from typing_extensions import Unpack

from maas.audit.public import ChangeValue, current_scope
from maas.model.application.ports import CheckRevision, ModelUnitOfWork
from maas.model.application.queries import VersionDetails
from maas.model.application.trail import MODEL_VERSION
from maas.model.domain.text import Description, Reason, VersionName
from maas.model.domain.version import ModelVersion, VersionChanges, VersionTakenError
from maas.model.public import ModelId, VersionId, VersionStatus
from maas.shared.domain.clock import Clock
from maas.shared.domain.ids import new_id
from maas.shared.domain.principal import Principal


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionService:
    unit_of_work: Callable[[], ModelUnitOfWork]
    clock: Clock

    async def create(
        self,
        principal: Principal,
        model_id: ModelId,
        name: VersionName,
        *,
        description: Description | None,
    ) -> VersionDetails:
        """Make an empty version.

        Raises:
            ModelNotFoundError, VersionTakenError.
        """
        now = self.clock.now()
        async with self.unit_of_work() as uow:
            await uow.models.get(model_id)
            if await uow.versions.is_name_taken(model_id, name):
                raise VersionTakenError
            version = ModelVersion(
                id=VersionId(new_id()),
                tenant_id=principal.tenant_id,
                model_id=model_id,
                name=name,
                description=description,
                created_by=principal.account_id,
                created_at=now,
                updated_at=now,
            )
            uow.versions.add(version)
            details = VersionDetails.of(version)
            current_scope().change(MODEL_VERSION, version.id, after=_trail(version))
            await uow.commit(details)
        return details

    async def revise(
        self,
        model_id: ModelId,
        name: VersionName,
        *,
        check: CheckRevision,
        **changes: Unpack[VersionChanges],
    ) -> VersionDetails:
        """Set what is given, in any status; leave the rest.

        What changes nothing is in the trail all the same: one event, without changes.

        Raises:
            ModelNotFoundError, VersionNotFoundError.
        """
        async with self.unit_of_work() as uow:
            version = await uow.versions.get(model_id, name)
            current_scope().resource(MODEL_VERSION, version.id)
            check(version.revision)
            before = _trail(version)
            version.revise(at=self.clock.now(), **changes)
            current_scope().change(MODEL_VERSION, version.id, before=before, after=_trail(version))
            await uow.commit()
        return VersionDetails.of(version)

    async def move(
        self,
        model_id: ModelId,
        name: VersionName,
        status: VersionStatus,
        *,
        reason: Reason | None,
        check: CheckRevision,
    ) -> VersionDetails:
        """Lead the version to another status.

        Raises:
            ModelNotFoundError, VersionNotFoundError, TransitionRefusedError, VersionEmptyError.
        """
        async with self.unit_of_work() as uow:
            version = await uow.versions.get(model_id, name)
            current_scope().resource(MODEL_VERSION, version.id)
            check(version.revision)
            before = _trail(version)
            version.move_to(status, reason=reason, at=self.clock.now())
            current_scope().change(MODEL_VERSION, version.id, before=before, after=_trail(version))
            await uow.commit()
        return VersionDetails.of(version)

    async def delete(self, model_id: ModelId, name: VersionName, *, check: CheckRevision) -> None:
        """Delete the version and its list of files; their bytes stay in the store.

        Raises:
            ModelNotFoundError, VersionNotFoundError, VersionInUseError.
        """
        async with self.unit_of_work() as uow:
            version = await uow.versions.get(model_id, name)
            current_scope().resource(MODEL_VERSION, version.id)
            check(version.revision)
            version.check_deletable()
            await uow.versions.remove(version)
            current_scope().change(MODEL_VERSION, version.id, before=_trail(version))
            await uow.commit()


def _trail(version: ModelVersion) -> dict[str, ChangeValue]:
    return {
        "model_id": str(version.model_id),
        "version": str(version.name),
        "status": version.status,
        "reason": None if version.status_reason is None else str(version.status_reason),
        "description": None if version.description is None else str(version.description),
        "files": len(version.files),
    }
