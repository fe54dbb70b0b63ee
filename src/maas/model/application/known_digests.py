"""The hashes of uploads under way, as far as this process has seen all of their bytes."""

import hashlib
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

from maas.model.application.upload_ports import RunningDigest
from maas.model.domain.resumable import UploadId

MAX_KNOWN_DIGESTS: Final = 10_000


@dataclass(slots=True)
class KnownDigests:
    """Hashes of what this process has seen of uploads from their first byte on."""

    _known: OrderedDict[UploadId, tuple[int, RunningDigest]] = field(default_factory=OrderedDict)

    def take(self, upload_id: UploadId, offset: int) -> RunningDigest | None:
        """Give a hash of all bytes before the offset, if there is one; it is not kept then."""
        known = self._known.pop(upload_id, None)
        if offset == 0:
            return hashlib.sha256()
        return known[1] if known is not None and known[0] == offset else None

    def keep(self, upload_id: UploadId, offset: int, digest: RunningDigest | None) -> None:
        if digest is None:
            return
        self._known[upload_id] = offset, digest
        if len(self._known) > MAX_KNOWN_DIGESTS:
            self._known.popitem(last=False)
