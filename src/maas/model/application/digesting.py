"""Uploads whose bytes did not come in order: their digest is computed before they become files."""

import asyncio
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, Protocol

import structlog

from maas.model.application.ports import BlobDigester, CorruptBlobError
from maas.model.application.upload_completion import Completion
from maas.model.application.upload_ports import UploadJournal
from maas.model.domain.resumable import UploadId
from maas.shared.domain.call import Call, EventRecorder, serving
from maas.shared.domain.clock import Clock
from maas.shared.domain.errors import MaasError, UnavailableError
from maas.shared.domain.ids import TenantId, new_id

PAUSE_SECONDS: Final = 2.0
AGAIN_AFTER: Final = timedelta(seconds=30)
AGAIN_AT_MOST: Final = timedelta(hours=1)
"""How long an upload is put off at first, and at most: twice as long each time."""

MAX_TRIES: Final = 8
"""After so many errors that nobody foresaw, in about an hour, an upload has failed."""

FORGOTTEN_AFTER: Final = timedelta(days=1)

_log = structlog.get_logger(__name__)


class UploadNotCompletedError(UnavailableError):
    code = "upload-not-completed"
    title = "The upload could not be made a file"

    def __init__(self) -> None:
        super().__init__("It was tried again and again, without success: upload the file anew.")


class VerifyingUploads(Protocol):
    def claim(
        self, *, but: Sequence[UploadId]
    ) -> AbstractAsyncContextManager[tuple[TenantId, UploadId] | None]:
        """Take the upload that waits longest for its digest, if there is one.

        For the length of the block nobody else gets it; if this process is killed, others do.
        """
        ...


@dataclass(slots=True, kw_only=True)
class _PutOff:
    """What could not be done so far, and until when it is let be."""

    until: datetime
    tries: int = 0
    faults: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class DigestService:
    verifying: VerifyingUploads
    journal: UploadJournal
    digester: BlobDigester
    completion: Completion
    recorder: EventRecorder
    clock: Clock
    _put_off: dict[UploadId, _PutOff] = field(default_factory=dict, init=False)

    async def run(self) -> None:
        """Digest whatever waits, until cancelled; no error ends it."""
        while True:
            try:
                has_worked = await self.run_once()
            except Exception:  # noqa: BLE001  whatever it is, the next upload is not to blame
                # Nobody would start it again, and then no such upload would ever be a file.
                _log.exception("digesting_failed")
                has_worked = False
            if not has_worked:
                await asyncio.sleep(PAUSE_SECONDS)

    async def run_once(self) -> bool:
        """Digest one upload and make a file of it; False if none waits.

        What cannot be done at the moment is left, and tried again after a while. Whatever goes
        wrong with one upload, the others have their turn.
        """
        now = self.clock.now()
        for upload_id in [
            each for each, off in self._put_off.items() if off.until + FORGOTTEN_AFTER <= now
        ]:
            del self._put_off[upload_id]
        waiting = [each for each, off in self._put_off.items() if off.until > now]
        async with self.verifying.claim(but=waiting) as found:
            if found is None:
                return False
            tenant_id, upload_id = found
            call = Call(request_id=new_id().hex, recorder=self.recorder, tenant_id=tenant_id)
            with serving(call):
                await self._try(tenant_id, upload_id)
        return True

    async def _try(self, tenant_id: TenantId, upload_id: UploadId) -> None:
        try:
            await self._complete(tenant_id, upload_id)
        except MaasError as exc:
            # A refusal of the file is kept with the upload, whose sender asks for it.
            _log.info("upload_not_completed", upload_id=str(upload_id), error=exc.code)
            self._leave(upload_id)
        except Exception:  # noqa: BLE001  whatever it is, the next upload is not to blame
            _log.exception("upload_not_completed", upload_id=str(upload_id))
            off = self._leave(upload_id)
            off.faults += 1
            if off.faults >= MAX_TRIES:
                await self._give_up(tenant_id, upload_id)
        else:
            self._put_off.pop(upload_id, None)

    def _leave(self, upload_id: UploadId) -> _PutOff:
        """Put an upload off, longer each time."""
        now = self.clock.now()
        off = self._put_off.setdefault(upload_id, _PutOff(until=now))
        off.until = now + min(AGAIN_AFTER * 2 ** min(off.tries, MAX_TRIES), AGAIN_AT_MOST)
        off.tries += 1
        return off

    async def _give_up(self, tenant_id: TenantId, upload_id: UploadId) -> None:
        """Have an upload failed that ran into errors again and again: it would hold up a version.

        If this fails as well, the upload stays put off.
        """
        try:
            upload = await self.journal.get(tenant_id, upload_id, None)
            await self.completion.refuse(upload, UploadNotCompletedError())
        except Exception:  # noqa: BLE001  it is tried again with the upload
            _log.exception("upload_not_given_up", upload_id=str(upload_id))

    async def _complete(self, tenant_id: TenantId, upload_id: UploadId) -> None:
        upload = await self.journal.get(tenant_id, upload_id, None)
        parts = await self.journal.list_parts(tenant_id, upload_id)
        try:
            digest = await self.digester.digest(parts)
        except CorruptBlobError as exc:
            # Reading it again would not help: nobody but its sender has these bytes.
            await self.completion.refuse(upload, exc)
            raise
        await self.completion.complete(upload, digest)
