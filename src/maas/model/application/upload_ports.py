"""What uploads that go on where they broke off need from the outside."""

from collections.abc import AsyncGenerator, AsyncIterable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, Self
from uuid import UUID

from maas.model.domain.blob import Part
from maas.model.domain.file import FilePath
from maas.model.domain.resumable import ResumableUpload, UploadId
from maas.model.public import VersionId
from maas.shared.domain.ids import AccountId, TenantId
from maas.user.public import Hold


class RunningDigest(Protocol):
    """A hash that goes on; one of `hashlib`, for example."""

    def update(self, data: bytes | memoryview, /) -> None: ...

    def copy(self) -> Self: ...

    def digest(self) -> bytes: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredPart:
    """A durable part, and the hash of all bytes up to its end, where all of them were seen."""

    part: Part
    whole: RunningDigest | None


class PartStream(Protocol):
    def append(
        self,
        upload_id: UUID,
        writer: UUID,
        body: AsyncIterable[bytes],
        *,
        limit_bytes: int,
        whole: RunningDigest | None,
    ) -> AsyncGenerator[StoredPart, None]:
        """Store a body part by part, and give each once it is durable.

        What has come of a body that breaks off is stored as well, and its error raised then.

        Raises:
            BodyCutOffError, SlowRequestError: the body broke off.
            FileTooLargeError: more than `limit_bytes` came.
            TooManyTransfersError: there is no memory for what arrives.
            ArtifactStoreFullError, ArtifactStoreUnavailableError: a part could not be written.
        """
        ...

    async def discard(self, keys: list[str]) -> None:
        """Remove parts that nobody noted; what cannot be removed is logged and stays."""
        ...


@dataclass(frozen=True, slots=True)
class EarlierUpload:
    """An upload of a file that another one is begun of, and what it holds."""

    id: UploadId
    holds: list[Hold]


class UploadRepository(Protocol):
    """Uploads in the unit of work: what begins them, and what ends them."""

    async def count(self, account_id: AccountId) -> int:
        """Tell how many uploads of the account are not done; expired ones count.

        Nobody else counts them until the commit: of many begun at once, none is one too many.
        """
        ...

    async def add(self, upload: ResumableUpload, holds: Sequence[Hold]) -> None: ...

    async def concatenate(
        self,
        final: ResumableUpload,
        partials: Sequence[UploadId],
        account_id: AccountId,
        *,
        check: Callable[[ResumableUpload], None],
    ) -> ResumableUpload:
        """Let the final upload have the parts and the holds of these, which are gone then.

        It is told back with the length that comes of them; `check` judges it before.

        Raises:
            UploadNotFoundError, UploadUnfinishedError: of one of the partial uploads.
            UploadPayerError: the final upload's payer is not who pays for all of them.
        """
        ...

    async def list_earlier(
        self, account_id: AccountId, version_id: VersionId, path: FilePath
    ) -> list[EarlierUpload]:
        """List what the account is uploading to this path; it stays as it is until the commit."""
        ...

    async def remove(
        self, upload_id: UploadId, account_id: AccountId, *, is_manager: bool = False
    ) -> list[Part]:
        """End an upload, in whatever state; tell the parts that belong to nobody now.

        It is the account's own, or goes into a model that the account owns or, if it manages
        models, may manage.

        Raises:
            UploadNotFoundError: it is not there, or not for the account to end.
        """
        ...

    async def finish(self, upload_id: UploadId, at: datetime) -> None:
        """Have it done: its parts are a file's, and what it holds is booked.

        Raises:
            UploadEndedError: somebody else was first.
        """
        ...

    async def list_under_way(self, version_id: VersionId, at: datetime) -> list[UploadId]:
        """Name uploads into the version that may still go on: the first hundred."""
        ...


class UploadJournal(Protocol):
    """How far uploads have come, written down part by part; nothing here is an act of anybody."""

    async def get(
        self, tenant_id: TenantId, upload_id: UploadId, account_id: AccountId | None
    ) -> ResumableUpload:
        """Read an upload of the account, or, without one, of anybody in the tenant.

        Raises:
            UploadNotFoundError: it is not there, somebody else's, or has expired.
        """
        ...

    async def find_final(
        self, tenant_id: TenantId, account_id: AccountId, concat: str, metadata: str | None
    ) -> ResumableUpload | None:
        """Look up what was put together before under this header, for the same file."""
        ...

    async def begin(
        self, upload: ResumableUpload, *, writer: UUID, offset: int, expires_at: datetime
    ) -> bool:
        """Let the writer go on from the offset, and whoever wrote before no more.

        False if the upload takes no bytes there.
        """
        ...

    async def leave(
        self, upload: ResumableUpload, *, writer: UUID, offset: int, expires_at: datetime
    ) -> None:
        """Let the upload expire as if the writer, who brought nothing, had never begun."""
        ...

    async def add(
        self,
        upload: ResumableUpload,
        *,
        writer: UUID,
        offset: int,
        parts: Sequence[Part],
        expires_at: datetime,
    ) -> bool:
        """Note parts from this offset on; False if the writer is no longer the one who may.

        The last one has a whole upload `verifying`.
        """
        ...

    async def list_parts(self, tenant_id: TenantId, upload_id: UploadId) -> list[Part]: ...

    async def list_holds(self, tenant_id: TenantId, upload_id: UploadId) -> list[Hold]: ...

    async def fail(self, upload: ResumableUpload, *, code: str, detail: str) -> list[Part]:
        """Have a complete upload failed for good; tell the parts that belong to nobody now."""
        ...
