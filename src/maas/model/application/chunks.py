"""Bytes added to uploads that go on where they broke off; the last ones make the file."""

import hashlib
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from datetime import datetime
from uuid import UUID

from maas.model.application.finishing import finish
from maas.model.application.known_digests import KnownDigests
from maas.model.application.ports import FileTooLargeError
from maas.model.application.transfers import TransferSlots
from maas.model.application.upload_completion import Completion
from maas.model.application.upload_ports import PartStream, RunningDigest, UploadJournal
from maas.model.domain.blob import Digest, Part
from maas.model.domain.formats import PickleRefusedError, refusing_pickle
from maas.model.domain.resumable import (
    LIFETIME,
    SPARE_PARTS,
    ChunkChecksumError,
    ResumableUpload,
    UploadId,
    UploadInPiecesError,
    UploadTakenOverError,
)
from maas.shared.domain.clock import Clock
from maas.shared.domain.ids import new_id
from maas.shared.domain.principal import Principal


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
class ChunkService:
    journal: UploadJournal
    stream: PartStream
    completion: Completion
    transfers: TransferSlots
    clock: Clock
    part_bytes: int
    known: KnownDigests = field(default_factory=KnownDigests)

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
        tenant_id, account_id = principal.tenant_id, principal.account_id
        upload = await self.journal.get(tenant_id, upload_id, account_id)
        if upload.is_complete and chunk.offset == upload.offset and chunk.size == 0:
            return upload
        await self._check_next(upload, chunk)
        with self.transfers.holding(account_id):
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

    def max_parts(self, length: int) -> int:
        """Tell into how many parts an upload of this length may be cut."""
        return length // self.part_bytes + SPARE_PARTS

    def _expiry(self) -> datetime:
        return self.clock.now() + LIFETIME

    async def _check_next(self, upload: ResumableUpload, chunk: Chunk) -> None:
        if upload.kind == "final" or upload.state != "uploading" or upload.offset != chunk.offset:
            raise upload.why_not(chunk.offset)
        if chunk.size is not None and chunk.size > upload.length - upload.offset:
            raise FileTooLargeError(upload.length)
        if upload.part_count >= self.max_parts(upload.length):
            raise UploadInPiecesError

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
            body = refusing_pickle(body, unless=self.completion.ingestion.facts.allows_pickle)
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


async def _hashing(body: AsyncIterable[bytes], check: RunningDigest) -> AsyncIterator[bytes]:
    async for chunk in body:
        check.update(chunk)
        yield chunk
