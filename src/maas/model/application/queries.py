"""What is shown of models, and the questions that are asked without loading an aggregate."""

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, Self

from maas.model.domain.blob import Blob, Digest
from maas.model.domain.file import FilePath, VersionFile
from maas.model.domain.model import Model
from maas.model.domain.text import VersionName
from maas.model.domain.version import ModelVersion
from maas.model.public import Framework, ModelId, VersionId, VersionStatus
from maas.shared.domain.ids import AccountId, TenantId
from maas.shared.domain.page import Page, PageRequest, TextPageRequest, TextPosition


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelDetails:
    id: ModelId
    name: str
    description: str | None
    framework: Framework
    task: str | None
    licence: str | None
    created_by: AccountId
    created_at: datetime
    updated_at: datetime
    revision: int

    @classmethod
    def of(cls, model: Model) -> Self:
        return cls(
            id=model.id,
            name=str(model.name),
            description=_text(model.description),
            framework=model.framework,
            task=_text(model.task),
            licence=_text(model.licence),
            created_by=model.created_by,
            created_at=model.created_at,
            updated_at=model.updated_at,
            revision=model.revision,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionDetails:
    """`size` is the bytes of all its files together."""

    id: VersionId
    model_id: ModelId
    version: str
    status: VersionStatus
    status_reason: str | None
    description: str | None
    file_count: int
    size: int
    created_by: AccountId
    created_at: datetime
    updated_at: datetime
    revision: int

    @classmethod
    def of(cls, version: ModelVersion) -> Self:
        return cls(
            id=version.id,
            model_id=version.model_id,
            version=str(version.name),
            status=version.status,
            status_reason=_text(version.status_reason),
            description=_text(version.description),
            file_count=len(version.files),
            size=sum(file.size for file in version.files.values()),
            created_by=version.created_by,
            created_at=version.created_at,
            updated_at=version.updated_at,
            revision=version.revision,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class FileDetails:
    path: str
    size: int
    sha256: Digest
    media_type: str
    created_at: datetime

    @classmethod
    def of(cls, file: VersionFile) -> Self:
        return cls(
            path=str(file.path),
            size=file.size,
            sha256=file.sha256,
            media_type=file.media_type,
            created_at=file.created_at,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """A file and where its bytes are."""

    version_id: VersionId
    path: FilePath
    blob: Blob


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFilter:
    """`search` is a part of name or description, in any case, without wildcards."""

    framework: Framework | None = None
    task: str | None = None
    search: str | None = None


class ModelQueries(Protocol):
    """Every answer is of one tenant; what is another's is not found."""

    async def get_model(self, tenant_id: TenantId, model_id: ModelId) -> ModelDetails:
        """Raises ModelNotFoundError."""
        ...

    async def list_models(
        self, tenant_id: TenantId, wanted: ModelFilter, page: PageRequest
    ) -> Page[ModelDetails]: ...

    async def get_version(
        self, tenant_id: TenantId, model_id: ModelId, version: VersionName
    ) -> VersionDetails:
        """Raises ModelNotFoundError, VersionNotFoundError."""
        ...

    async def list_versions(
        self, tenant_id: TenantId, model_id: ModelId, page: PageRequest
    ) -> Page[VersionDetails]:
        """Raises ModelNotFoundError."""
        ...

    async def list_files(
        self, tenant_id: TenantId, model_id: ModelId, version: VersionName, page: TextPageRequest
    ) -> Page[FileDetails, TextPosition]:
        """List files of a version, by path.

        Raises ModelNotFoundError, VersionNotFoundError.
        """
        ...

    async def get_file(
        self, tenant_id: TenantId, model_id: ModelId, version: VersionName, path: FilePath
    ) -> StoredFile:
        """Raises ModelNotFoundError, VersionNotFoundError, VersionFileNotFoundError."""
        ...


def _text(value: object | None) -> str | None:
    return None if value is None else str(value)
