"""The tus protocol, 1.0: its headers, read and written, and the route class that speaks it."""

import base64
import binascii
import hashlib
import re
from datetime import datetime
from email.utils import format_datetime
from typing import Final, cast
from uuid import UUID

from fastapi import Depends, Request, params
from starlette.datastructures import Headers
from starlette.responses import Response
from typing_extensions import override

from maas.model.application.wanted_file import WantedFile
from maas.model.domain.blob import Digest
from maas.model.domain.file import FilePath
from maas.model.domain.resumable import (
    MAX_CONCATENATED,
    InvalidUploadError,
    ResumableUpload,
    UploadId,
)
from maas.model.domain.text import VersionName
from maas.model.interface.bodies import bare_media_type, check_plain, media_type_or_default
from maas.model.public import ModelId
from maas.shared.domain.errors import (
    PreconditionFailedError,
    UnsupportedMediaError,
    may_refuse,
)
from maas.shared.interface.middleware import ANSWER_HEADERS_KEY
from maas.shared.interface.readers import RouteHandler, StrictRoute

VERSION: Final = "1.0.0"
EXTENSIONS: Final = "creation,creation-with-upload,expiration,checksum,termination,concatenation"
CHECKSUMS: Final = ("sha256", "sha1")
CHUNK_MEDIA_TYPE: Final = "application/offset+octet-stream"
MAX_METADATA_CHARS: Final = 8 * 1024
MAX_CONCAT_CHARS: Final = 56 * 1024

_VERSION_HEADERS: Final = ((b"tus-resumable", VERSION.encode()), (b"tus-version", VERSION.encode()))
_NUMBER: Final = re.compile(r"[0-9]{1,18}")
_KEY: Final = re.compile(r"[\x21-\x2b\x2d-\x7e]+")


class TusVersionError(PreconditionFailedError):
    code = "tus-version"
    title = "Not the version of the protocol that is spoken here"

    def __init__(self) -> None:
        super().__init__(f"Send `Tus-Resumable: {VERSION}`, the only version there is.")


class TusRoute(StrictRoute):
    """A route that says on every answer, problems included, which version it speaks."""

    @override
    def get_route_handler(self) -> RouteHandler:
        handle = super().get_route_handler()

        async def say_version_then_handle(request: Request) -> Response:
            request.scope[ANSWER_HEADERS_KEY] = _VERSION_HEADERS
            return await handle(request)

        return say_version_then_handle


@may_refuse(TusVersionError)
async def _speak_tus(request: Request) -> None:
    # GET is ours, not the protocol's.
    if request.method != "GET" and request.headers.get("tus-resumable") != VERSION:
        raise TusVersionError


SPEAKS_TUS = cast("params.Depends", Depends(_speak_tus))
"""Refuses who speaks another version, as the protocol wants it."""


def number_in(headers: Headers, name: str) -> int:
    """Read a header that is a number, in bytes.

    Raises:
        InvalidUploadError: it is missing, or no number.
    """
    text = headers.get(name, "")
    if _NUMBER.fullmatch(text) is None:
        raise InvalidUploadError(f"Send `{name}` as a number of bytes.", loc=("header", name))
    return int(text)


def checksum_in(headers: Headers) -> tuple[str, bytes] | None:
    """Read `Upload-Checksum`, if it is there.

    Raises:
        InvalidUploadError: it cannot be read, or is of an algorithm that is not known here.
    """
    text = headers.get("upload-checksum")
    if text is None:
        return None
    name, _, encoded = text.partition(" ")
    if name not in CHECKSUMS:
        raise _wrong("Upload-Checksum", f"is of {' or '.join(CHECKSUMS)}")
    digest = _decode(encoded, "Upload-Checksum")
    if len(digest) != hashlib.new(name, usedforsecurity=False).digest_size:
        raise _wrong("Upload-Checksum", f"has the {name} of the body")
    return name, digest


def check_chunk_type(headers: Headers) -> None:
    """Refuse bytes of another type, or encoded.

    Raises:
        UnsupportedMediaError: it says what to send.
    """
    if bare_media_type(headers.get("content-type", "")) != CHUNK_MEDIA_TYPE:
        raise UnsupportedMediaError(f"Send bytes as `Content-Type: {CHUNK_MEDIA_TYPE}`.")
    check_plain(headers)


def has_chunk(headers: Headers) -> bool:
    """Tell whether a request that begins an upload brings bytes of it."""
    return headers.get("content-length", "0") != "0" or "transfer-encoding" in headers


def partials_in(concat: str) -> list[UploadId] | None:
    """Read `Upload-Concat`: the uploads to put together; of a partial one, nothing.

    Raises:
        InvalidUploadError: it is neither.
    """
    if concat == "partial":
        return None
    kind, _, urls = concat.partition(";")
    if kind != "final" or not urls or len(concat) > MAX_CONCAT_CHARS:
        raise _wrong("Upload-Concat", "is `partial`, or `final;` and the URLs of partial uploads")
    found = [_upload_in(url) for url in urls.split(" ")]
    if len(found) > MAX_CONCATENATED or len(set(found)) < len(found):
        raise _wrong("Upload-Concat", f"names at most {MAX_CONCATENATED} uploads, each once")
    return found


def _upload_in(url: str) -> UploadId:
    try:
        return UploadId(UUID(url.rpartition("/")[2]))
    except ValueError:
        raise _wrong("Upload-Concat", "names uploads by the `Location` they were given") from None


def metadata_in(headers: Headers) -> tuple[str | None, dict[str, str]]:
    """Read `Upload-Metadata`, as it was sent and as what it says; `None` if it is not there.

    Raises:
        InvalidUploadError: it is not pairs of keys and Base64, or one of ours is no text.
    """
    text = headers.get("upload-metadata")
    if not text:
        return None, {}
    if len(text) > MAX_METADATA_CHARS or not text.isascii():
        raise _wrong("Upload-Metadata", f"has at most {MAX_METADATA_CHARS} ASCII characters")
    found: dict[str, str] = {}
    for pair in text.split(","):
        key, _, encoded = pair.strip().partition(" ")
        if _KEY.fullmatch(key) is None or key in found:
            raise _wrong("Upload-Metadata", "is pairs of a key, each once, and Base64")
        value = _decode(encoded, "Upload-Metadata")
        try:
            found[key] = value.decode("utf-8")
        except UnicodeDecodeError:
            raise _wrong("Upload-Metadata", "has values of UTF-8 text") from None
    return text, found


def wanted_file(metadata: dict[str, str]) -> WantedFile:
    """Tell which file an upload is to become.

    Raises:
        InvalidUploadError: it does not say so.
        InvalidVersionNameError, InvalidFilePathError, InvalidDigestError: what it says is wrong.
    """
    try:
        model_id = ModelId(UUID(metadata["model_id"]))
        version, path = metadata["version"], metadata["path"]
    except (KeyError, ValueError):
        raise _wrong("Upload-Metadata", "has `model_id`, `version` and `path`") from None
    announced = metadata.get("sha256")
    return WantedFile(
        model_id=model_id,
        version=VersionName(version),
        path=FilePath(path),
        media_type=media_type_or_default(metadata.get("media_type", "")),
        sha256=None if announced is None else Digest.from_hex(announced),
    )


def upload_headers(upload: ResumableUpload) -> dict[str, str]:
    """Say how far an upload has come, and how it was begun."""
    headers = {
        "Upload-Offset": str(upload.offset),
        "Upload-Length": str(upload.length),
        "Upload-State": upload.state,
    }
    if upload.state == "uploading":
        headers["Upload-Expires"] = http_date(upload.expires_at)
    if upload.metadata is not None:
        headers["Upload-Metadata"] = upload.metadata
    concat = "partial" if upload.kind == "partial" else upload.concat
    if concat is not None:
        headers["Upload-Concat"] = concat
    return headers


def http_date(at: datetime) -> str:
    return format_datetime(at, usegmt=True)


def _decode(text: str, header: str) -> bytes:
    try:
        return base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        raise _wrong(header, "has values in Base64") from None


def _wrong(header: str, wanted: str) -> InvalidUploadError:
    return InvalidUploadError(f"`{header}` {wanted}.", loc=("header", header))
