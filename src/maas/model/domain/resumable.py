"""Uploads that go on where they broke off: what is known of one, and what it may refuse."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal, NewType, TypeAlias
from uuid import UUID

from typing_extensions import override

from maas.model.domain.blob import Digest
from maas.model.domain.file import FilePath
from maas.model.domain.text import VersionName
from maas.model.public import ModelId, VersionId
from maas.shared.domain.errors import (
    ChunkMismatchError,
    ConflictError,
    InvalidInputError,
    NotFoundError,
    PermissionDeniedError,
    RuleViolatedError,
    TooManyRequestsError,
)
from maas.user.public import Payer

UploadId = NewType("UploadId", UUID)
UploadKind: TypeAlias = Literal["whole", "partial", "final"]
UploadState: TypeAlias = Literal["uploading", "verifying", "done", "failed"]

LIFETIME: Final = timedelta(hours=24)
"""An upload that nobody goes on with expires after so long."""

LEASE: Final = LIFETIME + timedelta(hours=1)
MAX_UPLOADS_EACH: Final = 1_000
MAX_CONCATENATED: Final = 1_000
SPARE_PARTS: Final = 10_000
"""How many parts more than whole ones an upload may be cut into, by lines that break."""


class UploadNotFoundError(NotFoundError):
    code = "upload-not-found"
    title = "No such upload"

    def __init__(self) -> None:
        super().__init__("It was never there, is another's, was ended or has expired: begin anew.")


class UploadOffsetError(ConflictError):
    code = "upload-offset-mismatch"
    title = "The upload goes on elsewhere"

    def __init__(self, offset: int) -> None:
        super().__init__(
            "`Upload-Offset` is not where the stored bytes end: ask with HEAD and go on from there."
        )
        self.offset = offset

    @property
    @override
    def extensions(self) -> Mapping[str, object]:
        return {"offset": self.offset}


class UploadTakenOverError(ConflictError):
    code = "upload-taken-over"
    title = "Somebody else goes on with the upload"

    def __init__(self) -> None:
        super().__init__(
            "A later request sends to this upload; of this one, what is not told by HEAD was "
            "dropped."
        )


class UploadEndedError(RuleViolatedError):
    code = "upload-ended"
    title = "The upload takes no more bytes"

    def __init__(self, state: UploadState) -> None:
        super().__init__(f"The upload is {state}: nothing can be added to it.")


class FinalUploadError(PermissionDeniedError):
    code = "upload-is-final"
    title = "The upload is made of others"

    def __init__(self) -> None:
        super().__init__("What was put together of partial uploads takes no bytes of its own.")


class UploadUnfinishedError(RuleViolatedError):
    code = "upload-unfinished"
    title = "A part of it is not complete"

    def __init__(self) -> None:
        super().__init__(
            "Only partial uploads that are complete, and used nowhere yet, can be put together."
        )


class UploadPayerError(RuleViolatedError):
    code = "upload-of-another-key"
    title = "A part of it is held for somebody else"

    def __init__(self) -> None:
        super().__init__(
            "Storage for a partial upload is charged to whoever began it: put parts together with "
            "the API key, or the kind of sign-in, that they were begun with."
        )


class SenderRefusedError(PermissionDeniedError):
    code = "upload-sender-refused"
    title = "Its sender may not write files any more"

    def __init__(self) -> None:
        super().__init__(
            "When all of it was there, the account or key that sent it was suspended, revoked or "
            "without `model:write`: upload the file anew."
        )


class TooManyUploadsError(TooManyRequestsError):
    code = "too-many-uploads"
    title = "Too many uploads are under way"

    def __init__(self) -> None:
        super().__init__(
            f"You have {MAX_UPLOADS_EACH} uploads under way: finish or end some of them first."
        )


class UploadInPiecesError(RuleViolatedError):
    code = "upload-in-pieces"
    title = "The upload came in too many pieces"

    def __init__(self) -> None:
        super().__init__("Send more bytes a request: end this upload and begin it anew.")


class UploadsUnderWayError(RuleViolatedError):
    code = "uploads-under-way"
    title = "Files are still being uploaded"

    def __init__(self, under_way: Sequence[UploadId]) -> None:
        super().__init__(
            "Uploads into the version are under way: let them end, or end them, and try again. The "
            "model's owner, and whoever holds `model:manage`, may end those of others too."
        )
        self.under_way = under_way

    @property
    @override
    def extensions(self) -> Mapping[str, object]:
        return {"uploads": [str(upload_id) for upload_id in self.under_way]}


class InvalidUploadError(InvalidInputError):
    code = "invalid-upload"
    title = "Not an upload as the protocol has it"


class ChunkChecksumError(ChunkMismatchError):
    code = "chunk-checksum-mismatch"
    title = "The bytes differ from their checksum"

    def __init__(self) -> None:
        super().__init__("What this request brought was dropped; send it again.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Which file an upload is to become; `sha256` is what the sender announced of it."""

    model_id: ModelId
    version_id: VersionId
    version: VersionName
    path: FilePath
    media_type: str
    sha256: Digest | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ResumableUpload:
    """An upload as it stands: its first `offset` bytes are durable, in `part_count` parts.

    `metadata` and `concat` are told back as they were sent. Partial uploads have no target: they
    are put together first.
    """

    id: UploadId
    payer: Payer
    kind: UploadKind
    concat: str | None
    metadata: str | None
    target: Target | None
    length: int
    offset: int
    part_count: int
    state: UploadState
    problem_code: str | None
    problem_detail: str | None
    created_at: datetime
    updated_at: datetime
    expires_at: datetime

    @property
    def is_complete(self) -> bool:
        return self.offset == self.length

    def get_target(self) -> Target:
        """Tell what it is to become.

        Raises:
            ValueError: it is partial.
        """
        if self.target is None:
            message = "a partial upload has no target"
            raise ValueError(message)
        return self.target

    def why_not(self, offset: int) -> Exception:
        """Tell why bytes cannot be added at this offset, though the upload is there."""
        if self.kind == "final":
            return FinalUploadError()
        if self.state != "uploading":
            return UploadEndedError(self.state)
        if self.offset != offset:
            return UploadOffsetError(self.offset)
        return UploadTakenOverError()
