"""From the last byte of an upload to the file it becomes."""

from dataclasses import dataclass, replace
from typing import Final

import structlog

from maas.audit.public import Actor, audit_scope, find_scope
from maas.model.application.ingestion import FileIngestion, PendingFile
from maas.model.application.ports import BlobDigester, CorruptBlobError, ModelUnitOfWork
from maas.model.application.storage import StorageBookings, StorageReservation
from maas.model.application.upload_ports import PartStream, UploadJournal
from maas.model.domain.blob import Blob, Digest, Upload
from maas.model.domain.resumable import ResumableUpload, UploadEndedError
from maas.shared.domain.call import current_call
from maas.shared.domain.clock import Clock
from maas.shared.domain.errors import MaasError, TooManyRequestsError, UnavailableError
from maas.user.public import Budgets

DIGESTED_AT_ONCE_BYTES: Final = 64 * 1024 * 1024
"""Of so much a request computes the digest itself, where its bytes were not all seen in order."""

UPLOADED: Final = "model_file.uploaded"

_PASSING: Final = (UnavailableError, TooManyRequestsError)
"""Refusals that say nothing of the file: it stays, and is tried again."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    journal: UploadJournal
    stream: PartStream
    digester: BlobDigester
    ingestion: FileIngestion
    budgets: Budgets
    bookings: StorageBookings
    clock: Clock

    async def renew(self, upload: ResumableUpload) -> None:
        """Begin the leases of what an upload holds anew."""
        reservation = await self._reservation(upload)
        await reservation.renew()

    async def complete(self, upload: ResumableUpload, digest: Digest | None) -> ResumableUpload:
        """Make a file of a complete upload, or leave it `verifying`, to be digested apart.

        Raises:
            MaasError: the file was refused, for good: the upload has failed, and its bytes are
                gone; or not at the moment, and it is tried again.
        """
        parts = await self.journal.list_parts(upload.payer.tenant_id, upload.id)
        if sum(part.size for part in parts) != upload.length:
            # Somebody has ended or completed it meanwhile.
            return await self._look(upload)
        if digest is None and upload.length > DIGESTED_AT_ONCE_BYTES:
            return upload
        try:
            digest = digest or await self.digester.digest(parts)
            blob = Blob(sha256=digest, size=upload.length, parts=tuple(parts))
            return await self._make_file(upload, blob)
        except CorruptBlobError:
            # Parts of what was ended meanwhile are gone, and nothing is damaged.
            now = await self._look(upload)
            if now.state == "verifying":
                raise
            return now

    async def _make_file(self, upload: ResumableUpload, blob: Blob) -> ResumableUpload:
        # An act of its own: the request it is part of has told the trail of another.
        outer = find_scope()
        if outer is not None and outer.action == UPLOADED:
            outer.skip()
        async with audit_scope(UPLOADED) as scope:
            if is_task := current_call().principal is None:
                scope.actor = Actor(upload.payer.actor_kind, upload.payer.account_id)
            try:
                if is_task:
                    # A task sees every model before it acts for somebody.
                    await self.ingestion.act_for(upload.payer)
                await self._admit(upload, blob)
            except UploadEndedError:
                # Somebody else has completed it, or failed to.
                scope.skip()
                return await self._look(upload)
            except MaasError as exc:
                if not isinstance(exc, _PASSING):
                    await self.refuse(upload, exc)
                raise
        return replace(upload, state="done")

    async def _look(self, upload: ResumableUpload) -> ResumableUpload:
        """Look at it anew.

        Raises:
            UploadNotFoundError: it was ended.
        """
        return await self.journal.get(upload.payer.tenant_id, upload.id, None)

    async def refuse(self, upload: ResumableUpload, error: MaasError) -> None:
        """Have an upload failed for good: its bytes go, and nothing is held for it any more."""
        parts = await self.journal.fail(upload, code=error.code, detail=error.detail)
        await self.stream.discard([part.key for part in parts])

    async def _admit(self, upload: ResumableUpload, blob: Blob) -> None:
        target = upload.get_target()
        reservation = await self._reservation(upload)
        pending = PendingFile(
            model_id=target.model_id,
            version=target.version,
            path=target.path,
            media_type=target.media_type,
            size=upload.length,
            digests=frozenset() if target.sha256 is None else frozenset({target.sha256}),
            check=lambda _: None,
            upload=Upload(id=upload.id, blob=blob),
            reservation=reservation,
        )

        async def have_it_done(uow: ModelUnitOfWork) -> None:
            await uow.uploads.finish(upload.id, self.clock.now())

        await self.ingestion.ingest(pending, also=have_it_done)

    async def _reservation(self, upload: ResumableUpload) -> StorageReservation:
        holds = await self.journal.list_holds(upload.payer.tenant_id, upload.id)
        return StorageReservation(
            budgets=self.budgets,
            bookings=self.bookings,
            clock=self.clock,
            payer=upload.payer,
            holds=holds,
        )
