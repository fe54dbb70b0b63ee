"""Uploads as they lie in rows."""

from typing import Any

from maas.model.domain.blob import Digest
from maas.model.domain.file import FilePath
from maas.model.domain.resumable import ResumableUpload, Target, UploadId
from maas.model.domain.text import VersionName
from maas.model.infrastructure.payers import payer_columns, read_payer
from maas.model.public import ModelId, VersionId


def upload_columns(upload: ResumableUpload) -> dict[str, Any]:
    """Spell an upload as its row; whether it has failed, the row of a new one does not say."""
    target = upload.target
    return {
        "id": upload.id,
        **payer_columns(upload.payer),
        "kind": upload.kind,
        "concat": upload.concat,
        "metadata": upload.metadata,
        "model_id": None if target is None else target.model_id,
        "version_id": None if target is None else target.version_id,
        "version": None if target is None else str(target.version),
        "path": None if target is None else str(target.path),
        "media_type": None if target is None else target.media_type,
        "sha256": None if target is None else target.sha256,
        "length": upload.length,
        "received": upload.offset,
        "part_count": upload.part_count,
        "state": upload.state,
        "created_at": upload.created_at,
        "updated_at": upload.updated_at,
        "expires_at": upload.expires_at,
    }


def read_upload(row: Any) -> ResumableUpload:
    """Make an upload of its row, as asyncpg gives it."""
    return ResumableUpload(
        id=UploadId(row["id"]),
        payer=read_payer(row),
        kind=row["kind"],
        concat=row["concat"],
        metadata=row["metadata"],
        target=_target(row),
        length=row["length"],
        offset=row["received"],
        part_count=row["part_count"],
        state=row["state"],
        problem_code=row["problem_code"],
        problem_detail=row["problem_detail"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        expires_at=row["expires_at"],
    )


def _target(row: Any) -> Target | None:
    if row["version_id"] is None:
        return None
    announced = row["sha256"]
    return Target(
        model_id=ModelId(row["model_id"]),
        version_id=VersionId(row["version_id"]),
        version=VersionName(row["version"]),
        path=FilePath(row["path"]),
        media_type=row["media_type"],
        sha256=None if announced is None else Digest(bytes(announced)),
    )
