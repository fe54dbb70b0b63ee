"""Uploads that go on where they broke off: tus 1.0, for every client of it."""

from collections.abc import Mapping
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Path, Request, Response

from maas.audit.public import audited, current_scope
from maas.model.application.chunks import Chunk
from maas.model.application.ports import (
    ArtifactStoreFullError,
    ArtifactStoreUnavailableError,
    BodyCutOffError,
    CorruptBlobError,
    FileTooLargeError,
    TooManyTransfersError,
)
from maas.model.application.transfers import TooManyOwnTransfersError
from maas.model.application.uploads import NewUpload
from maas.model.domain.blob import DigestMismatchError, InvalidDigestError
from maas.model.domain.facts import ArchiveRefusedError, LyingHeaderError
from maas.model.domain.file import InvalidFilePathError
from maas.model.domain.formats import PickleRefusedError
from maas.model.domain.model import ModelNotFoundError
from maas.model.domain.resumable import (
    ChunkChecksumError,
    FinalUploadError,
    InvalidUploadError,
    ResumableUpload,
    SenderRefusedError,
    TooManyUploadsError,
    UploadEndedError,
    UploadId,
    UploadInPiecesError,
    UploadNotFoundError,
    UploadOffsetError,
    UploadPayerError,
    UploadTakenOverError,
    UploadUnfinishedError,
)
from maas.model.domain.text import InvalidVersionNameError
from maas.model.domain.version import (
    FilePathConflictError,
    TooManyFilesError,
    VersionFrozenError,
    VersionNotFoundError,
)
from maas.model.interface.answers import API
from maas.model.interface.bodies import OCTETS, announced_size, body_of
from maas.model.interface.dependencies import UploadChunks, Uploads
from maas.model.interface.tus import (
    CHECKSUMS,
    CHUNK_MEDIA_TYPE,
    EXTENSIONS,
    SPEAKS_TUS,
    VERSION,
    TusRoute,
    check_chunk_type,
    checksum_in,
    has_chunk,
    http_date,
    metadata_in,
    number_in,
    partials_in,
    upload_headers,
    wanted_file,
)
from maas.model.interface.upload_schemas import UploadRead
from maas.shared.domain.errors import SlowRequestError, UnsupportedMediaError, may_refuse
from maas.shared.interface.security import Caller, requires
from maas.user.public import QuotaExceededError, QuotaUnavailableError

router = APIRouter(prefix="/uploads", tags=["models"], route_class=TusRoute)

_CHUNK_BODY = {"requestBody": {"content": {CHUNK_MEDIA_TYPE: OCTETS}}}
_ADDING = (
    SenderRefusedError,
    FileTooLargeError,
    UploadNotFoundError,
    FinalUploadError,
    UploadEndedError,
    UploadOffsetError,
    UploadInPiecesError,
    UploadTakenOverError,
    ChunkChecksumError,
    UnsupportedMediaError,
    BodyCutOffError,
    SlowRequestError,
    TooManyOwnTransfersError,
    TooManyTransfersError,
    ArtifactStoreUnavailableError,
    ArtifactStoreFullError,
    CorruptBlobError,
    PickleRefusedError,
    LyingHeaderError,
    ArchiveRefusedError,
    DigestMismatchError,
    ModelNotFoundError,
    VersionNotFoundError,
    VersionFrozenError,
    TooManyFilesError,
    FilePathConflictError,
    InvalidUploadError,
)


@may_refuse(UploadNotFoundError)
async def _upload_id(
    upload_id: Annotated[UUID, Path(description="The last part of the upload's URL.")],
) -> UploadId:
    return UploadId(upload_id)


UploadIdPath = Annotated[UploadId, Depends(_upload_id)]


@router.options(
    "",
    status_code=204,
    summary="Ask what of the tus protocol is spoken here",
    description="Version, extensions, algorithms of checksums and the largest upload, as headers.",
)
async def describe_uploads(uploads: Uploads) -> Response:
    return Response(
        status_code=204,
        headers={
            "Tus-Extension": EXTENSIONS,
            "Tus-Checksum-Algorithm": ",".join(CHECKSUMS),
            "Tus-Max-Size": str(uploads.max_file_bytes),
        },
    )


@router.post(
    "",
    status_code=201,
    dependencies=[requires("model:write"), SPEAKS_TUS],
    summary="Begin a resumable upload of a file, or put one together",
    description=(
        f"The tus protocol, {VERSION}. `Upload-Length` tells the size, for which storage is held "
        "before the first byte; `Upload-Metadata` tells the file by `model_id`, `version` and "
        "`path`, and may have `media_type` and `sha256` (hexadecimal). The body may be the first "
        "bytes. `Upload-Concat: partial` begins a part of a file that others come beside, and "
        "`final;` with their URLs makes one file of them, in that order, which uses them up. "
        "`Location` is where the bytes go with PATCH. Whatever else you are uploading to that path "
        "of the version is ended: if no answer came, ask again."
    ),
    response_class=Response,
    openapi_extra=_CHUNK_BODY,
)
@audited("model_upload.created")
@may_refuse(
    *_ADDING,
    TooManyUploadsError,
    UploadUnfinishedError,
    UploadPayerError,
    InvalidVersionNameError,
    InvalidFilePathError,
    InvalidDigestError,
    QuotaExceededError,
    QuotaUnavailableError,
)
async def create_upload(caller: Caller, uploads: Uploads, request: Request) -> Response:
    headers = request.headers
    concat = headers.get("upload-concat")
    partials = None if concat is None else partials_in(concat)
    metadata, said = metadata_in(headers)
    if partials is not None:
        if "upload-length" in headers or has_chunk(headers):
            raise InvalidUploadError("What is put together has neither a length nor bytes itself.")
        new = NewUpload(length=0, wanted=wanted_file(said), metadata=metadata, concat=concat)
        upload = await uploads.concatenate(caller, new, partials)
        return _created(upload)
    if has_chunk(headers):
        check_chunk_type(headers)
    wanted = wanted_file(said) if concat is None else None
    length = number_in(headers, "Upload-Length")
    new = NewUpload(length=length, wanted=wanted, metadata=metadata)
    chunk = _chunk(request, offset=0) if has_chunk(headers) else None
    return _created(await uploads.create(caller, new, chunk))


@router.get(
    "/{upload_id}",
    dependencies=[requires("model:write"), SPEAKS_TUS],
    summary="Read how far an upload of yours has come",
    description=(
        "HEAD answers with the headers of the protocol alone; GET also says what became of it: "
        "`uploading`, `verifying` (all bytes are there, and their digest is being computed), "
        "`done` or `failed`, with the problem. Nobody but who began it finds it."
    ),
)
async def get_upload(
    upload_id: UploadIdPath, caller: Caller, uploads: Uploads, response: Response
) -> UploadRead:
    upload = await uploads.get(caller, upload_id)
    response.headers.update(upload_headers(upload))
    return UploadRead.of(upload)


@router.patch(
    "/{upload_id}",
    status_code=204,
    dependencies=[requires("model:write"), SPEAKS_TUS],
    summary="Add bytes to an upload, from `Upload-Offset` on",
    description=(
        "What is durable counts, whatever becomes of the request: ask with HEAD, and go on from "
        "there. A later request takes over from an earlier one. With `Upload-Checksum` (`sha256` "
        "or `sha1`) all of the request counts, or nothing. The last byte makes the file; if its "
        "digest has to be computed first, GET tells when that is done."
    ),
    openapi_extra={"requestBody": {"required": True, "content": {CHUNK_MEDIA_TYPE: OCTETS}}},
)
@audited("model_file.uploaded")
@may_refuse(*_ADDING)
async def append_to_upload(
    upload_id: UploadIdPath, caller: Caller, chunks: UploadChunks, request: Request
) -> Response:
    check_chunk_type(request.headers)
    chunk = _chunk(request, offset=number_in(request.headers, "Upload-Offset"))
    upload = await chunks.append(caller, upload_id, chunk)
    if upload.state != "done":
        # It is no file yet, and nobody's act until it is.
        current_scope().skip()
    return Response(status_code=204, headers=_progress(upload))


@router.delete(
    "/{upload_id}",
    status_code=204,
    dependencies=[requires("model:write"), SPEAKS_TUS],
    summary="End an upload, and free what it holds",
    description=(
        "In whatever state; a file that it has become stays. Its URL is gone then. Who owns a "
        "model, or holds `model:manage`, may end any upload into it, for it keeps the version from "
        "being ready: that refusal names them."
    ),
)
@audited("model_upload.ended")
async def end_upload(upload_id: UploadIdPath, caller: Caller, uploads: Uploads) -> None:
    await uploads.end(caller, upload_id)


def _chunk(request: Request, *, offset: int) -> Chunk:
    return Chunk(
        offset=offset,
        size=announced_size(request.headers),
        checksum=checksum_in(request.headers),
        body=body_of(request),
    )


def _created(upload: ResumableUpload) -> Response:
    location = f"{API}/uploads/{upload.id}"
    return Response(status_code=201, headers={"Location": location, **_progress(upload)})


def _progress(upload: ResumableUpload) -> Mapping[str, str]:
    headers = {"Upload-Offset": str(upload.offset), "Upload-State": upload.state}
    if upload.state == "uploading":
        headers["Upload-Expires"] = http_date(upload.expires_at)
    return headers
