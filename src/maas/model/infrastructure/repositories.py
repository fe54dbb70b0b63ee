"""Loading and keeping the aggregates of the registry, and the transaction they share."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Table,
    Text,
    delete,
    exists,
    func,
    insert,
    or_,
    select,
    true,
    type_coerce,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import QueryableAttribute, selectinload
from typing_extensions import override

from maas.model.application.storage import ChargeRepository
from maas.model.application.upload_ports import UploadRepository
from maas.model.domain.alias import AliasRepository
from maas.model.domain.blob import BlobRepository
from maas.model.domain.facts import FactsRepository
from maas.model.domain.file import FilePath
from maas.model.domain.metadata import MetadataValue, is_same
from maas.model.domain.model import (
    MAX_GRANTS,
    Model,
    ModelGrantNotFoundError,
    ModelNameTakenError,
    ModelNotFoundError,
    ModelRepository,
    TooManyGrantsError,
)
from maas.model.domain.settings import ModelSettingsRepository
from maas.model.domain.text import Description, Label, ModelCard, ModelName, Tag, VersionName
from maas.model.domain.version import (
    ModelVersion,
    VersionNotFoundError,
    VersionRepository,
    VersionTakenError,
)
from maas.model.infrastructure.alias_repository import SqlAliasRepository
from maas.model.infrastructure.blob_repository import SqlBlobRepository
from maas.model.infrastructure.charges import SqlChargeRepository
from maas.model.infrastructure.collection_tables import purged_models
from maas.model.infrastructure.fact_repository import VERSION_FACTS, SqlFactsRepository, facts_of
from maas.model.infrastructure.settings_repository import SqlModelSettingsRepository
from maas.model.infrastructure.tables import (
    model_grants,
    model_metadata,
    model_tags,
    model_versions,
    models,
    version_files,
    version_metadata,
    version_metrics,
    version_transitions,
)
from maas.model.infrastructure.upload_repository import SqlUploadRepository
from maas.model.infrastructure.visibility import is_readable, is_seen
from maas.model.public import ModelId
from maas.shared.domain.call import current_call
from maas.shared.domain.grants import Grant
from maas.shared.domain.ids import TenantId
from maas.shared.domain.principal import Principal
from maas.shared.infrastructure.constraints import constraint_of
from maas.shared.infrastructure.grants import SqlGrants
from maas.shared.infrastructure.unit_of_work import SqlUnitOfWork

_TAGS = (
    select(func.array_agg(model_tags.c.tag))
    .where(model_tags.c.model_id == models.c.id, model_tags.c.tenant_id == models.c.tenant_id)
    .scalar_subquery()
)


def _entries(table: Table, owners: Table) -> ColumnElement[dict[str, Any] | None]:
    """Gather the rows of a table of keys and values that belong to a model or version."""
    owner, key = table.primary_key.columns
    return (
        select(func.jsonb_object_agg(key, table.c.value, type_=JSONB))
        .where(owner == owners.c.id, table.c.tenant_id == owners.c.tenant_id)
        .scalar_subquery()
    )


def _is_near(path: FilePath) -> ColumnElement[bool]:
    """Tell which files one under this path would replace, or could not lie beside."""
    other = version_files.c.path
    is_below = func.starts_with(type_coerce(other, Text), f"{path}/")
    return or_(other.in_([path, *path.folders]), is_below)


_MODEL_METADATA = _entries(model_metadata, models)
_VERSION_METADATA = _entries(version_metadata, model_versions)
_VERSION_METRICS = _entries(version_metrics, model_versions)
_FILES: QueryableAttribute[Any] = vars(ModelVersion)["files"]

_TEXTS = (ModelName, Description, Label, ModelCard)
_MODEL_COLUMNS = models.columns.keys()
# In the driver's own spelling: the session's way to the same row costs three times as much.
_INSERT_MODEL = (
    f"INSERT INTO models ({', '.join(_MODEL_COLUMNS)}) "  # noqa: S608  no input in it
    f"VALUES ({', '.join(f'${number}' for number in range(1, len(_MODEL_COLUMNS) + 1))})"
)


class SqlModelRepository:
    """What lies in tables beside the model's own is read after it, and written by `write`."""

    def __init__(
        self, session: AsyncSession, tenant_id: TenantId | None, principal: Principal | None
    ) -> None:
        self._session = session
        self._tenant_id = tenant_id
        self._grants = SqlGrants(session, model_grants.c.model_id, tenant_id)
        self._principal = principal
        self._new: list[Model] = []
        self._before: dict[Model, tuple[set[Tag], dict[str, MetadataValue]]] = {}

    async def get(self, model_id: ModelId, *, deleted: bool = False) -> Model:
        found = await self._session.execute(
            select(Model)
            .where(
                models.c.id == model_id,
                models.c.tenant_id == self._tenant_id,
                true() if deleted else models.c.deleted_at.is_(None),
                is_seen(self._principal),
            )
            .with_for_update(key_share=True)
        )
        model: Model | None = found.scalar_one_or_none()
        if model is None or (deleted and await self._is_purged(model_id)):
            raise ModelNotFoundError
        if model not in self._before:
            # A statement of its own: the one that waits for the lock sees other tables as they
            # were before it waited.
            beside = await self._session.execute(
                select(_TAGS, _MODEL_METADATA).select_from(models).where(models.c.id == model_id)
            )
            tags, entries = beside.one()
            model.tags, model.metadata = set(tags or ()), dict(entries or {})
            self._before[model] = set(model.tags), dict(model.metadata)
        return model

    async def _is_purged(self, model_id: ModelId) -> bool:
        # A statement of its own: the collection held the row's lock until this could be seen.
        statement = select(exists().where(purged_models.c.model_id == model_id))
        return bool(await self._session.scalar(statement))

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
        self._new.append(model)
        self._before[model] = set(), {}

    async def grant(self, model_id: ModelId, grant: Grant) -> tuple[Grant, bool]:
        return await self._grants.add(
            model_id, grant, at_most=MAX_GRANTS, too_many=TooManyGrantsError
        )

    async def revoke(self, model_id: ModelId, grantee_id: TenantId) -> None:
        if not await self._grants.remove(model_id, grantee_id):
            raise ModelGrantNotFoundError

    async def insert(self) -> None:
        """Write the rows of new models; what refers to them comes after."""
        if not self._new:
            return
        rows = [_row_of(model) for model in self._new]
        self._new.clear()
        connection = await self._session.connection()
        await connection.exec_driver_sql(_INSERT_MODEL, rows[0] if len(rows) == 1 else rows)

    async def write(self) -> None:
        """Write what changed beside the models' own rows, which are written before."""
        for model, (tags, entries) in self._before.items():
            owner = {"model_id": model.id, "tenant_id": model.tenant_id}
            await _write(
                self._session,
                model_tags,
                owner,
                dict.fromkeys(tags),
                dict.fromkeys(model.tags),
            )
            await _write(self._session, model_metadata, owner, entries, model.metadata)


class SqlVersionRepository:
    """What lies in tables beside the version's own is read after it, and written by `write`."""

    def __init__(
        self, session: AsyncSession, tenant_id: TenantId | None, principal: Principal | None
    ) -> None:
        self._session = session
        self._tenant_id = tenant_id
        self._principal = principal
        self._before: dict[ModelVersion, tuple[dict[str, MetadataValue], dict[str, float]]] = {}

    async def get(
        self,
        model_id: ModelId,
        name: VersionName,
        *,
        lock: bool = True,
        near: FilePath | None = None,
    ) -> ModelVersion:
        is_live = exists().where(
            models.c.id == model_id,
            models.c.tenant_id == self._tenant_id,
            models.c.deleted_at.is_(None),
            is_seen(self._principal),
        )
        statement = (
            select(ModelVersion)
            .where(
                model_versions.c.model_id == model_id,
                model_versions.c.tenant_id == self._tenant_id,
                model_versions.c.name == name,
                is_live,
            )
            .options(selectinload(_FILES if near is None else _FILES.and_(_is_near(near))))
        )
        if lock:
            statement = statement.with_for_update(key_share=True)
        version = (await self._session.execute(statement)).scalar_one_or_none()
        if version is None:
            if not await self._session.scalar(select(is_live)):
                raise ModelNotFoundError
            raise VersionNotFoundError
        if version not in self._before:
            # A statement of its own, as for models; the model may have gone meanwhile as well.
            beside = await self._session.execute(
                select(_VERSION_METADATA, _VERSION_METRICS, VERSION_FACTS)
                .select_from(model_versions)
                .where(model_versions.c.id == version.id, is_live)
            )
            row = beside.one_or_none()
            if row is None:
                raise ModelNotFoundError
            entries, metrics, facts = row
            version.metadata = dict(entries or {})
            # A whole number comes back from JSON as one.
            version.metrics = {key: float(value) for key, value in (metrics or {}).items()}
            version.facts = facts_of(facts)
            version.transitions = []
            self._before[version] = dict(version.metadata), dict(version.metrics)
        return version

    async def is_readable(self, model_id: ModelId, name: VersionName) -> bool:
        found = await self._session.scalar(
            select(
                exists().where(
                    models.c.id == model_id,
                    models.c.deleted_at.is_(None),
                    is_readable(self._tenant_id, self._principal),
                    model_versions.c.model_id == models.c.id,
                    model_versions.c.tenant_id == models.c.tenant_id,
                    model_versions.c.name == name,
                )
            )
        )
        return bool(found)

    def add(self, version: ModelVersion) -> None:
        self._session.add(version)
        self._before[version] = {}, {}

    async def remove(self, version: ModelVersion) -> None:
        await self._session.delete(version)
        del self._before[version]

    async def write(self) -> None:
        """Write what changed beside the versions' own rows, which are written before."""
        for version, (entries, metrics) in self._before.items():
            owner = {"version_id": version.id, "tenant_id": version.tenant_id}
            await _write(self._session, version_metadata, owner, entries, version.metadata)
            await _write(self._session, version_metrics, owner, metrics, version.metrics)
            if version.transitions:
                await self._session.execute(
                    insert(version_transitions),
                    [
                        {
                            **owner,
                            "revision": step.revision,
                            "from_status": step.from_status,
                            "to_status": step.to_status,
                            "reason": step.reason,
                            "by": step.by,
                            "at": step.at,
                        }
                        for step in version.transitions
                    ],
                )


async def _write(
    session: AsyncSession,
    table: Table,
    owner: Mapping[str, object],
    before: Mapping[Any, object],
    after: Mapping[Any, object],
) -> None:
    """Make the owner's rows those of `after`; what is the same is left alone."""
    owner_column, key = table.primary_key.columns
    gone = [name for name in before if not _holds(after, name, before[name])]
    come = [name for name in after if not _holds(before, name, after[name])]
    if gone:
        await session.execute(
            delete(table).where(owner_column == owner[owner_column.name], key.in_(gone))
        )
    if come:
        # A tag is all there is to it; the others have a value.
        await session.execute(
            insert(table),
            [{**owner, key.name: name, **_value(after[name])} for name in come],
        )


def _row_of(model: Model) -> tuple[object, ...]:
    values = (getattr(model, column) for column in _MODEL_COLUMNS)
    return tuple(value.value if isinstance(value, _TEXTS) else value for value in values)


def _value(value: object) -> dict[str, object]:
    return {} if value is None else {"value": value}


def _holds(entries: Mapping[Any, object], name: object, value: object) -> bool:
    return name in entries and is_same(entries[name], value)


class SqlModelUnitOfWork(SqlUnitOfWork):
    models: ModelRepository
    versions: VersionRepository
    blobs: BlobRepository
    aliases: AliasRepository
    uploads: UploadRepository
    charges: ChargeRepository
    facts: FactsRepository
    settings: ModelSettingsRepository

    @override
    def _open(self) -> None:
        tenant_id = self._tenant_id or current_call().tenant_id
        principal = current_call().principal
        self._models = SqlModelRepository(self.session, tenant_id, principal)
        self._versions = SqlVersionRepository(self.session, tenant_id, principal)
        self.models = self._models
        self.versions = self._versions
        self.blobs = SqlBlobRepository(self.session)
        self.aliases = SqlAliasRepository(self.session, tenant_id)
        self.uploads = SqlUploadRepository(self.session)
        self.charges = SqlChargeRepository(self.session)
        self.facts = SqlFactsRepository(self.session, tenant_id)
        self.settings = SqlModelSettingsRepository(self.session, tenant_id)

    @override
    async def commit(self, result: object = None) -> None:
        try:
            await self._models.insert()
            await self.session.flush()
            await self._models.write()
            await self._versions.write()
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
