"""The file that an upload is to become, and the version that is to have it."""

from dataclasses import dataclass

from maas.model.application.ports import ModelUnitOfWork
from maas.model.domain.blob import Digest
from maas.model.domain.file import FilePath
from maas.model.domain.text import VersionName
from maas.model.domain.version import ModelVersion
from maas.model.public import ModelId


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedFile:
    """Which file an upload is to become, as its sender says."""

    model_id: ModelId
    version: VersionName
    path: FilePath
    media_type: str
    sha256: Digest | None


async def get_open_version(uow: ModelUnitOfWork, wanted: WantedFile) -> ModelVersion:
    """Load and lock the version.

    Raises:
        ModelNotFoundError, VersionNotFoundError, VersionFrozenError, TooManyFilesError,
            FilePathConflictError: it does not take the file.
    """
    version = await uow.versions.get(wanted.model_id, wanted.version, near=wanted.path)
    version.check_open(wanted.path)
    return version
