"""The registry's services over the real database and a local folder; the audit port is a fake."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from maas.audit.public import audit_scope
from maas.model.application.chunks import ChunkService
from maas.model.application.earlier_uploads import EarlierUploads
from maas.model.application.facts import FactsReader
from maas.model.application.files import FileService
from maas.model.application.ingestion import FileIngestion
from maas.model.application.known_digests import KnownDigests
from maas.model.application.models import ModelService
from maas.model.application.transfers import TransferSlots
from maas.model.application.upload_completion import Completion
from maas.model.application.uploads import UploadService
from maas.model.application.versions import VersionService
from maas.model.infrastructure.artifacts import PartedArtifactStore
from maas.model.infrastructure.bookings import PostgresStorageBookings
from maas.model.infrastructure.object_store import DurableObjects
from maas.model.infrastructure.part_stream import ObjectPartStream
from maas.model.infrastructure.queries import PostgresModelQueries
from maas.model.infrastructure.repositories import SqlModelUnitOfWork
from maas.model.infrastructure.upload_journal import PostgresUploadJournal
from maas.shared.domain.call import Call, serving
from maas.shared.domain.ids import AccountId, TenantId, new_id
from maas.shared.domain.principal import Principal
from maas.shared.infrastructure.clock import SystemClock
from maas.shared.infrastructure.database import Database
from maas.user.infrastructure.quota_budgets import PostgresBudgets
from maas.user.public import Payer
from tests.fakes.recorder import make_call

PART_BYTES = 64 * 1024
MAX_FILE_BYTES = 1024 * 1024


@dataclass
class FakeAudit:
    """Writes nothing; raises what it is told to, as a database that fails in the commit would."""

    error: BaseException | None = None

    def has_scope(self) -> bool:
        return True

    async def write(
        self,
        session: AsyncSession,  # noqa: ARG002  the port's
        call: Call,  # noqa: ARG002  the port's
    ) -> Callable[[], None]:
        if self.error is not None:
            raise self.error
        return lambda: None


class NoIdempotency:
    async def begin(self, session: AsyncSession, call: Call) -> None:
        """Take no key."""

    async def finish(self, session: AsyncSession, call: Call, result: object) -> None:
        """Keep no answer."""


@dataclass
class FakeMembers:
    """All are members but who has left; they may do what `rights` say."""

    left: set[AccountId] = field(default_factory=set)
    rights: frozenset[str] = frozenset({"model:read", "model:write"})

    async def is_active(
        self,
        tenant_id: TenantId,  # noqa: ARG002  the port's
        account_id: AccountId,
    ) -> bool:
        return account_id not in self.left

    async def find_principal(self, payer: Payer) -> Principal | None:
        if payer.account_id in self.left:
            return None
        return Principal(
            kind=payer.actor_kind,
            account_id=payer.account_id,
            tenant_id=payer.tenant_id,
            username="ada",
            permissions=self.rights,
            version=0,
            api_key_id=payer.api_key_id,
        )


@dataclass(kw_only=True)
class Registry:
    """The services, and what a test looks at or breaks."""

    database: Database
    folder: Path
    budgets: PostgresBudgets
    audit: FakeAudit = field(default_factory=FakeAudit)
    members: FakeMembers = field(default_factory=FakeMembers)
    unit_of_work: type[SqlModelUnitOfWork] = SqlModelUnitOfWork
    part_bytes: int = PART_BYTES
    transfers: TransferSlots = field(default_factory=TransferSlots)
    known: KnownDigests = field(default_factory=KnownDigests)

    def make_unit_of_work(self) -> SqlModelUnitOfWork:
        return self.unit_of_work(
            self.database.engine, audit=self.audit, idempotency=NoIdempotency()
        )

    @property
    def store(self) -> PartedArtifactStore:
        return PartedArtifactStore(DurableObjects(self.folder.as_uri()), part_bytes=self.part_bytes)

    @property
    def queries(self) -> PostgresModelQueries:
        return PostgresModelQueries(self.database)

    @property
    def models(self) -> ModelService:
        return ModelService(
            unit_of_work=self.make_unit_of_work, members=self.members, clock=SystemClock()
        )

    @property
    def versions(self) -> VersionService:
        return VersionService(unit_of_work=self.make_unit_of_work, clock=SystemClock())

    @property
    def files(self) -> FileService:
        return FileService(
            unit_of_work=self.make_unit_of_work,
            queries=self.queries,
            artifacts=self.store,
            ingestion=self.ingestion,
            budgets=self.budgets,
            bookings=self.bookings,
            transfers=self.transfers,
            clock=SystemClock(),
            max_file_bytes=MAX_FILE_BYTES,
        )

    @property
    def ingestion(self) -> FileIngestion:
        return FileIngestion(
            unit_of_work=self.make_unit_of_work,
            artifacts=self.store,
            facts=FactsReader(
                unit_of_work=self.make_unit_of_work,
                artifacts=self.store,
                max_unpacked_bytes=MAX_FILE_BYTES,
            ),
            members=self.members,
            clock=SystemClock(),
        )

    @property
    def bookings(self) -> PostgresStorageBookings:
        return PostgresStorageBookings(self.database)

    @property
    def journal(self) -> PostgresUploadJournal:
        return PostgresUploadJournal(self.database)

    @property
    def stream(self) -> ObjectPartStream:
        return ObjectPartStream(DurableObjects(self.folder.as_uri()), part_bytes=self.part_bytes)

    @property
    def completion(self) -> Completion:
        return Completion(
            journal=self.journal,
            stream=self.stream,
            digester=self.store,
            ingestion=self.ingestion,
            budgets=self.budgets,
            bookings=self.bookings,
            clock=SystemClock(),
        )

    @property
    def uploads(self) -> UploadService:
        return UploadService(
            unit_of_work=self.make_unit_of_work,
            journal=self.journal,
            stream=self.stream,
            completion=self.completion,
            chunks=self.chunks,
            earlier=EarlierUploads(
                unit_of_work=self.make_unit_of_work,
                stream=self.stream,
                budgets=self.budgets,
                bookings=self.bookings,
                clock=SystemClock(),
            ),
            clock=SystemClock(),
            max_file_bytes=MAX_FILE_BYTES,
        )

    @property
    def chunks(self) -> ChunkService:
        return ChunkService(
            journal=self.journal,
            stream=self.stream,
            completion=self.completion,
            transfers=self.transfers,
            clock=SystemClock(),
            part_bytes=self.part_bytes,
            known=self.known,
        )

    def stored(self) -> list[Path]:
        """List whatever is in the folder, empty folders included."""
        found = self.folder.rglob("*")
        return [path for path in found if path.is_file() or not any(path.iterdir())]


@asynccontextmanager
async def acting_as(principal: Principal) -> AsyncIterator[None]:
    """Serve a call of this principal, with an audit scope open."""
    call = make_call()
    call.act_as(principal)
    with serving(call):
        async with audit_scope("test.acted"):
            yield


def make_principal(tenant_id: TenantId | None = None) -> Principal:
    return Principal(
        kind="account",
        account_id=AccountId(new_id()),
        tenant_id=tenant_id or TenantId(new_id()),
        username="ada",
        permissions=frozenset({"model:*"}),
        version=1,
    )


@pytest.fixture
def principal() -> Principal:
    return make_principal()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "artifacts"


@pytest.fixture
async def registry(database: Database, folder: Path) -> AsyncIterator[Registry]:
    budgets = PostgresBudgets(database)
    yield Registry(database=database, folder=folder, budgets=budgets)
    await budgets.close()
