"""Files of versions: taken in, given out, removed; no transaction is open while bytes flow."""

from collections.abc import AsyncGenerator, AsyncIterable, Callable
from contextlib import aclosing
from dataclasses import dataclass

from maas.audit.public import current_scope
from maas.model.application.facts import keep_facts
from maas.model.application.finishing import finish
from maas.model.application.ingestion import (
    FileIngestion,
    PendingFile,
    TakenFile,
    file_id,
    file_trail,
)
from maas.model.application.ports import (
    ArtifactStore,
    CheckDigest,
    FileTooLargeError,
    ModelUnitOfWork,
)
from maas.model.application.queries import ModelQueries, StoredFile
from maas.model.application.storage import STEP_BYTES, StorageBookings, StorageReservation
from maas.model.application.trail import MODEL_FILE
from maas.model.application.transfers import TransferSlots
from maas.model.domain.blob import Digest, Upload
from maas.model.domain.file import FilePath
from maas.model.domain.formats import refusing_pickle
from maas.model.domain.text import VersionName
from maas.model.domain.version import VersionFileNotFoundError
from maas.model.public import ModelId
from maas.shared.domain.clock import Clock
from maas.shared.domain.principal import Principal
from maas.user.public import Budgets, Payer


@dataclass(frozen=True, slots=True, kw_only=True)
class IncomingFile:
    """A file on its way in; `size` in bytes and `digests` are what the sender announced.

    `check` judges the digest of the file it would replace, `None` where there is none.
    """

    path: FilePath
    media_type: str
    size: int | None
    digests: frozenset[Digest]
    body: AsyncIterable[bytes]
    check: CheckDigest


@dataclass(frozen=True, slots=True, kw_only=True)
class FileService:
    unit_of_work: Callable[[], ModelUnitOfWork]
    queries: ModelQueries
    artifacts: ArtifactStore
    ingestion: FileIngestion
    budgets: Budgets
    bookings: StorageBookings
    transfers: TransferSlots
    clock: Clock
    max_file_bytes: int

    async def take(
        self, principal: Principal, model_id: ModelId, version: VersionName, incoming: IncomingFile
    ) -> TakenFile:
        """Store a file under its path, new or instead of the one there; all of it or nothing.

        Raises:
            ModelNotFoundError, VersionNotFoundError, VersionFrozenError, TooManyFilesError,
                FilePathConflictError, PreconditionFailedError: before the body is read, and again
                at the end, if it became so meanwhile.
            FileTooLargeError: before the body is read, if its size was announced.
            DigestMismatchError, BodyCutOffError, PickleRefusedError, LyingHeaderError,
                ArchiveRefusedError: the body will not do.
            SenderRefusedError: the caller may not write files any more, by the end of the body.
            TooManyOwnTransfersError: the caller has too many files on their way.
            QuotaExceededError: the caller's storage does not cover it; of an announced size, that
                is found before the body is read.
            StorageFullError, UnavailableError: the store or the quotas will not take it.
        """
        if incoming.size is not None and incoming.size > self.max_file_bytes:
            raise FileTooLargeError(self.max_file_bytes)
        async with self.unit_of_work() as uow:
            current = await uow.versions.get(model_id, version, lock=False, near=incoming.path)
            current_scope().resource(MODEL_FILE, file_id(current.id, incoming.path))
            current.check_open(incoming.path)
            incoming.check(current.find_digest(incoming.path))
        reservation = StorageReservation(
            budgets=self.budgets,
            bookings=self.bookings,
            clock=self.clock,
            payer=Payer.of(principal),
        )
        try:
            upload = await self._receive(incoming, reservation)
        except BaseException:
            # Whoever hangs up cancels this, and what is held goes back then as well.
            await finish(reservation.release())
            raise
        pending = PendingFile(
            model_id=model_id,
            version=version,
            path=incoming.path,
            size=incoming.size,
            media_type=incoming.media_type,
            digests=incoming.digests,
            check=incoming.check,
            upload=upload,
            reservation=reservation,
        )
        try:
            return await self.ingestion.ingest(pending)
        except BaseException:
            # Cancelled or refused, it is no file, and nothing of it may stay.
            await finish(self.ingestion.withdraw(pending))
            raise

    async def _receive(self, incoming: IncomingFile, reservation: StorageReservation) -> Upload:
        """Store the body, with room for it; an announced size is covered before the first byte."""
        with self.transfers.holding(reservation.payer.account_id):
            if incoming.size is None:
                await reservation.cover(1, step=STEP_BYTES)
            else:
                await reservation.cover(incoming.size)
            return await self.artifacts.receive(
                refusing_pickle(
                    reservation.fill(incoming.body, announced=incoming.size),
                    unless=self.ingestion.facts.allows_pickle,
                ),
                limit_bytes=self.max_file_bytes if incoming.size is None else incoming.size,
            )

    async def remove(
        self, model_id: ModelId, version: VersionName, path: FilePath, *, check: CheckDigest
    ) -> None:
        """Take a file out of a version that is still open; its bytes are freed later.

        Raises:
            ModelNotFoundError, VersionNotFoundError, VersionFileNotFoundError, VersionFrozenError,
                PreconditionFailedError.
        """
        async with self.unit_of_work() as uow:
            current = await uow.versions.get(model_id, version, near=path)
            current_scope().resource(MODEL_FILE, file_id(current.id, path))
            file = current.files.get(path)
            if file is None:
                raise VersionFileNotFoundError
            before = file_trail(file)
            check(current.remove_file(path, at=self.clock.now()))
            await keep_facts(uow, current, path, None)
            current_scope().change(MODEL_FILE, file_id(current.id, path), before=before)
            await uow.commit()

    async def find_stored(
        self, principal: Principal, model_id: ModelId, version: VersionName, path: FilePath
    ) -> StoredFile:
        """Look up a file to be read, and note in the trail which one it is.

        Raises:
            ModelNotFoundError, VersionNotFoundError, VersionFileNotFoundError.
        """
        stored = await self.queries.get_file(principal, model_id, version, path)
        current_scope().resource(MODEL_FILE, file_id(stored.version_id, path))
        return stored

    async def read(
        self, principal: Principal, stored: StoredFile, *, start: int, stop: int
    ) -> AsyncGenerator[bytes, None]:
        """Give the bytes from `start` up to `stop`, checked before they leave.

        Raises:
            TooManyOwnTransfersError: the caller has too many files on their way.
            CorruptBlobError, UnavailableError: the store does not give what it was given.
        """
        with self.transfers.holding(principal.account_id):
            async with aclosing(self.artifacts.read(stored.blob, start=start, stop=stop)) as chunks:
                async for chunk in chunks:
                    yield chunk
