"""Making versions and leading them through their life."""

from collections.abc import Callable
from dataclasses import dataclass

from typing_extensions import Unpack

from maas.audit.public import ChangeValue, current_scope
from maas.model.application.ports import CheckRevision, ModelUnitOfWork
from maas.model.application.queries import VersionDetails
from maas.model.application.trail import MODEL_VERSION, spell
from maas.model.domain.alias import VersionAliasedError
from maas.model.domain.metadata import Metadata, Metrics
from maas.model.domain.resumable import UploadsUnderWayError
from maas.model.domain.source import UPLOADED, Source, SourceNotFoundError
from maas.model.domain.text import Description, Reason, VersionName
from maas.model.domain.version import (
    NEEDS_FILES,
    ModelVersion,
    VersionChanges,
)
from maas.model.public import ModelId, VersionId, VersionStatus
from maas.shared.domain.clock import Clock
from maas.shared.domain.ids import new_id
from maas.shared.domain.principal import Principal


@dataclass(frozen=True, slots=True, kw_only=True)
class NewVersion:
    name: VersionName
    description: Description | None
    source: Source = UPLOADED
    metrics: Metrics | None = None
    metadata: Metadata | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionService:
    unit_of_work: Callable[[], ModelUnitOfWork]
    clock: Clock

    async def create(
        self, principal: Principal, model_id: ModelId, new: NewVersion
    ) -> VersionDetails:
        """Make an empty version.

        Raises:
            ModelNotFoundError, VersionTakenError.
            SourceNotFoundError: the caller reads no such version as it is made from.
        """
        now = self.clock.now()
        async with self.unit_of_work() as uow:
            await uow.models.get(model_id)
            await _check_source(uow, new.source)
            version = ModelVersion(
                id=VersionId(new_id()),
                tenant_id=principal.tenant_id,
                model_id=model_id,
                name=new.name,
                description=new.description,
                source_kind=new.source.kind,
                source_model_id=new.source.model_id,
                source_version=new.source.version,
                source_url=new.source.url,
                metrics={} if new.metrics is None else dict(new.metrics.values),
                metadata={} if new.metadata is None else dict(new.metadata.entries),
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
            ModelNotFoundError, VersionNotFoundError, LineageFrozenError.
            SourceNotFoundError: the caller reads no such version as it is to be made from.
        """
        async with self.unit_of_work() as uow:
            version = await uow.versions.get(model_id, name)
            current_scope().resource(MODEL_VERSION, version.id)
            check(version.revision)
            before = _trail(version)
            source = changes.get("source", version.source)
            if source != version.source:
                await _check_source(uow, source)
            version.revise(at=self.clock.now(), **changes)
            current_scope().change(MODEL_VERSION, version.id, before=before, after=_trail(version))
            await uow.commit()
        return VersionDetails.of(version)

    async def move(
        self,
        principal: Principal,
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
            VersionAliasedError: it is to be archived, and an alias points at it.
            UploadsUnderWayError: its files would be fixed while some are still on their way.
        """
        async with self.unit_of_work() as uow:
            version = await uow.versions.get(model_id, name)
            current_scope().resource(MODEL_VERSION, version.id)
            check(version.revision)
            before = _trail(version)
            if status in NEEDS_FILES and (
                under_way := await uow.uploads.list_under_way(version.id, self.clock.now())
            ):
                raise UploadsUnderWayError(under_way)
            version.move_to(status, reason=reason, by=principal.account_id, at=self.clock.now())
            if status == "archived" and (names := await uow.aliases.list_names(version.id)):
                raise VersionAliasedError(names)
            current_scope().change(MODEL_VERSION, version.id, before=before, after=_trail(version))
            await uow.commit()
        return VersionDetails.of(version)

    async def delete(self, model_id: ModelId, name: VersionName, *, check: CheckRevision) -> None:
        """Delete the version and its list of files; their bytes are freed later.

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


async def _check_source(uow: ModelUnitOfWork, source: Source) -> None:
    if source.model_id is None or source.version is None:
        return
    if not await uow.versions.is_readable(source.model_id, source.version):
        raise SourceNotFoundError


def _trail(version: ModelVersion) -> dict[str, ChangeValue]:
    return {
        "model_id": str(version.model_id),
        "version": str(version.name),
        "status": version.status,
        "reason": None if version.status_reason is None else str(version.status_reason),
        "description": None if version.description is None else str(version.description),
        "files": version.file_count,
        "size": version.size,
        "checksum": None if version.checksum is None else str(version.checksum),
        "source": version.source.text,
        "metrics": spell(version.metrics),
        "metadata": spell(version.metadata),
    }
