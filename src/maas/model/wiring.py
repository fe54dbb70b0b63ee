"""Builds the registry from resources."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

from maas.model.application.aliases import AliasService
from maas.model.application.chunks import ChunkService
from maas.model.application.collection import Collected, CollectionService
from maas.model.application.digesting import DigestService
from maas.model.application.earlier_uploads import EarlierUploads
from maas.model.application.facts import FactsReader
from maas.model.application.files import FileService
from maas.model.application.ingestion import FileIngestion
from maas.model.application.models import ModelService
from maas.model.application.ports import ModelUnitOfWork
from maas.model.application.provider_checks import ProviderCheckService, SupplierCheck
from maas.model.application.provider_models import ProviderModelService
from maas.model.application.provider_ports import ProviderUnitOfWork
from maas.model.application.provider_watch import WatchService
from maas.model.application.providers import ProviderService
from maas.model.application.settings import ModelSettingsService
from maas.model.application.transfers import TransferSlots
from maas.model.application.upload_completion import Completion
from maas.model.application.uploads import UploadService
from maas.model.application.versions import VersionService
from maas.model.infrastructure.alias_queries import PostgresAliasQueries
from maas.model.infrastructure.artifacts import (
    CollectableParts,
    PartedArtifactStore,
    open_objects,
)
from maas.model.infrastructure.bookings import PostgresStorageBookings
from maas.model.infrastructure.collection import EventWriter, open_ledger
from maas.model.infrastructure.provider_added import PostgresAddedModels
from maas.model.infrastructure.provider_calls import OutgoingSupplierCalls
from maas.model.infrastructure.provider_credentials import SealedCredentials
from maas.model.infrastructure.provider_model_queries import PostgresProviderModelQueries
from maas.model.infrastructure.provider_queries import (
    PostgresProviderQueries,
    PostgresSupplierAccounts,
)
from maas.model.infrastructure.provider_repository import SqlProviderUnitOfWork
from maas.model.infrastructure.provider_targets import SupplierTargets
from maas.model.infrastructure.provider_watch import open_watch
from maas.model.infrastructure.queries import PostgresModelQueries
from maas.model.infrastructure.repositories import SqlModelUnitOfWork
from maas.model.infrastructure.search import PostgresRegistrySearch
from maas.model.infrastructure.served_versions import PostgresServedVersions
from maas.model.infrastructure.supplied_models import PostgresSuppliedModels
from maas.model.infrastructure.upload_journal import PostgresUploadJournal
from maas.model.infrastructure.verifying import PostgresVerifyingUploads
from maas.model.infrastructure.weights import PostgresVersionWeights
from maas.model.public import ServedVersions, SuppliedModels
from maas.shared.domain.call import EventRecorder
from maas.shared.domain.clock import Clock
from maas.shared.infrastructure.database import Database
from maas.shared.infrastructure.outgoing_clients import ClientsByReach
from maas.shared.infrastructure.sealing import Sealer
from maas.shared.infrastructure.sealing_keys import build_sealer
from maas.shared.infrastructure.settings import (
    DEFAULT_DATA_DIR,
    OutgoingSettings,
    Settings,
    StorageSettings,
)
from maas.shared.infrastructure.unit_of_work import AuditPort, IdempotencyPort
from maas.user.public import Budgets, Members

WATCH_SECONDS: Final = 20.0
"""After so long no supplier is asked any more; who was asked last may take 15 seconds."""

COLLECT_SECONDS: Final = 25.0
"""After so long nothing new is begun; a task has 43 seconds, and a slow store its share of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelContext:
    """The wired registry; `state` is what its routes find on `request.state`."""

    models: ModelService
    versions: VersionService
    files: FileService
    served: ServedVersions
    state: Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderContext:
    """The wired suppliers; `state` is what their routes find on `request.state`."""

    supplied: SuppliedModels
    state: Mapping[str, object]
    close: Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Intake:
    """What takes files in: shared by the routes, and by what digests uploads beside the worker."""

    unit_of_work: Callable[[], ModelUnitOfWork]
    artifacts: PartedArtifactStore
    ingestion: FileIngestion
    bookings: PostgresStorageBookings
    journal: PostgresUploadJournal
    completion: Completion


def build_model(
    *,
    database: Database,
    audit: AuditPort,
    idempotency: IdempotencyPort,
    clock: Clock,
    budgets: Budgets,
    members: Members,
    storage: StorageSettings,
    data_dir: Path,
) -> ModelContext:
    intake = _build_intake(
        database=database,
        audit=audit,
        idempotency=idempotency,
        clock=clock,
        budgets=budgets,
        members=members,
        storage=storage,
        data_dir=data_dir,
    )
    unit_of_work = intake.unit_of_work
    queries, transfers = PostgresModelQueries(database), TransferSlots()
    models = ModelService(unit_of_work=unit_of_work, members=members, clock=clock)
    versions = VersionService(unit_of_work=unit_of_work, clock=clock)
    files = FileService(
        unit_of_work=unit_of_work,
        queries=queries,
        artifacts=intake.artifacts,
        ingestion=intake.ingestion,
        budgets=budgets,
        bookings=intake.bookings,
        transfers=transfers,
        clock=clock,
        max_file_bytes=storage.max_file_bytes,
    )
    chunks = ChunkService(
        journal=intake.journal,
        stream=intake.artifacts.stream,
        completion=intake.completion,
        transfers=transfers,
        clock=clock,
        part_bytes=storage.part_bytes,
    )
    uploads = UploadService(
        unit_of_work=unit_of_work,
        journal=intake.journal,
        stream=intake.artifacts.stream,
        completion=intake.completion,
        chunks=chunks,
        earlier=EarlierUploads(
            unit_of_work=unit_of_work,
            stream=intake.artifacts.stream,
            budgets=budgets,
            bookings=intake.bookings,
            clock=clock,
        ),
        clock=clock,
        max_file_bytes=storage.max_file_bytes,
    )
    return ModelContext(
        models=models,
        versions=versions,
        files=files,
        served=PostgresServedVersions(database),
        state={
            "models": models,
            "model_search": PostgresRegistrySearch(database),
            "model_aliases": AliasService(unit_of_work=unit_of_work),
            "model_alias_queries": PostgresAliasQueries(database),
            "model_versions": versions,
            "model_files": files,
            "model_uploads": uploads,
            "model_upload_chunks": chunks,
            "model_queries": queries,
            "model_settings": ModelSettingsService(unit_of_work=unit_of_work, clock=clock),
        },
    )


def build_digests(
    *,
    database: Database,
    audit: AuditPort,
    idempotency: IdempotencyPort,
    clock: Clock,
    budgets: Budgets,
    members: Members,
    recorder: EventRecorder,
    settings: Settings,
) -> DigestService:
    """Build what makes files of uploads whose bytes did not come in order."""
    intake = _build_intake(
        database=database,
        audit=audit,
        idempotency=idempotency,
        clock=clock,
        budgets=budgets,
        members=members,
        storage=settings.storage,
        data_dir=settings.data_dir or DEFAULT_DATA_DIR,
    )
    return DigestService(
        verifying=PostgresVerifyingUploads(settings.database),
        journal=intake.journal,
        digester=intake.artifacts,
        completion=intake.completion,
        recorder=recorder,
        clock=clock,
    )


def _build_intake(
    *,
    database: Database,
    audit: AuditPort,
    idempotency: IdempotencyPort,
    clock: Clock,
    budgets: Budgets,
    members: Members,
    storage: StorageSettings,
    data_dir: Path,
) -> _Intake:
    def unit_of_work() -> ModelUnitOfWork:
        return SqlModelUnitOfWork(database.engine, audit=audit, idempotency=idempotency)

    objects = open_objects(storage, data_dir)
    artifacts = PartedArtifactStore(objects, part_bytes=storage.part_bytes)
    facts = FactsReader(
        unit_of_work=unit_of_work, artifacts=artifacts, max_unpacked_bytes=storage.max_file_bytes
    )
    ingestion = FileIngestion(
        unit_of_work=unit_of_work, artifacts=artifacts, facts=facts, members=members, clock=clock
    )
    bookings, journal = PostgresStorageBookings(database), PostgresUploadJournal(database)
    completion = Completion(
        journal=journal,
        stream=artifacts.stream,
        digester=artifacts,
        ingestion=ingestion,
        budgets=budgets,
        bookings=bookings,
        clock=clock,
    )
    return _Intake(
        unit_of_work=unit_of_work,
        artifacts=artifacts,
        ingestion=ingestion,
        bookings=bookings,
        journal=journal,
        completion=completion,
    )


def build_providers(
    *,
    database: Database,
    audit: AuditPort,
    idempotency: IdempotencyPort,
    clock: Clock,
    sealer: Sealer,
    outgoing: OutgoingSettings,
) -> ProviderContext:
    """Build suppliers; nothing connects before one is asked something."""

    def unit_of_work() -> ProviderUnitOfWork:
        return SqlProviderUnitOfWork(database.engine, audit=audit, idempotency=idempotency)

    seals, clients = SealedCredentials(sealer), ClientsByReach.of(outgoing)
    providers = ProviderService(
        unit_of_work=unit_of_work,
        check_target=SupplierTargets(outgoing),
        seals=seals,
        clock=clock,
    )
    checks = ProviderCheckService(
        accounts=PostgresSupplierAccounts(database, seals),
        added=PostgresAddedModels(database),
        check=SupplierCheck(calls=OutgoingSupplierCalls(clients)),
        unit_of_work=unit_of_work,
    )
    return ProviderContext(
        supplied=PostgresSuppliedModels(database, seals),
        state={
            "providers": providers,
            "provider_queries": PostgresProviderQueries(database),
            "provider_models": ProviderModelService(unit_of_work=unit_of_work, clock=clock),
            "provider_model_queries": PostgresProviderModelQueries(database),
            "provider_checks": checks,
        },
        close=clients.close,
    )


def build_weights(settings: Settings) -> PostgresVersionWeights:
    """Build what a runtime reads versions with; nothing connects before the first one."""
    objects = open_objects(settings.storage, settings.data_dir or DEFAULT_DATA_DIR)
    artifacts = PartedArtifactStore(objects, part_bytes=settings.storage.part_bytes)
    return PostgresVersionWeights(settings.database, artifacts)


async def collect(settings: Settings, *, events: EventWriter, clock: Clock) -> Collected | None:
    """Free what is due in the artifact store; `None` while another process is at it.

    Raises:
        ArtifactStoreUnavailableError: the store does not answer.
    """
    storage = settings.storage
    objects = open_objects(storage, settings.data_dir or DEFAULT_DATA_DIR)
    try:
        async with open_ledger(settings.database, events=events) as ledger:
            if ledger is None:
                return None
            collection = CollectionService(
                ledger=ledger,
                parts=CollectableParts(objects),
                clock=clock,
                unused_grace=timedelta(minutes=storage.unused_grace_minutes),
                keep_deleted=timedelta(days=storage.keep_deleted_days),
            )
            return await collection.run(seconds=COLLECT_SECONDS)
    finally:
        objects.threads.shutdown(wait=False)


async def watch_providers(settings: Settings, *, events: EventWriter, clock: Clock) -> int:
    """Ask suppliers whether they answer, and tell how many; none while another process is at it."""
    seals = SealedCredentials(build_sealer(settings))
    async with open_watch(settings.database, seals=seals, events=events) as ledger:
        if ledger is None:
            return 0
        clients = ClientsByReach.of(settings.outgoing)
        try:
            watch = WatchService(
                ledger=ledger,
                check=SupplierCheck(calls=OutgoingSupplierCalls(clients)),
                clock=clock,
                interval=timedelta(seconds=settings.suppliers.check_seconds),
            )
            return await watch.run(seconds=WATCH_SECONDS)
        finally:
            await clients.close()
