"""Builds the registry from resources."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from maas.model.application.files import FileService
from maas.model.application.models import ModelService
from maas.model.application.ports import ModelUnitOfWork
from maas.model.application.transfers import TransferSlots
from maas.model.application.versions import VersionService
from maas.model.infrastructure.artifacts import PartedArtifactStore, storage_url
from maas.model.infrastructure.object_store import DurableObjects
from maas.model.infrastructure.queries import PostgresModelQueries
from maas.model.infrastructure.repositories import SqlModelUnitOfWork
from maas.shared.domain.clock import Clock
from maas.shared.infrastructure.database import Database
from maas.shared.infrastructure.settings import StorageSettings
from maas.shared.infrastructure.unit_of_work import AuditPort, IdempotencyPort


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelContext:
    """The wired registry; `state` is what its routes find on `request.state`."""

    models: ModelService
    versions: VersionService
    files: FileService
    state: Mapping[str, object]


def build_model(
    *,
    database: Database,
    audit: AuditPort,
    idempotency: IdempotencyPort,
    clock: Clock,
    storage: StorageSettings,
    data_dir: Path,
) -> ModelContext:
    def unit_of_work() -> ModelUnitOfWork:
        return SqlModelUnitOfWork(database.engine, audit=audit, idempotency=idempotency)

    queries = PostgresModelQueries(database)
    models = ModelService(unit_of_work=unit_of_work, clock=clock)
    versions = VersionService(unit_of_work=unit_of_work, clock=clock)
    files = FileService(
        unit_of_work=unit_of_work,
        queries=queries,
        artifacts=PartedArtifactStore(
            DurableObjects(storage_url(storage, data_dir)), part_bytes=storage.part_bytes
        ),
        transfers=TransferSlots(),
        clock=clock,
        max_file_bytes=storage.max_file_bytes,
    )
    return ModelContext(
        models=models,
        versions=versions,
        files=files,
        state={
            "models": models,
            "model_versions": versions,
            "model_files": files,
            "model_queries": queries,
        },
    )
