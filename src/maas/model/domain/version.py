"""A version of a model: a life from `pending` to `archived`, and files that are fixed by then."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol, TypedDict

from typing_extensions import Unpack

from maas.model.domain.blob import Blob, Digest
from maas.model.domain.facts import Facts
from maas.model.domain.file import FilePath, VersionFile
from maas.model.domain.metadata import Metadata, MetadataValue, Metrics, are_same
from maas.model.domain.source import UPLOADED, Source
from maas.model.domain.text import Description, Reason, SourceUrl, VersionName
from maas.model.public import ModelId, SourceKind, VersionId, VersionStatus
from maas.shared.domain.errors import ConflictError, NotFoundError, RuleViolatedError
from maas.shared.domain.ids import AccountId, TenantId

MAX_FILES = 1_000

TRANSITIONS: Mapping[VersionStatus, frozenset[VersionStatus]] = {
    "pending": frozenset({"uploading", "failed"}),
    "uploading": frozenset({"validating", "ready", "failed"}),
    "validating": frozenset({"ready", "failed"}),
    "ready": frozenset({"deprecated"}),
    "deprecated": frozenset({"ready", "archived"}),
    "archived": frozenset(),
    "failed": frozenset({"uploading"}),
}
"""Where each status may lead; `failed` may be mended by uploading again."""

OPEN_TO_FILES: frozenset[VersionStatus] = frozenset({"pending", "uploading"})
DELETABLE: frozenset[VersionStatus] = frozenset(
    {"pending", "uploading", "validating", "failed", "archived"}
)
OPEN_TO_LINEAGE: frozenset[VersionStatus] = OPEN_TO_FILES | {"validating", "failed"}
NEEDS_FILES: frozenset[VersionStatus] = frozenset({"validating", "ready"})


class VersionNotFoundError(NotFoundError):
    code = "version-not-found"
    title = "No such version of this model"


class VersionFileNotFoundError(NotFoundError):
    code = "file-not-found"
    title = "No such file in this version"


class VersionTakenError(ConflictError):
    code = "version-taken"
    title = "Version already exists"

    def __init__(self) -> None:
        super().__init__("The model has a version of this name already: choose another.")


class TransitionRefusedError(RuleViolatedError):
    code = "transition-refused"
    title = "The version cannot go there from here"

    def __init__(self, current: VersionStatus) -> None:
        wanted = sorted(TRANSITIONS[current])
        ways = f"it can become {' or '.join(wanted)}" if wanted else "that is final"
        super().__init__(f"The version is {current}: {ways}.")


class VersionEmptyError(RuleViolatedError):
    code = "version-empty"
    title = "The version has no files"

    def __init__(self) -> None:
        super().__init__("Upload at least one file before the version can be validated or ready.")


class VersionFrozenError(RuleViolatedError):
    code = "version-frozen"
    title = "The version's files cannot change any more"

    def __init__(self, status: VersionStatus) -> None:
        super().__init__(
            f"The version is {status}; files change only while it is pending or uploading. "
            "Make a new version instead."
        )


class LineageFrozenError(RuleViolatedError):
    code = "lineage-frozen"
    title = "Where the version comes from cannot change any more"

    def __init__(self, status: VersionStatus) -> None:
        super().__init__(
            f"The version is {status}; its source is fixed with its files. Make a new version "
            "instead."
        )


class VersionInUseError(RuleViolatedError):
    code = "version-in-use"
    title = "The version is in use"

    def __init__(self, status: VersionStatus) -> None:
        super().__init__(f"The version is {status}: deprecate and archive it before deleting it.")


class TooManyFilesError(RuleViolatedError):
    code = "too-many-files"
    title = "The version has all the files it can have"

    def __init__(self) -> None:
        super().__init__(f"A version has at most {MAX_FILES} files.")


class FilePathConflictError(ConflictError):
    code = "file-path-conflict"
    title = "A file cannot be a folder too"

    def __init__(self) -> None:
        super().__init__(
            "The version has a file under a part of this path, or files below it, as in `a` and "
            "`a/b`; no disk could hold both. Choose another path, or delete what is there."
        )


class VersionChanges(TypedDict, total=False):
    """What may be revised; what is absent stays."""

    description: Description | None
    metadata: Metadata
    metrics: Metrics
    source: Source


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """One step of a version's life. `revision` is the one that it led to, and orders them."""

    revision: int
    from_status: VersionStatus
    to_status: VersionStatus
    reason: Reason | None
    by: AccountId
    at: datetime


@dataclass(eq=False, kw_only=True)
class ModelVersion:
    """A version and its files. `revision` counts the changes, for ETags.

    `size` is the bytes of all its files together; `checksum` is that of their list, once they are
    fixed. `transitions` are those since it was loaded. `files` may be those alone that one path can
    meet, if it was loaded for that; `file_count` and `size` are of all of them.
    """

    id: VersionId
    tenant_id: TenantId
    model_id: ModelId
    name: VersionName
    status: VersionStatus = "pending"
    status_reason: Reason | None = None
    description: Description | None
    created_by: AccountId
    created_at: datetime
    updated_at: datetime
    revision: int = 1
    file_count: int = 0
    size: int = 0
    checksum: Digest | None = None
    source_kind: SourceKind = UPLOADED.kind
    source_model_id: ModelId | None = None
    source_version: VersionName | None = None
    source_url: SourceUrl | None = None
    facts: Facts | None = None
    files: dict[FilePath, VersionFile] = field(default_factory=dict)
    metadata: dict[str, MetadataValue] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    transitions: list[Transition] = field(default_factory=list)

    @property
    def source(self) -> Source:
        return Source(
            kind=self.source_kind,
            model_id=self.source_model_id,
            version=self.source_version,
            url=self.source_url,
        )

    @source.setter
    def source(self, source: Source) -> None:
        self.source_kind = source.kind
        self.source_model_id = source.model_id
        self.source_version = source.version
        self.source_url = source.url

    def revise(self, *, at: datetime, **changes: Unpack[VersionChanges]) -> None:
        """Set what is given; metadata and metrics are replaced as a whole, in any status.

        What changes nothing leaves the revision as it is.

        Raises:
            LineageFrozenError: the source would change, and is fixed in this status.
        """
        described = changes.get("description", self.description)
        source = changes.get("source", self.source)
        metadata = self.metadata if "metadata" not in changes else changes["metadata"].entries
        metrics = self.metrics if "metrics" not in changes else changes["metrics"].values
        if source != self.source and self.status not in OPEN_TO_LINEAGE:
            raise LineageFrozenError(self.status)
        is_same = (described, source, metrics) == (self.description, self.source, self.metrics)
        if is_same and are_same(metadata, self.metadata):
            return
        self.description, self.source = described, source
        self.metadata, self.metrics = dict(metadata), dict(metrics)
        self._touch(at)

    def move_to(
        self, status: VersionStatus, *, reason: Reason | None, by: AccountId, at: datetime
    ) -> None:
        """Go on to another status; from `ready` on, the checksum of the files is fixed.

        Raises:
            TransitionRefusedError: no way leads there from the present one.
            VersionEmptyError: there is nothing to validate or to be ready with.
        """
        if status not in TRANSITIONS[self.status]:
            raise TransitionRefusedError(self.status)
        if status in NEEDS_FILES and not self.file_count:
            raise VersionEmptyError
        if status == "ready" and self.checksum is None:
            self.checksum = self._checksum_files()
        self._enter(status, reason=reason, by=by, at=at)

    def check_open(self, path: FilePath | None = None) -> None:
        """Refuse unless files may change now, and, given a path, there is room and place for it.

        Raises:
            VersionFrozenError: the files are fixed in this status.
            TooManyFilesError: the path would be one too many.
            FilePathConflictError: the path would make a folder of a file, or a file of a folder.
        """
        if self.status not in OPEN_TO_FILES:
            raise VersionFrozenError(self.status)
        if path is None or path in self.files:
            return
        if self.file_count >= MAX_FILES:
            raise TooManyFilesError
        if any(path.is_below(other) or other.is_below(path) for other in self.files):
            raise FilePathConflictError

    def find_digest(self, path: FilePath) -> Digest | None:
        file = self.files.get(path)
        return None if file is None else file.sha256

    def put_file(
        self, path: FilePath, blob: Blob, *, media_type: str, by: AccountId, at: datetime
    ) -> VersionFile:
        """Have the blob under the path; the first file starts `uploading`.

        Raises:
            VersionFrozenError, TooManyFilesError, FilePathConflictError: as `check_open`.
        """
        self.check_open(path)
        file = self.files.get(path)
        if file is not None:
            self.size -= file.size
            file.replace(blob, media_type=media_type, by=by, at=at)
        else:
            self.file_count += 1
            file = VersionFile(
                version_id=self.id,
                tenant_id=self.tenant_id,
                path=path,
                sha256=blob.sha256,
                size=blob.size,
                media_type=media_type,
                created_by=by,
                created_at=at,
            )
            self.files[path] = file
        self.size += blob.size
        if self.status == "pending":
            self._enter("uploading", reason=None, by=by, at=at)
        else:
            self._touch(at)
        return file

    def remove_file(self, path: FilePath, *, at: datetime) -> Digest:
        """Drop the file and tell which bytes it had.

        Raises:
            VersionFrozenError: the files are fixed in this status.
            VersionFileNotFoundError: nothing is under this path.
        """
        self.check_open()
        if path not in self.files:
            raise VersionFileNotFoundError
        self._touch(at)
        file = self.files.pop(path)
        self.file_count -= 1
        self.size -= file.size
        return file.sha256

    def check_deletable(self) -> None:
        """Refuse while somebody may rely on it.

        Raises:
            VersionInUseError: it is ready or deprecated.
        """
        if self.status not in DELETABLE:
            raise VersionInUseError(self.status)

    def _checksum_files(self) -> Digest:
        """Hash the files' paths and digests, in the order of the bytes of the paths.

        Raises:
            RuntimeError: not all of them are loaded.
        """
        if len(self.files) != self.file_count:
            message = "the checksum is that of all files: load the version with all of them"
            raise RuntimeError(message)
        listed = hashlib.sha256()
        for path in sorted(self.files, key=lambda path: path.value.encode()):
            listed.update(f"{path}\0{self.files[path].sha256}\n".encode())
        return Digest(listed.digest())

    def _enter(
        self, status: VersionStatus, *, reason: Reason | None, by: AccountId, at: datetime
    ) -> None:
        previous, self.status, self.status_reason = self.status, status, reason
        self._touch(at)
        self.transitions.append(
            Transition(
                revision=self.revision,
                from_status=previous,
                to_status=status,
                reason=reason,
                by=by,
                at=at,
            )
        )

    def _touch(self, at: datetime) -> None:
        self.updated_at = at
        self.revision += 1


class VersionRepository(Protocol):
    """Finds the versions of those models that the caller may see in this tenant."""

    async def get(
        self,
        model_id: ModelId,
        name: VersionName,
        *,
        lock: bool = True,
        near: FilePath | None = None,
    ) -> ModelVersion:
        """Load a version of a model that is not deleted, with its files.

        Given a path, only with the files that one under it replaces, or stands in the way of: it is
        asked for once in a unit of work, for one path. Locked by default, so that what was checked
        stays so until the commit.

        Raises:
            ModelNotFoundError: the model is not there, hidden, or another tenant's.
            VersionNotFoundError: the model is, the version is not.
        """
        ...

    async def is_readable(self, model_id: ModelId, name: VersionName) -> bool:
        """Tell whether the caller reads such a version, be it another tenant's."""
        ...

    def add(self, version: ModelVersion) -> None: ...

    async def remove(self, version: ModelVersion) -> None: ...
