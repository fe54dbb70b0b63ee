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
from maas.shared.domain.errors import MaasError
from maas.shared.domain.ids import TenantId, new_id

PAUSE_SECONDS: Final = 2.0
AGAIN_AFTER: Final = timedelta(seconds=30)

_log = structlog.get_logger(__name__)


class VerifyingUploads(Protocol):
    def claim(
        self, *, but: Sequence[UploadId]
    ) -> AbstractAsyncContextManager[tuple[TenantId, UploadId] | None]:
        """Take the upload that waits longest for its digest, if there is one.

        For the length of the block nobody else gets it; if this process is killed, others do.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class DigestService:
    verifying: VerifyingUploads
    journal: UploadJournal
    digester: BlobDigester
    completion: Completion
    recorder: EventRecorder
    clock: Clock
    _put_off: dict[UploadId, datetime] = field(default_factory=dict, init=False)

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

        What cannot be done at the moment is left, and tried again after a while.
        """
        now = self.clock.now()
        for upload_id in [each for each, until in self._put_off.items() if until <= now]:
            del self._put_off[upload_id]
        async with self.verifying.claim(but=list(self._put_off)) as found:
            if found is None:
                return False
            tenant_id, upload_id = found
            call = Call(request_id=new_id().hex, recorder=self.recorder, tenant_id=tenant_id)
            try:
                with serving(call):
                    await self._complete(tenant_id, upload_id)
            except MaasError as exc:
                # A refusal of the file is kept with the upload, whose sender asks for it.
                _log.info("upload_not_completed", upload_id=str(upload_id), error=exc.code)
                self._put_off[upload_id] = now + AGAIN_AFTER
        return True

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
