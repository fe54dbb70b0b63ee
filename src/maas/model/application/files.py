"""Files of versions: taken in, given out, removed; no transaction is open while bytes flow."""

from collections.abc import AsyncGenerator, AsyncIterable, Callable
from contextlib import aclosing
from dataclasses import dataclass

import structlog

from maas.audit.public import ChangeValue, current_scope
from maas.model.application.finishing import finish
from maas.model.application.ports import (
    ArtifactStore,
    BodyCutOffError,
    CheckDigest,
    FileTooLargeError,
    ModelUnitOfWork,
)
from maas.model.application.queries import FileDetails, ModelQueries, StoredFile
from maas.model.application.trail import MODEL_FILE
from maas.model.application.transfers import TransferSlots
from maas.model.domain.blob import Blob, Digest, DigestMismatchError, Upload
from maas.model.domain.file import FilePath, VersionFile
from maas.model.domain.formats import refusing_pickle
from maas.model.domain.text import VersionName
from maas.model.domain.version import VersionFileNotFoundError
from maas.model.public import ModelId, VersionId
from maas.shared.domain.clock import Clock
from maas.shared.domain.principal import Principal

_log = structlog.get_logger(__name__)


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
class TakenFile:
    """A file that was taken in, and whether its path was new."""

    file: FileDetails
    is_new: bool


@dataclass(slots=True, kw_only=True)
class _Arrival:
    """A file whose bytes are stored, on its way into a version."""

    principal: Principal
    model_id: ModelId
    version: VersionName
    incoming: IncomingFile
    upload: Upload
    lost: Blob | None = None
    is_commit_tried: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class FileService:
    unit_of_work: Callable[[], ModelUnitOfWork]
    queries: ModelQueries
    artifacts: ArtifactStore
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
            DigestMismatchError, BodyCutOffError, PickleRefusedError: the body will not do.
            TooManyOwnTransfersError: the caller has too many files on their way.
            StorageFullError, UnavailableError: the store will not take it.
        """
        if incoming.size is not None and incoming.size > self.max_file_bytes:
            raise FileTooLargeError(self.max_file_bytes)
        async with self.unit_of_work() as uow:
            current = await uow.versions.get(model_id, version, lock=False)
            current_scope().resource(MODEL_FILE, _file_id(current.id, incoming.path))
            current.check_open(incoming.path)
            incoming.check(current.find_digest(incoming.path))
        with self.transfers.holding(principal.account_id):
            upload = await self.artifacts.receive(
                refusing_pickle(incoming.body),
                limit_bytes=self.max_file_bytes if incoming.size is None else incoming.size,
            )
        arrival = _Arrival(
            principal=principal,
            model_id=model_id,
            version=version,
            incoming=incoming,
            upload=upload,
        )
        try:
            _check_arrival(incoming, upload)
            arrival.lost = await self._find_lost(upload.blob)
            taken, is_kept = await self._refer(arrival)
        except BaseException:
            await finish(self._withdraw(arrival))
            raise
        unused = arrival.lost if is_kept else upload.blob
        if unused is not None:
            await finish(self.artifacts.discard(unused))
        return taken

    async def remove(
        self, model_id: ModelId, version: VersionName, path: FilePath, *, check: CheckDigest
    ) -> None:
        """Take a file out of a version that is still open; its bytes stay in the store.

        Raises:
            ModelNotFoundError, VersionNotFoundError, VersionFileNotFoundError, VersionFrozenError,
                PreconditionFailedError.
        """
        async with self.unit_of_work() as uow:
            current = await uow.versions.get(model_id, version)
            current_scope().resource(MODEL_FILE, _file_id(current.id, path))
            file = current.files.get(path)
            if file is None:
                raise VersionFileNotFoundError
            before = _trail(file)
            check(current.remove_file(path, at=self.clock.now()))
            current_scope().change(MODEL_FILE, _file_id(current.id, path), before=before)
            await uow.commit()

    async def find_stored(
        self, principal: Principal, model_id: ModelId, version: VersionName, path: FilePath
    ) -> StoredFile:
        """Look up a file to be read, and note in the trail which one it is.

        Raises:
            ModelNotFoundError, VersionNotFoundError, VersionFileNotFoundError.
        """
        stored = await self.queries.get_file(principal.tenant_id, model_id, version, path)
        current_scope().resource(MODEL_FILE, _file_id(stored.version_id, path))
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

    async def _find_lost(self, blob: Blob) -> Blob | None:
        """Look up what is kept of these bytes, if the store has not all of it any more.

        Its rows are then to be replaced, which mends every file of the same bytes.
        """
        async with self.unit_of_work() as uow:
            kept = await uow.blobs.find(blob.sha256)
        if kept is None or await self.artifacts.has_all(kept):
            return None
        _log.warning("blob_parts_lost", sha256=str(kept.sha256))
        return kept

    async def _refer(self, arrival: _Arrival) -> tuple[TakenFile, bool]:
        """Let the version refer to the upload; tell also whether its parts are the ones kept."""
        now, incoming, blob = self.clock.now(), arrival.incoming, arrival.upload.blob
        async with self.unit_of_work() as uow:
            await uow.blobs.claim(arrival.upload.id)
            current = await uow.versions.get(arrival.model_id, arrival.version)
            replaced = current.find_digest(incoming.path)
            old = current.files.get(incoming.path)
            before = None if old is None else _trail(old)
            is_kept = await uow.blobs.keep(blob, at=now, instead_of=arrival.lost)
            file = current.put_file(
                incoming.path,
                blob,
                media_type=incoming.media_type,
                by=arrival.principal.account_id,
                at=now,
            )
            # Last, for conditions only count where the request would succeed without them.
            incoming.check(replaced)
            taken = TakenFile(file=FileDetails.of(file), is_new=before is None)
            current_scope().change(
                MODEL_FILE, _file_id(current.id, file.path), before=before, after=_trail(file)
            )
            arrival.is_commit_tried = True
            await uow.commit(taken)
        return taken, is_kept

    async def _withdraw(self, arrival: _Arrival) -> None:
        """Remove an upload's parts unless a transaction refers to them after all.

        A commit whose answer was lost may stand. Then the claim waits until that transaction has
        ended, and the database tells; if it cannot, the parts stay.
        """
        upload = arrival.upload
        if arrival.is_commit_tried and upload.blob.parts:
            try:
                async with self.unit_of_work() as uow:
                    await uow.blobs.claim(upload.id)
                    if await uow.blobs.holds(upload.blob.parts[0].key):
                        return
            except Exception as exc:  # noqa: BLE001  whatever it is, deleting blindly is worse
                _log.warning("upload_parts_left", upload_id=str(upload.id), error=repr(exc))
                return
        await self.artifacts.discard(upload.blob)


def _check_arrival(incoming: IncomingFile, upload: Upload) -> None:
    if incoming.size is not None and upload.blob.size != incoming.size:
        raise BodyCutOffError
    if any(digest != upload.blob.sha256 for digest in incoming.digests):
        raise DigestMismatchError


def _file_id(version_id: VersionId, path: FilePath) -> str:
    return f"{version_id}/{path}"


def _trail(file: VersionFile) -> dict[str, ChangeValue]:
    return {
        "version_id": str(file.version_id),
        "path": str(file.path),
        "sha256": str(file.sha256),
        "size": file.size,
        "media_type": file.media_type,
    }
