"""What the use cases of the registry need from the outside."""

from collections.abc import AsyncGenerator, AsyncIterable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import TracebackType
from typing import Protocol, Self, TypeAlias

from maas.model.application.storage import ChargeRepository
from maas.model.application.upload_ports import UploadRepository
from maas.model.domain.alias import AliasRepository
from maas.model.domain.blob import Blob, BlobRepository, Digest, Part, Upload
from maas.model.domain.facts import FactsRepository
from maas.model.domain.model import ModelRepository
from maas.model.domain.settings import ModelSettingsRepository
from maas.model.domain.version import VersionRepository
from maas.shared.domain.errors import (
    InvalidInputError,
    PayloadTooLargeError,
    StorageFullError,
    UnavailableError,
)

CheckRevision: TypeAlias = Callable[[int], None]
"""Raises `PreconditionFailedError` unless the revision is one the caller's If-Match names."""

CheckDigest: TypeAlias = Callable[[Digest | None], None]
"""Raises `PreconditionFailedError` unless the caller's conditions let go of what is there."""


class FileTooLargeError(PayloadTooLargeError):
    code = "file-too-large"
    title = "The file is too large"

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(f"A file has at most {limit_bytes} bytes here.")


class BodyCutOffError(InvalidInputError):
    code = "body-cut-off"
    title = "The body ended too early"

    def __init__(self) -> None:
        super().__init__("Fewer bytes came than were announced; nothing was kept. Send it again.")


class ArtifactStoreFullError(StorageFullError):
    code = "artifact-store-full"
    title = "The artifact store is full"

    def __init__(self) -> None:
        super().__init__("There is no room for the file; nothing of it was kept.")


class ArtifactStoreUnavailableError(UnavailableError):
    code = "artifact-store-unavailable"
    title = "The artifact store does not answer"


class TooManyTransfersError(UnavailableError):
    code = "too-many-transfers"
    title = "Too many files are on their way"

    def __init__(self) -> None:
        super().__init__(
            "The memory for files in transit is taken. Retry shortly.",
            retry_after=timedelta(seconds=5),
        )


class CorruptBlobError(UnavailableError):
    """The store gave other bytes than it was given: an operator must look at it."""

    code = "blob-corrupt"
    title = "The stored file is damaged"

    def __init__(self) -> None:
        super().__init__("The stored bytes do not match their digest, so they are not delivered.")


class ArtifactStore(Protocol):
    """Keeps the bytes of files in immutable parts; memory is bounded by a few parts."""

    async def receive(self, body: AsyncIterable[bytes], *, limit_bytes: int) -> Upload:
        """Store a body as it comes; when this returns, every part of it is durable.

        If the body breaks off, the store fails or the task is cancelled, what was written is
        removed.

        Raises:
            FileTooLargeError: more than `limit_bytes` came.
            TooManyTransfersError: there is no memory for what arrives.
            ArtifactStoreFullError, ArtifactStoreUnavailableError: a part could not be written.
        """
        ...

    async def has_all(self, blob: Blob) -> bool:
        """Tell whether every part is there in full, and none was found damaged when last read.

        Cheap: nothing is read. A store that cannot tell is taken to have everything.
        """
        ...

    async def discard(self, blob: Blob) -> None:
        """Remove the parts of an upload that nothing refers to.

        What cannot be removed is logged and stays in the store; nothing is raised.
        """
        ...

    def read(self, blob: Blob, *, start: int, stop: int) -> AsyncGenerator[bytes, None]:
        """Give bytes `start` up to `stop`, each checked against its part's digest before.

        Raises:
            CorruptBlobError: a part is missing or not what was stored.
            TooManyTransfersError: before anything is read.
            ArtifactStoreUnavailableError: the store does not answer.
        """
        ...


class BlobDigester(Protocol):
    """Computes what a whole file's digest is where its bytes did not come in order."""

    async def digest(self, parts: Sequence[Part]) -> Digest:
        """Read the parts one after the other, each checked, and digest them as one file.

        It takes as long as reading takes; memory is bounded by two parts.

        Raises:
            CorruptBlobError: a part is missing or not what was stored.
            TooManyTransfersError: before anything is read.
            ArtifactStoreUnavailableError: the store does not answer.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFolder:
    """What an upload has in the store under its id, and when the last of it changed."""

    name: str
    keys: tuple[str, ...]
    changed_at: datetime


class StoredParts(Protocol):
    """The store, as the collection sees it: folders of uploads, and parts that are to go."""

    async def delete(self, keys: Sequence[str]) -> None:
        """Delete parts and what lies beside them, those included that are not there any more.

        Raises:
            ArtifactStoreUnavailableError: some may be left.
        """
        ...

    async def list_folders(self, *, after: str, before: str, limit: int) -> list[StoredFolder]:
        """List uploads by their id, of those between two ids alone.

        Raises:
            ArtifactStoreUnavailableError: the store does not answer.
        """
        ...


class ModelUnitOfWork(Protocol):
    """One transaction over the registry.

    `commit()` turns a lost race for a name into `ModelNameTakenError` or `VersionTakenError`.

    Locks are taken in one order, or two transactions could wait for one another: an upload's
    claim; one model or one version; an alias, then the count of aliases; a blob; uploads by their
    ids; rows of searches by their versions' ids, which triggers see to. Models, versions and
    aliases are locked `FOR NO KEY UPDATE`, so that nobody who adds a row that refers to them waits.
    """

    models: ModelRepository
    versions: VersionRepository
    blobs: BlobRepository
    aliases: AliasRepository
    facts: FactsRepository
    settings: ModelSettingsRepository
    uploads: UploadRepository
    charges: ChargeRepository

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    async def commit(self, result: object = None) -> None: ...
