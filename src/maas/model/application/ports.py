"""What the use cases of the registry need from the outside."""

from collections.abc import AsyncGenerator, AsyncIterable, Callable
from datetime import timedelta
from types import TracebackType
from typing import Protocol, Self, TypeAlias

from maas.model.domain.blob import Blob, BlobRepository, Digest, Upload
from maas.model.domain.model import ModelRepository
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


class ModelUnitOfWork(Protocol):
    """One transaction over the registry.

    `commit()` turns a lost race for a name into `ModelNameTakenError` or `VersionTakenError`.
    """

    models: ModelRepository
    versions: VersionRepository
    blobs: BlobRepository

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    async def commit(self, result: object = None) -> None: ...
