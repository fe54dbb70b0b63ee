"""Files of a version, streamed up and down."""

from urllib.parse import quote

from fastapi import APIRouter, Depends, Request, Response
from starlette.datastructures import Headers

from maas.audit.public import audited
from maas.model.application.files import IncomingFile
from maas.model.application.ports import (
    ArtifactStoreFullError,
    ArtifactStoreUnavailableError,
    BodyCutOffError,
    CorruptBlobError,
    FileTooLargeError,
    TooManyTransfersError,
)
from maas.model.application.transfers import TooManyOwnTransfersError
from maas.model.domain.blob import DigestMismatchError, InvalidDigestError
from maas.model.domain.facts import ArchiveRefusedError, LyingHeaderError
from maas.model.domain.file import DEFAULT_MEDIA_TYPE
from maas.model.domain.formats import PickleRefusedError
from maas.model.domain.model import ModelNotFoundError
from maas.model.domain.resumable import SenderRefusedError
from maas.model.domain.version import (
    FilePathConflictError,
    TooManyFilesError,
    VersionFileNotFoundError,
    VersionFrozenError,
    VersionNotFoundError,
)
from maas.model.interface.answers import API, BYTES_STAY
from maas.model.interface.bodies import (
    OCTETS,
    announced_size,
    body_of,
    check_plain,
    media_type_or_default,
)
from maas.model.interface.dependencies import (
    FilePathPath,
    Files,
    ModelIdPath,
    Queries,
    VersionNamePath,
)
from maas.model.interface.digests import HEX_HEADER, announced_digests
from maas.model.interface.downloads import UNSATISFIABLE, answer_download, refuse_without_slot
from maas.model.interface.schemas import FileRead
from maas.shared.domain.errors import SlowRequestError, UnsupportedMediaError, may_refuse
from maas.shared.interface.contract import problem_response
from maas.shared.interface.etags import WritePreconditions
from maas.shared.interface.pagination import PageRead, TextPaging
from maas.shared.interface.readers import StrictRoute
from maas.shared.interface.security import Caller, requires
from maas.user.public import QuotaExceededError, QuotaUnavailableError

router = APIRouter(
    prefix="/models/{model_id}/versions/{version}/files", tags=["models"], route_class=StrictRoute
)


@router.get(
    "",
    dependencies=[requires("model:read")],
    summary="List a version's files, by path",
    description="In the order of the bytes of their paths, whatever folder they are in.",
)
@may_refuse(ModelNotFoundError, VersionNotFoundError)
async def list_files(
    model_id: ModelIdPath,
    version: VersionNamePath,
    caller: Caller,
    queries: Queries,
    page: TextPaging,
) -> PageRead[FileRead]:
    found = await queries.list_files(caller, model_id, version, page)
    return PageRead[FileRead].of(found, FileRead.model_validate)


@router.put(
    "/{path:path}",
    dependencies=[requires("model:write")],
    summary="Upload a file, or replace it while the version is open",
    description=(
        "The body is the file. Its SHA-256 is computed on the way in and compared with "
        f"`Content-Digest`, `Repr-Digest` or `{HEX_HEADER}`, if sent. Whatever goes wrong, nothing "
        "of it is kept. Answers 201 for a new path, 200 for a replaced one. `If-None-Match: *` "
        "takes new paths only, `If-Match` existing ones only, `*` whatever their bytes are. Of a "
        "replaced file the bytes are freed later, as of a deleted one."
    ),
    status_code=201,
    responses={
        200: {"model": FileRead, "description": "Replaced."},
    },
    openapi_extra={"requestBody": {"required": True, "content": {DEFAULT_MEDIA_TYPE: OCTETS}}},
)
@audited("model_file.uploaded")
@may_refuse(
    SenderRefusedError,
    ModelNotFoundError,
    VersionNotFoundError,
    SlowRequestError,
    VersionFrozenError,
    TooManyFilesError,
    FilePathConflictError,
    FileTooLargeError,
    PickleRefusedError,
    LyingHeaderError,
    ArchiveRefusedError,
    UnsupportedMediaError,
    BodyCutOffError,
    InvalidDigestError,
    DigestMismatchError,
    TooManyOwnTransfersError,
    TooManyTransfersError,
    ArtifactStoreUnavailableError,
    ArtifactStoreFullError,
    QuotaExceededError,
    QuotaUnavailableError,
)
async def upload_file(
    model_id: ModelIdPath,
    version: VersionNamePath,
    path: FilePathPath,
    caller: Caller,
    files: Files,
    conditions: WritePreconditions,
    request: Request,
    response: Response,
) -> FileRead:
    _check_whole(request.headers)
    incoming = IncomingFile(
        path=path,
        media_type=media_type_or_default(request.headers.get("content-type", "")),
        size=announced_size(request.headers),
        digests=announced_digests(request.headers),
        body=body_of(request),
        check=conditions.check,
    )
    taken = await files.take(caller, model_id, version, incoming)
    response.status_code = 201 if taken.is_new else 200
    response.headers["Location"] = (
        f"{API}/models/{model_id}/versions/{version}/files/{quote(taken.file.path)}"
    )
    response.headers["ETag"] = f'"{taken.file.sha256}"'
    return FileRead.model_validate(taken.file)


@router.get(
    "/{path:path}",
    dependencies=[requires("model:read"), Depends(refuse_without_slot)],
    summary="Download a file, or one range of it",
    description=(
        "Takes one range, `If-Range` and `If-None-Match`. The bytes are compared with their "
        "SHA-256 before they leave: a damaged file is a problem, or, further on, a broken "
        "connection."
    ),
    response_class=Response,
    responses={
        200: {"description": "The file.", "content": {DEFAULT_MEDIA_TYPE: OCTETS}},
        206: {"description": "The range.", "content": {DEFAULT_MEDIA_TYPE: OCTETS}},
        304: {"description": "The caller's copy is the same."},
        416: problem_response(UNSATISFIABLE),
    },
)
@audited("model_file.downloaded", must=False)
@may_refuse(
    ModelNotFoundError,
    VersionNotFoundError,
    VersionFileNotFoundError,
    TooManyOwnTransfersError,
    TooManyTransfersError,
    CorruptBlobError,
    ArtifactStoreUnavailableError,
)
async def download_file(
    model_id: ModelIdPath,
    version: VersionNamePath,
    path: FilePathPath,
    caller: Caller,
    files: Files,
    request: Request,
) -> Response:
    stored = await files.find_stored(caller, model_id, version, path)
    return await answer_download(request, files, caller, stored)


@router.delete(
    "/{path:path}",
    status_code=204,
    dependencies=[requires("model:write")],
    summary="Take a file out of a version that is still open",
    description=BYTES_STAY,
)
@audited("model_file.deleted")
@may_refuse(ModelNotFoundError, VersionNotFoundError, VersionFileNotFoundError, VersionFrozenError)
async def delete_file(
    model_id: ModelIdPath,
    version: VersionNamePath,
    path: FilePathPath,
    files: Files,
    conditions: WritePreconditions,
) -> None:
    await files.remove(model_id, version, path, check=conditions.check)


def _check_whole(headers: Headers) -> None:
    check_plain(headers)
    if "content-range" in headers:
        raise UnsupportedMediaError("Send the whole file at once, without Content-Range.")
