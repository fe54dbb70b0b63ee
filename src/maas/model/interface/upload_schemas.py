"""What is told of an upload beside the headers of the protocol."""

from typing import Self
from uuid import UUID

from pydantic import ConfigDict, Field

from maas.model.domain.resumable import ResumableUpload, UploadKind, UploadState
from maas.shared.interface.types import Instant, ReadModel


class UploadProblem(ReadModel):
    """Why the file was refused, as its problem said."""

    code: str
    detail: str


class UploadRead(ReadModel):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "01935d2e-0000-7000-8000-000000000011",
                    "kind": "whole",
                    "state": "uploading",
                    "offset": 1073741824,
                    "length": 4368438944,
                    "model_id": "01935d2e-0000-7000-8000-000000000007",
                    "version": "1.0.0",
                    "path": "weights/model.safetensors",
                    "problem": None,
                    "created_at": "2026-11-21T08:00:00Z",
                    "expires_at": "2026-11-22T08:00:00Z",
                }
            ]
        }
    )

    id: UUID
    kind: UploadKind
    state: UploadState
    offset: int = Field(description="Bytes that are durable: go on from here.")
    length: int = Field(description="Bytes of the whole file, or of this part of it.")
    model_id: UUID | None
    version: str | None
    path: str | None
    problem: UploadProblem | None
    created_at: Instant
    expires_at: Instant

    @classmethod
    def of(cls, upload: ResumableUpload) -> Self:
        target, problem = upload.target, None
        if upload.problem_code is not None:
            problem = UploadProblem(code=upload.problem_code, detail=upload.problem_detail or "")
        return cls(
            id=upload.id,
            kind=upload.kind,
            state=upload.state,
            offset=upload.offset,
            length=upload.length,
            model_id=None if target is None else target.model_id,
            version=None if target is None else str(target.version),
            path=None if target is None else str(target.path),
            problem=problem,
            created_at=upload.created_at,
            expires_at=upload.expires_at,
        )
