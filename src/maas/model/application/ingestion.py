"""The way into a version that all files take, once their bytes are durable: PUT and uploads."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Final

import structlog

from maas.audit.public import ChangeValue, current_scope
from maas.model.application.facts import FactsReader, keep_facts
from maas.model.application.finishing import finish
from maas.model.application.ports import (
    ArtifactStore,
    BodyCutOffError,
    CheckDigest,
    ModelUnitOfWork,
)
from maas.model.application.queries import FileDetails
from maas.model.application.storage import Booking, StorageReservation
from maas.model.application.trail import MODEL_FILE
from maas.model.domain.blob import Blob, Digest, DigestMismatchError, Upload
from maas.model.domain.facts import Facts
from maas.model.domain.file import FilePath, VersionFile
from maas.model.domain.resumable import SenderRefusedError
from maas.model.domain.text import VersionName
from maas.model.public import WRITE_MODELS, ModelId, VersionId
from maas.shared.domain.call import current_call
from maas.shared.domain.clock import Clock
from maas.shared.domain.ids import new_id
from maas.user.public import Members, Payer

SCATTERED_TIMES: Final = 4
"""Kept bytes are scattered if they are in so many times the parts they came in now, and a few."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class TakenFile:
    """A file that was taken in, and whether its path was new."""

    file: FileDetails
    is_new: bool


@dataclass(slots=True, kw_only=True)
class PendingFile:
    """A file whose bytes are stored and reserved for, on its way into a version.

    `size` and `digests` are what was announced of it; `check` judges the digest of the file it
    would replace.
    """

    model_id: ModelId
    version: VersionName
    path: FilePath
    media_type: str
    size: int | None
    digests: frozenset[Digest]
    check: CheckDigest
    upload: Upload
    reservation: StorageReservation
    lost: Blob | None = None
    scattered: Blob | None = None
    facts: Facts | None = None
    is_commit_tried: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class FileIngestion:
    """Refers to files and charges for them; what a refused file leaves, its sender clears away."""

    unit_of_work: Callable[[], ModelUnitOfWork]
    artifacts: ArtifactStore
    facts: FactsReader
    members: Members
    clock: Clock

    async def act_for(self, payer: Payer) -> None:
        """Have the rest of the call do what the sender may do by now, and no more.

        A body may come for hours, and a task is called by nobody.

        Raises:
            SenderRefusedError: that is too little.
        """
        sender = await self.members.find_principal(payer)
        if sender is None or not sender.may(WRITE_MODELS):
            raise SenderRefusedError
        call = current_call()
        caller = call.principal
        call.act_as(sender if caller is None else replace(caller, permissions=sender.permissions))

    async def ingest(
        self,
        pending: PendingFile,
        *,
        also: Callable[[ModelUnitOfWork], Awaitable[None]] | None = None,
    ) -> TakenFile:
        """Let the version have the file; `also` is done in the same transaction, or nothing is.

        Raises:
            ModelNotFoundError, VersionNotFoundError, VersionFrozenError, TooManyFilesError,
                FilePathConflictError, PreconditionFailedError: the version does not take it.
            SenderRefusedError: who sent it may not write files any more.
            BodyCutOffError, DigestMismatchError: the bytes are others than announced.
            LyingHeaderError, ArchiveRefusedError, PickleRefusedError: the file will not do.
        """
        blob = pending.upload.blob
        if pending.size is not None and pending.size != blob.size:
            raise BodyCutOffError
        if any(digest != blob.sha256 for digest in pending.digests):
            raise DigestMismatchError
        pending.facts = await self.facts.read(pending.path, blob)
        await self._look_at_kept(pending)
        # As late as can be, yet before the transaction: it takes a connection of its own.
        await self.act_for(pending.reservation.payer)
        bookings = pending.reservation.split(
            blob.size, [new_id() for _ in pending.reservation.holds]
        )
        taken, is_kept = await self._refer(pending, bookings, also)
        await finish(self._conclude(pending, bookings, is_kept=is_kept))
        return taken

    async def withdraw(self, pending: PendingFile) -> None:
        """Remove an upload's parts and give its room back, unless the version has it after all.

        A commit whose answer was lost may stand. Then the claim waits until that transaction has
        ended, and the database tells; if it cannot, the parts stay.
        """
        upload = pending.upload
        if pending.is_commit_tried and upload.blob.parts:
            try:
                async with self.unit_of_work() as uow:
                    await uow.blobs.claim(upload.id)
                    if await uow.blobs.holds(upload.blob.parts[0].key):
                        return
            except Exception as exc:  # noqa: BLE001  whatever it is, deleting blindly is worse
                _log.warning("upload_parts_left", upload_id=str(upload.id), error=repr(exc))
                return
        await self.artifacts.discard(upload.blob)
        # If the commit stands, with parts that were there before, its bookings tell the quotas.
        await pending.reservation.release()

    async def _look_at_kept(self, pending: PendingFile) -> None:
        """Look up what is kept of these bytes, and whether its rows are to be replaced.

        So they are if the store has not all of it any more, which mends every file of the same
        bytes; and if it is in far more parts, for everybody's reading would be slow for ever.
        """
        blob = pending.upload.blob
        async with self.unit_of_work() as uow:
            kept = await uow.blobs.find(blob.sha256)
        if kept is None:
            return
        if not await self.artifacts.has_all(kept):
            _log.warning("blob_parts_lost", sha256=str(kept.sha256))
            pending.lost = kept
        elif len(kept.parts) > SCATTERED_TIMES * (len(blob.parts) + SCATTERED_TIMES):
            pending.scattered = kept

    async def _refer(
        self,
        pending: PendingFile,
        bookings: list[Booking],
        also: Callable[[ModelUnitOfWork], Awaitable[None]] | None,
    ) -> tuple[TakenFile, bool]:
        """Let the version refer to the upload; tell also whether its parts are the ones kept."""
        now, path, blob = self.clock.now(), pending.path, pending.upload.blob
        payer = pending.reservation.payer
        async with self.unit_of_work() as uow:
            await uow.blobs.claim(pending.upload.id)
            current = await uow.versions.get(pending.model_id, pending.version, near=path)
            replaced = current.find_digest(path)
            old = current.files.get(path)
            before = None if old is None else file_trail(old)
            is_kept = await uow.blobs.keep(
                blob, at=now, instead_of=pending.lost or pending.scattered
            )
            file = current.put_file(
                path, blob, media_type=pending.media_type, by=payer.account_id, at=now
            )
            if pending.facts is not None or old is not None:
                await keep_facts(uow, current, path, pending.facts)
            await uow.charges.charge(current.id, path, payer, bookings)
            if also is not None:
                await also(uow)
            # Last, for conditions only count where the request would succeed without them.
            pending.check(replaced)
            taken = TakenFile(file=FileDetails.of(file, pending.facts), is_new=before is None)
            current_scope().change(
                MODEL_FILE, file_id(current.id, file.path), before=before, after=file_trail(file)
            )
            pending.is_commit_tried = True
            await uow.commit(taken)
        return taken, is_kept

    async def _conclude(
        self, pending: PendingFile, bookings: list[Booking], *, is_kept: bool
    ) -> None:
        """Book what the file takes, and remove the parts that nothing refers to any more.

        Of parts that are whole but scattered somebody may be reading: the collection has them.
        """
        await pending.reservation.settle(bookings)
        unused = pending.lost if is_kept else pending.upload.blob
        if unused is not None:
            await self.artifacts.discard(unused)


def file_id(version_id: VersionId, path: FilePath) -> str:
    """Name a file in the trail."""
    return f"{version_id}/{path}"


def file_trail(file: VersionFile) -> dict[str, ChangeValue]:
    return {
        "version_id": str(file.version_id),
        "path": str(file.path),
        "sha256": str(file.sha256),
        "size": file.size,
        "media_type": file.media_type,
    }
