"""Files that come in pieces: uploads begun, put together, ended; `chunks` has their bytes."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from maas.audit.public import ChangeValue, audit_row, current_scope
from maas.model.application.chunks import Chunk, ChunkService
from maas.model.application.earlier_uploads import EarlierUploads, Ended
from maas.model.application.finishing import finish
from maas.model.application.ports import FileTooLargeError, ModelUnitOfWork
from maas.model.application.storage import StorageReservation
from maas.model.application.trail import MODEL_UPLOAD
from maas.model.application.upload_completion import Completion
from maas.model.application.upload_ports import PartStream, UploadJournal
from maas.model.application.wanted_file import WantedFile, get_open_version
from maas.model.domain.blob import Digest
from maas.model.domain.resumable import (
    LIFETIME,
    MAX_UPLOADS_EACH,
    ResumableUpload,
    Target,
    TooManyUploadsError,
    UploadId,
    UploadInPiecesError,
    UploadKind,
    UploadState,
)
from maas.model.public import MANAGE_MODELS
from maas.shared.domain.clock import Clock
from maas.shared.domain.errors import MaasError
from maas.shared.domain.ids import new_id
from maas.shared.domain.principal import Principal
from maas.user.public import Payer, QuotaExceededError


@dataclass(frozen=True, slots=True, kw_only=True)
class NewUpload:
    """An upload to begin: a partial one wants no file, and all others one."""

    length: int
    wanted: WantedFile | None
    metadata: str | None
    concat: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadService:
    unit_of_work: Callable[[], ModelUnitOfWork]
    journal: UploadJournal
    stream: PartStream
    completion: Completion
    chunks: ChunkService
    earlier: EarlierUploads
    clock: Clock
    max_file_bytes: int

    async def create(
        self, principal: Principal, new: NewUpload, chunk: Chunk | None = None
    ) -> ResumableUpload:
        """Begin an upload, with room held for all of it; an empty one is done at once.

        It ends what else the caller is uploading to that path: the answer that told where may have
        been lost, and then nobody could end it, while the version waits for it.

        If its first bytes come along and cannot be added, it has failed: nobody knows of it yet.

        Raises:
            FileTooLargeError: longer than a file may be.
            TooManyUploadsError: the caller has too many of them under way.
            ModelNotFoundError, VersionNotFoundError, VersionFrozenError, TooManyFilesError,
                FilePathConflictError: the version does not take the file.
            QuotaExceededError, QuotaUnavailableError: no room is held for it.
            MaasError: as `ChunkService.append`, of the bytes that came along.
        """
        self._check_length(new.length)
        reservation = self.earlier.reservation_of(Payer.of(principal))
        try:
            await self._cover(reservation, new)
            kind: UploadKind = "partial" if new.wanted is None else "whole"
            upload = self._begin(principal, new, kind=kind)
            async with self.unit_of_work() as uow:
                upload, ended = await self._aim(uow, upload, new.wanted)
                await uow.uploads.add(upload, reservation.holds)
                _tell_begun(upload)
                await uow.commit()
        except BaseException:
            # Whoever hangs up cancels this, and what is held goes back then as well.
            await finish(reservation.release())
            raise
        await finish(self.earlier.free(upload.payer, ended))
        if new.length == 0:
            return await self.completion.complete(upload, Digest(hashlib.sha256().digest()))
        if chunk is None:
            return upload
        try:
            return await self.chunks.append(principal, upload.id, chunk)
        except MaasError as exc:
            await finish(self.completion.refuse(upload, exc))
            raise

    async def concatenate(
        self, principal: Principal, new: NewUpload, partials: Sequence[UploadId]
    ) -> ResumableUpload:
        """Make a file of partial uploads, in this order; asked again, it is the same.

        It ends what else the caller is uploading to that path, as `create` does.

        Raises:
            UploadNotFoundError, UploadUnfinishedError, UploadPayerError: of one of them.
            UploadInPiecesError: all of them together came in too many parts.
            FileTooLargeError, TooManyUploadsError, ModelNotFoundError, VersionNotFoundError,
                VersionFrozenError, TooManyFilesError, FilePathConflictError: as `create`.
        """
        account_id = principal.account_id
        if new.concat is not None:
            made = await self.journal.find_final(
                principal.tenant_id, account_id, new.concat, new.metadata
            )
            if made is not None:
                current_scope().skip()
                return made
        final = self._begin(principal, new, kind="final")

        def check(whole: ResumableUpload) -> None:
            self._check_length(whole.length)
            if whole.part_count > self.chunks.max_parts(whole.length) + len(partials):
                raise UploadInPiecesError

        async with self.unit_of_work() as uow:
            final, ended = await self._aim(uow, final, new.wanted)
            final = await uow.uploads.concatenate(final, partials, account_id, check=check)
            _tell_begun(final)
            await uow.commit()
        await finish(self.earlier.free(final.payer, ended))
        return await self.completion.complete(final, None)

    async def get(self, principal: Principal, upload_id: UploadId) -> ResumableUpload:
        """Read how far an upload of the caller has come.

        Raises:
            UploadNotFoundError.
        """
        return await self.journal.get(principal.tenant_id, upload_id, principal.account_id)

    async def end(self, principal: Principal, upload_id: UploadId) -> None:
        """End an upload, and free what it holds; a file that it has become stays.

        Those of others into a model are ended by its owner and by who manages models, for nobody
        else could keep them from holding up a version.

        Raises:
            UploadNotFoundError.
        """
        async with self.unit_of_work() as uow:
            parts = await uow.uploads.remove(
                upload_id, principal.account_id, is_manager=principal.may(MANAGE_MODELS)
            )
            current_scope().resource(MODEL_UPLOAD, upload_id)
            await uow.commit()
        await finish(self.stream.discard([part.key for part in parts]))

    async def _cover(self, reservation: StorageReservation, new: NewUpload) -> None:
        """Hold room for all of it; what an earlier upload of the file holds is room for this."""
        wanted = new.wanted
        try:
            await reservation.cover(new.length)
        except QuotaExceededError:
            if wanted is None or not await self.earlier.make_room(
                reservation.payer, wanted, new.length
            ):
                raise
            await reservation.cover(new.length)

    def _check_length(self, length: int) -> None:
        if length > self.max_file_bytes:
            raise FileTooLargeError(self.max_file_bytes)

    def _begin(self, principal: Principal, new: NewUpload, *, kind: UploadKind) -> ResumableUpload:
        now = self.clock.now()
        state: UploadState = "verifying" if new.length == 0 and kind != "partial" else "uploading"
        return ResumableUpload(
            id=UploadId(new_id()),
            payer=Payer.of(principal),
            kind=kind,
            concat=new.concat,
            metadata=new.metadata,
            target=None,
            length=new.length,
            offset=0,
            part_count=0,
            state=state,
            problem_code=None,
            problem_detail=None,
            created_at=now,
            updated_at=now,
            expires_at=now + LIFETIME,
        )

    async def _aim(
        self, uow: ModelUnitOfWork, upload: ResumableUpload, wanted: WantedFile | None
    ) -> tuple[ResumableUpload, Ended]:
        """Look up the version, which must take the file, and stays as it is until the commit."""
        version, ended = None, Ended()
        if wanted is not None:
            version = await get_open_version(uow, wanted)
            ended = await self.earlier.end(uow, upload.payer, version.id, wanted.path)
        if await uow.uploads.count(upload.payer.account_id) >= MAX_UPLOADS_EACH:
            raise TooManyUploadsError
        if wanted is None or version is None:
            return upload, ended
        target = Target(
            model_id=wanted.model_id,
            version_id=version.id,
            version=wanted.version,
            path=wanted.path,
            media_type=wanted.media_type,
            sha256=wanted.sha256,
        )
        return replace(upload, target=target), ended


def _tell_begun(upload: ResumableUpload) -> None:
    """Tell the trail, beside the uploads that this one ended."""
    with audit_row(current_scope().action) as row:
        row.change(MODEL_UPLOAD, upload.id, after=_trail(upload))


def _trail(upload: ResumableUpload) -> dict[str, ChangeValue]:
    target = upload.target
    return {
        "kind": upload.kind,
        "length": upload.length,
        "version_id": None if target is None else str(target.version_id),
        "path": None if target is None else str(target.path),
    }
