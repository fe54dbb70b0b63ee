"""What is shown of models, and the questions that are asked without loading an aggregate."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, Self

from maas.model.domain.blob import Blob, Digest
from maas.model.domain.facts import Facts
from maas.model.domain.file import FilePath, VersionFile
from maas.model.domain.metadata import MetadataValue
from maas.model.domain.model import Model
from maas.model.domain.source import Source
from maas.model.domain.text import VersionName
from maas.model.domain.version import ModelVersion
from maas.model.public import (
    Framework,
    ModelId,
    SourceKind,
    VersionId,
    VersionStatus,
    Visibility,
)
from maas.shared.domain.grants import Grant
from maas.shared.domain.ids import AccountId, TenantId
from maas.shared.domain.page import Page, PageRequest, TextPageRequest, TextPosition
from maas.shared.domain.principal import Principal


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSummary:
    """What lists show of a model: everything but its card, which may be long."""

    id: ModelId
    tenant_id: TenantId
    name: str
    description: str | None
    framework: Framework
    task: str | None
    licence: str | None
    visibility: Visibility
    owner_id: AccountId
    tags: Sequence[str]
    metadata: Mapping[str, MetadataValue]
    created_by: AccountId
    created_at: datetime
    updated_at: datetime
    deleted_at: datetime | None
    revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelDetails(ModelSummary):
    card: str | None

    @classmethod
    def of(cls, model: Model) -> Self:
        return cls(
            id=model.id,
            tenant_id=model.tenant_id,
            name=str(model.name),
            description=_text(model.description),
            framework=model.framework,
            task=_text(model.task),
            licence=_text(model.licence),
            visibility=model.visibility,
            owner_id=model.owner_id,
            tags=sorted(map(str, model.tags)),
            metadata=dict(model.metadata),
            created_by=model.created_by,
            created_at=model.created_at,
            updated_at=model.updated_at,
            deleted_at=model.deleted_at,
            revision=model.revision,
            card=_text(model.card),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceDetails:
    kind: SourceKind
    model_id: ModelId | None
    version: str | None
    url: str | None

    @classmethod
    def of(cls, source: Source) -> Self:
        return cls(
            kind=source.kind,
            model_id=source.model_id,
            version=_text(source.version),
            url=_text(source.url),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionDetails:
    """`size` is the bytes of all its files together, `checksum` that of their list."""

    id: VersionId
    model_id: ModelId
    version: str
    status: VersionStatus
    status_reason: str | None
    description: str | None
    file_count: int
    size: int
    checksum: Digest | None
    source: SourceDetails
    metrics: Mapping[str, float]
    metadata: Mapping[str, MetadataValue]
    facts: Facts | None
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
            file_count=version.file_count,
            size=version.size,
            checksum=version.checksum,
            source=SourceDetails.of(version.source),
            metrics=dict(version.metrics),
            metadata=dict(version.metadata),
            facts=version.facts,
            created_by=version.created_by,
            created_at=version.created_at,
            updated_at=version.updated_at,
            revision=version.revision,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TransitionDetails:
    """`revision` is the one the transition led to."""

    revision: int
    from_status: VersionStatus
    to_status: VersionStatus
    reason: str | None
    by: AccountId
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class FileDetails:
    path: str
    size: int
    sha256: Digest
    media_type: str
    facts: Facts | None
    created_at: datetime

    @classmethod
    def of(cls, file: VersionFile, facts: Facts | None) -> Self:
        return cls(
            path=str(file.path),
            size=file.size,
            sha256=file.sha256,
            media_type=file.media_type,
            facts=facts,
            created_at=file.created_at,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """A file and where its bytes are."""

    version_id: VersionId
    path: FilePath
    blob: Blob


class ModelQueries(Protocol):
    """What a caller may see: the own tenant's, what is public, and what is granted to the tenant.

    Of private models only the owner's, or all for who manages models. The rest is not found.
    """

    async def get_model(self, principal: Principal, model_id: ModelId) -> ModelDetails:
        """Raises ModelNotFoundError."""
        ...

    async def list_grants(
        self, principal: Principal, model_id: ModelId, page: PageRequest
    ) -> Page[Grant]:
        """List to whom a model of the caller's own tenant is granted, newest first.

        Raises ModelNotFoundError.
        """
        ...

    async def get_version(
        self, principal: Principal, model_id: ModelId, version: VersionName
    ) -> VersionDetails:
        """Raises ModelNotFoundError, VersionNotFoundError."""
        ...

    async def list_versions(
        self, principal: Principal, model_id: ModelId, page: PageRequest
    ) -> Page[VersionDetails]:
        """Raises ModelNotFoundError."""
        ...

    async def list_transitions(
        self, principal: Principal, model_id: ModelId, version: VersionName, page: PageRequest
    ) -> Page[TransitionDetails]:
        """List what a version went through, newest first.

        Raises ModelNotFoundError, VersionNotFoundError.
        """
        ...

    async def list_files(
        self, principal: Principal, model_id: ModelId, version: VersionName, page: TextPageRequest
    ) -> Page[FileDetails, TextPosition]:
        """List files of a version, by path.

        Raises ModelNotFoundError, VersionNotFoundError.
        """
        ...

    async def get_file(
        self, principal: Principal, model_id: ModelId, version: VersionName, path: FilePath
    ) -> StoredFile:
        """Raises ModelNotFoundError, VersionNotFoundError, VersionFileNotFoundError."""
        ...


def _text(value: object | None) -> str | None:
    return None if value is None else str(value)
