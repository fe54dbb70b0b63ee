"""Loading and keeping the aggregates of the registry, and the transaction they share."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import delete, exists, func, insert, literal_column, select
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import selectinload
from typing_extensions import override

from maas.model.domain.blob import Blob, BlobRepository, Digest, Part
from maas.model.domain.model import Model, ModelNameTakenError, ModelNotFoundError, ModelRepository
from maas.model.domain.text import ModelName, VersionName
from maas.model.domain.version import (
    ModelVersion,
    VersionNotFoundError,
    VersionRepository,
    VersionTakenError,
)
from maas.model.infrastructure.tables import blob_parts, blobs, model_versions, models
from maas.model.public import ModelId
from maas.shared.domain.call import current_call
from maas.shared.domain.ids import TenantId
from maas.shared.infrastructure.constraints import constraint_of
from maas.shared.infrastructure.unit_of_work import SqlUnitOfWork

_SIGNED_64 = 2**63


class SqlModelRepository:
    def __init__(self, session: AsyncSession, tenant_id: TenantId | None) -> None:
        self._session = session
        self._tenant_id = tenant_id

    async def get(self, model_id: ModelId) -> Model:
        model = await self._session.scalar(
            select(Model)
            .where(
                models.c.id == model_id,
                models.c.tenant_id == self._tenant_id,
                models.c.deleted_at.is_(None),
            )
            .with_for_update()
        )
        if model is None:
            raise ModelNotFoundError
        return model

    async def is_name_taken(self, name: ModelName) -> bool:
        found = await self._session.scalar(
            select(
                exists().where(
                    models.c.tenant_id == self._tenant_id,
                    models.c.name == name,
                    models.c.deleted_at.is_(None),
                )
            )
        )
        return bool(found)

    def add(self, model: Model) -> None:
        self._session.add(model)


class SqlVersionRepository:
    def __init__(self, session: AsyncSession, tenant_id: TenantId | None) -> None:
        self._session = session
        self._tenant_id = tenant_id

    async def get(self, model_id: ModelId, name: VersionName, *, lock: bool = True) -> ModelVersion:
        is_live = exists().where(
            models.c.id == model_id,
            models.c.tenant_id == self._tenant_id,
            models.c.deleted_at.is_(None),
        )
        statement = (
            select(ModelVersion)
            .where(
                model_versions.c.model_id == model_id,
                model_versions.c.tenant_id == self._tenant_id,
                model_versions.c.name == name,
                is_live,
            )
            .options(selectinload(ModelVersion.files))  # type: ignore[arg-type]  # mapped imperatively
        )
        if lock:
            statement = statement.with_for_update()
        version = await self._session.scalar(statement)
        if version is None:
            if not await self._session.scalar(select(is_live)):
                raise ModelNotFoundError
            raise VersionNotFoundError
        return version

    async def is_name_taken(self, model_id: ModelId, name: VersionName) -> bool:
        found = await self._session.scalar(
            select(
                exists().where(model_versions.c.model_id == model_id, model_versions.c.name == name)
            )
        )
        return bool(found)

    def add(self, version: ModelVersion) -> None:
        self._session.add(version)

    async def remove(self, version: ModelVersion) -> None:
        await self._session.delete(version)


class SqlBlobRepository:
    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def claim(self, upload_id: UUID) -> None:
        # The lock's key is the id's low half, the random one, as a signed number.
        key = (upload_id.int & (2 * _SIGNED_64 - 1)) - _SIGNED_64
        await self._session.execute(select(func.pg_advisory_xact_lock(key)))

    async def find(self, sha256: Digest) -> Blob | None:
        size = await self._session.scalar(select(blobs.c.size).where(blobs.c.sha256 == sha256))
        if size is None:
            return None
        rows = await self._session.execute(
            select(blob_parts.c.key, blob_parts.c.size, blob_parts.c.part_sha256)
            .where(blob_parts.c.sha256 == sha256)
            .order_by(blob_parts.c.index)
        )
        parts = tuple(Part(key=row.key, size=row.size, sha256=row.part_sha256) for row in rows)
        return Blob(sha256=sha256, size=size, parts=parts)

    async def keep(self, blob: Blob, *, at: datetime, instead_of: Blob | None = None) -> bool:
        # An update that changes nothing locks the row, where DO NOTHING would not even see it.
        statement = upsert(blobs).values(sha256=blob.sha256, size=blob.size, created_at=at)
        is_new = await self._session.scalar(
            statement.on_conflict_do_update(
                index_elements=[blobs.c.sha256], set_={"size": blobs.c.size}
            ).returning(literal_column("xmax = 0"))
        )
        if not is_new:
            if instead_of is None or not await self.holds(instead_of.parts[0].key):
                return False
            await self._session.execute(
                delete(blob_parts).where(blob_parts.c.sha256 == blob.sha256)
            )
        if blob.parts:
            await self._session.execute(
                insert(blob_parts),
                [
                    {
                        "sha256": blob.sha256,
                        "index": index,
                        "key": part.key,
                        "size": part.size,
                        "part_sha256": part.sha256,
                    }
                    for index, part in enumerate(blob.parts)
                ],
            )
        return True

    async def holds(self, key: str) -> bool:
        return bool(await self._session.scalar(select(exists().where(blob_parts.c.key == key))))


class SqlModelUnitOfWork(SqlUnitOfWork):
    models: ModelRepository
    versions: VersionRepository
    blobs: BlobRepository

    @override
    def _open(self) -> None:
        tenant_id = self._tenant_id or current_call().tenant_id
        self.models = SqlModelRepository(self.session, tenant_id)
        self.versions = SqlVersionRepository(self.session, tenant_id)
        self.blobs = SqlBlobRepository(self.session)

    @override
    async def commit(self, result: object = None) -> None:
        try:
            await super().commit(result)
        except IntegrityError as exc:
            raise _explain(exc) from exc


def _explain(exc: IntegrityError) -> Exception:
    """Turn the two constraints that a race can hit into what they mean."""
    match constraint_of(exc):
        case "uq_models_tenant_id_name":
            return ModelNameTakenError()
        case "uq_model_versions_model_id_name":
            return VersionTakenError()
        case _:
            return exc
