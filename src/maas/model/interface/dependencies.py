"""The services of the registry, and its names in paths, as routes ask for them."""

from typing import Annotated, cast
from uuid import UUID

from fastapi import Depends, Path, Request

from maas.model.application.chunks import ChunkService
from maas.model.application.files import FileService
from maas.model.application.models import ModelService
from maas.model.application.queries import ModelQueries
from maas.model.application.uploads import UploadService
from maas.model.application.versions import VersionService
from maas.model.domain.file import FilePath, InvalidFilePathError
from maas.model.domain.text import InvalidTagError, InvalidVersionNameError, Tag, VersionName
from maas.model.public import ModelId
from maas.shared.domain.errors import may_refuse


def models_of(request: Request) -> ModelService:
    """Hand the service to a route too hot for a dependency."""
    return cast("ModelService", request.scope["state"]["models"])


async def _models(request: Request) -> ModelService:
    return models_of(request)


async def _versions(request: Request) -> VersionService:
    return cast("VersionService", request.scope["state"]["model_versions"])


async def _files(request: Request) -> FileService:
    return cast("FileService", request.scope["state"]["model_files"])


async def _uploads(request: Request) -> UploadService:
    return cast("UploadService", request.scope["state"]["model_uploads"])


async def _upload_chunks(request: Request) -> ChunkService:
    return cast("ChunkService", request.scope["state"]["model_upload_chunks"])


def queries_of(request: Request) -> ModelQueries:
    """Hand the queries to a route too hot for a dependency."""
    return cast("ModelQueries", request.scope["state"]["model_queries"])


async def _queries(request: Request) -> ModelQueries:
    return queries_of(request)


async def _model_id(model_id: Annotated[UUID, Path(description="The model's id.")]) -> ModelId:
    return ModelId(model_id)


@may_refuse(InvalidVersionNameError)
async def _version_name(
    version: Annotated[
        str, Path(description="The version, as its maker named it.", examples=["1.0.0"])
    ],
) -> VersionName:
    return VersionName(version)


@may_refuse(InvalidFilePathError)
async def _file_path(
    path: Annotated[
        str, Path(description="The path, slashes and all.", examples=["weights/model.gguf"])
    ],
) -> FilePath:
    return FilePath(path)


@may_refuse(InvalidTagError)
async def _tag(tag: Annotated[str, Path(description="The tag.", examples=["chat"])]) -> Tag:
    return Tag(tag)


Models = Annotated[ModelService, Depends(_models)]
Versions = Annotated[VersionService, Depends(_versions)]
Files = Annotated[FileService, Depends(_files)]
Uploads = Annotated[UploadService, Depends(_uploads)]
UploadChunks = Annotated[ChunkService, Depends(_upload_chunks)]
Queries = Annotated[ModelQueries, Depends(_queries)]
ModelIdPath = Annotated[ModelId, Depends(_model_id)]
VersionNamePath = Annotated[VersionName, Depends(_version_name)]
FilePathPath = Annotated[FilePath, Depends(_file_path)]
TagPath = Annotated[Tag, Depends(_tag)]
