"""Files that come in pieces: begun, gone on with wherever they broke off, put together, ended."""

import hashlib
from collections.abc import AsyncIterable, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from maas.audit.public import ChangeValue, audit_row, audit_scope, current_scope
from maas.model.application.finishing import finish
from maas.model.application.known_digests import KnownDigests
from maas.model.application.ports import FileTooLargeError, ModelUnitOfWork
from maas.model.application.storage import Room, StorageBookings
from maas.model.application.trail import MODEL_UPLOAD
from maas.model.application.transfers import TransferSlots
from maas.model.application.upload_completion import Completion
from maas.model.application.upload_ports import (
    PartStream,
    RunningDigest,
    UploadJournal,
)
from maas.model.domain.blob import Digest, Part
from maas.model.domain.file import FilePath
from maas.model.domain.formats import PickleRefusedError, refusing_pickle
from maas.model.domain.resumable import (
    MAX_UPLOADS_EACH,
    SPARE_PARTS,
    ChunkChecksumError,
    ResumableUpload,
    Target,
    TooManyUploadsError,
    UploadId,
    UploadInPiecesError,
    UploadKind,
    UploadState,
    UploadTakenOverError,
)
from maas.model.domain.text import VersionName
from maas.model.domain.version import ModelVersion
from maas.model.public import MANAGE_MODELS, ModelId
from maas.shared.domain.clock import Clock
from maas.shared.domain.errors import MaasError
from maas.shared.domain.ids import new_id
from maas.shared.domain.principal import Principal
from maas.user.public import Budgets, Hold, Payer, QuotaExceededError

LIFETIME: Final = timedelta(hours=24)
"""An upload that nobody goes on with expires after so long."""

LEASE: Final = LIFETIME + timedelta(hours=1)

ENDED: Final = "model_upload.ended"


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedFile:
    """Which file an upload is to become, as its sender says."""

    model_id: ModelId
    version: VersionName
    path: FilePath
    media_type: str
    sha256: Digest | None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewUpload:
    """An upload to begin: a partial one wants no file, and all others one."""

    length: int
    wanted: WantedFile | None
    metadata: str | None
    concat: str | None = None


@dataclass(frozen=True, slots=True)
class _Ended:
    """What uploads have left that another one of the same file has ended."""

    parts: list[Part] = field(default_factory=list)
    holds: list[Hold] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """Bytes to add at an offset; `checksum` is an algorithm of `hashlib`, and what it gives.

    `size` is what the sender announced of the body.
    """

    offset: int
    size: int | None
    checksum: tuple[str, bytes] | None
    body: AsyncIterable[bytes]


@dataclass(slots=True, kw_only=True)
class _Adding:
    """One request that adds to an upload: where it is, and what is not noted yet."""

    upload: ResumableUpload
    writer: UUID
    offset: int
    check: RunningDigest | None
    digest: RunningDigest | None = None
    unnoted: list[Part] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadService:
    unit_of_work: Callable[[], ModelUnitOfWork]
    journal: UploadJournal
    stream: PartStream
    completion: Completion
    budgets: Budgets
    bookings: StorageBookings
    transfers: TransferSlots
    clock: Clock
    max_file_bytes: int
    part_bytes: int
    known: KnownDigests = field(default_factory=KnownDigests)

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
            MaasError: as `append`, of the bytes that came along.
        """
        self._check_length(new.length)
        room = self._room_of(Payer.of(principal))
        try:
            await self._cover(room, new)
            kind: UploadKind = "partial" if new.wanted is None else "whole"
            upload = self._begin(principal, new, kind=kind)
            async with self.unit_of_work() as uow:
                upload, ended = await self._aim(uow, upload, new.wanted)
                await uow.uploads.add(upload, room.holds)
                _tell_begun(upload)
                await uow.commit()
        except BaseException:
            # Whoever hangs up cancels this, and what is held goes back then as well.
            await finish(room.release())
            raise
        await finish(self._free(upload.payer, ended))
        if new.length == 0:
            return await self._complete(upload, hashlib.sha256())
        if chunk is None:
            return upload
        try:
            return await self.append(principal, upload.id, chunk)
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
            if whole.part_count > self._max_parts(whole.length) + len(partials):
                raise UploadInPiecesError

        async with self.unit_of_work() as uow:
            final, ended = await self._aim(uow, final, new.wanted)
            final = await uow.uploads.concatenate(final, partials, account_id, check=check)
            _tell_begun(final)
            await uow.commit()
        await finish(self._free(final.payer, ended))
        return await self._complete(final, None)

    async def get(self, principal: Principal, upload_id: UploadId) -> ResumableUpload:
        """Read how far an upload of the caller has come.

        Raises:
            UploadNotFoundError.
        """
        return await self.journal.get(principal.tenant_id, upload_id, principal.account_id)

    async def append(
        self, principal: Principal, upload_id: UploadId, chunk: Chunk
    ) -> ResumableUpload:
        """Add bytes; with the last one, the upload becomes a file, or is `verifying` first.

        Every part that is durable counts at once, whatever becomes of the request. A later request
        takes the upload over from an earlier one, which may be of a line that broke.

        Raises:
            UploadNotFoundError, FinalUploadError, UploadEndedError, UploadOffsetError,
                UploadInPiecesError, UploadTakenOverError: nothing can be added, or no longer.
            FileTooLargeError: more bytes than the upload has left.
            ChunkChecksumError: they are not those that were announced; none of them counts.
            BodyCutOffError, SlowRequestError: the body broke off; what came counts.
            TooManyOwnTransfersError, StorageFullError, UnavailableError: not at the moment.
            DigestMismatchError, PickleRefusedError, ...: the file was refused when it was complete;
                its upload has failed then.
        """
        upload = await self.get(principal, upload_id)
        if upload.is_complete and chunk.offset == upload.offset and chunk.size == 0:
            return upload
        await self._check_next(upload, chunk)
        with self.transfers.holding(principal.account_id):
            adding = await self._open(upload, chunk)
            try:
                await self._take_in(adding, chunk)
            finally:
                if adding.unnoted:
                    await finish(self.stream.discard([part.key for part in adding.unnoted]))
                if adding.offset == chunk.offset:
                    # Whoever sends nothing does not keep it from expiring.
                    await finish(self._leave(adding))
        if adding.offset == chunk.offset:
            return upload
        moved = replace(upload, offset=adding.offset, expires_at=self._expiry())
        if moved.is_complete and moved.kind != "partial":
            return await self._complete(replace(moved, state="verifying"), adding.digest)
        return moved

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

    def _room_of(self, payer: Payer) -> Room:
        return Room(
            budgets=self.budgets,
            bookings=self.bookings,
            clock=self.clock,
            payer=payer,
            lease=LEASE,
        )

    async def _cover(self, room: Room, new: NewUpload) -> None:
        """Hold room for all of it; what an earlier upload of the file holds is room for this."""
        try:
            await room.cover(new.length)
        except QuotaExceededError:
            if new.wanted is None or not await self._make_room(room.payer, new.wanted, new.length):
                raise
            await room.cover(new.length)

    async def _make_room(self, payer: Payer, wanted: WantedFile, length: int) -> bool:
        """End earlier uploads of the file, if what they hold is enough; otherwise they go on."""
        async with audit_scope(ENDED) as scope:
            # Its rows are told of when they are committed; all else, by the act this is part of.
            scope.skip()
            async with self.unit_of_work() as uow:
                version = await _find_version(uow, wanted)
                ended = await self._end_earlier(uow, payer, version, wanted.path)
                held = [hold for hold in ended.holds if hold.payer == payer]
                if not held or sum(hold.granted.storage_bytes for hold in held) < length:
                    return False
                await uow.commit()
        await finish(self._free(payer, ended))
        return True

    async def _end_earlier(
        self, uow: ModelUnitOfWork, payer: Payer, version: ModelVersion, path: FilePath
    ) -> _Ended:
        ended = _Ended()
        for earlier in await uow.uploads.list_earlier(payer.account_id, version.id, path):
            ended.parts.extend(await uow.uploads.remove(earlier.id, payer.account_id))
            ended.holds.extend(earlier.holds)
            with audit_row(ENDED) as row:
                row.resource(MODEL_UPLOAD, earlier.id)
        return ended

    async def _free(self, payer: Payer, ended: _Ended) -> None:
        """Free at once what the collection and the bookings would free later."""
        if ended.parts:
            await self.stream.discard([part.key for part in ended.parts])
        if ended.holds:
            room = self._room_of(payer)
            room.holds.extend(ended.holds)
            await room.release()

    def _expiry(self) -> datetime:
        return self.clock.now() + LIFETIME

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
    ) -> tuple[ResumableUpload, _Ended]:
        """Look up the version, which must take the file, and stays as it is until the commit."""
        version, ended = None, _Ended()
        if wanted is not None:
            version = await _find_version(uow, wanted)
            ended = await self._end_earlier(uow, upload.payer, version, wanted.path)
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

    async def _check_next(self, upload: ResumableUpload, chunk: Chunk) -> None:
        if upload.kind == "final" or upload.state != "uploading" or upload.offset != chunk.offset:
            raise upload.why_not(chunk.offset)
        if chunk.size is not None and chunk.size > upload.length - upload.offset:
            raise FileTooLargeError(upload.length)
        if upload.part_count >= self._max_parts(upload.length):
            raise UploadInPiecesError

    def _max_parts(self, length: int) -> int:
        return length // self.part_bytes + SPARE_PARTS

    async def _open(self, upload: ResumableUpload, chunk: Chunk) -> _Adding:
        """Become the one who adds to the upload, and renew what it holds."""
        writer = new_id()
        is_open = await self.journal.begin(
            upload, writer=writer, offset=chunk.offset, expires_at=self._expiry()
        )
        if not is_open:
            again = await self.journal.get(upload.payer.tenant_id, upload.id, None)
            raise again.why_not(chunk.offset)
        await self.completion.renew(upload)
        check = None if chunk.checksum is None else hashlib.new(chunk.checksum[0])
        return _Adding(upload=upload, writer=writer, offset=chunk.offset, check=check)

    async def _leave(self, adding: _Adding) -> None:
        upload = adding.upload
        await self.journal.leave(
            upload, writer=adding.writer, offset=adding.offset, expires_at=upload.expires_at
        )

    async def _take_in(self, adding: _Adding, chunk: Chunk) -> None:
        """Store the body part by part; what this process knows of the bytes before stays known."""
        upload = adding.upload
        whole = None
        if upload.kind == "whole":
            whole = self.known.take(upload.id, chunk.offset)
        try:
            await self._store(adding, chunk, None if whole is None else whole.copy())
        except PickleRefusedError as exc:
            await self.completion.refuse(upload, exc)
            raise
        finally:
            if adding.offset == chunk.offset:
                self.known.keep(upload.id, chunk.offset, whole)

    async def _store(self, adding: _Adding, chunk: Chunk, whole: RunningDigest | None) -> None:
        upload, check = adding.upload, adding.check
        body = chunk.body if check is None else _hashing(chunk.body, check)
        if chunk.offset == 0 and upload.kind == "whole":
            # What begins like a pickle is refused at once, and again when all of it is there.
            body = refusing_pickle(body, unless=self.completion.arrivals.facts.allows_pickle)
        incoming = self.stream.append(
            upload.id,
            adding.writer,
            body,
            limit_bytes=upload.length - chunk.offset,
            whole=whole,
        )
        async with aclosing(incoming) as stored:
            async for part in stored:
                adding.unnoted.append(part.part)
                adding.digest = part.whole
                if check is None:
                    await self._note(adding)
        if chunk.checksum is not None and check is not None:
            if check.digest() != chunk.checksum[1]:
                raise ChunkChecksumError
            await self._note(adding)

    async def _note(self, adding: _Adding) -> None:
        """Have what is durable count; whoever was overtaken meanwhile goes on no further."""
        if not adding.unnoted:
            return
        # Of a note whose answer is lost nobody knows: such parts are not removed.
        parts, adding.unnoted = adding.unnoted, []
        is_noted = await self.journal.add(
            adding.upload,
            writer=adding.writer,
            offset=adding.offset,
            parts=parts,
            expires_at=self._expiry(),
        )
        if not is_noted:
            adding.unnoted = parts
            raise UploadTakenOverError
        adding.offset += sum(part.size for part in parts)
        self.known.keep(adding.upload.id, adding.offset, adding.digest)

    async def _complete(
        self, upload: ResumableUpload, digest: RunningDigest | None
    ) -> ResumableUpload:
        known = None if digest is None else Digest(digest.digest())
        return await self.completion.complete(upload, known)


async def _find_version(uow: ModelUnitOfWork, wanted: WantedFile) -> ModelVersion:
    version = await uow.versions.get(wanted.model_id, wanted.version, near=wanted.path)
    version.check_open(wanted.path)
    return version


def _tell_begun(upload: ResumableUpload) -> None:
    """Tell the trail, beside the uploads that this one ended."""
    with audit_row(current_scope().action) as row:
        row.change(MODEL_UPLOAD, upload.id, after=_trail(upload))


async def _hashing(body: AsyncIterable[bytes], check: RunningDigest) -> AsyncIterator[bytes]:
    async for chunk in body:
        check.update(chunk)
        yield chunk


def _trail(upload: ResumableUpload) -> dict[str, ChangeValue]:
    target = upload.target
    return {
        "kind": upload.kind,
        "length": upload.length,
        "version_id": None if target is None else str(target.version_id),
        "path": None if target is None else str(target.path),
    }
