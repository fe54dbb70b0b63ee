"""A file of a version: a path, and the blob behind it."""

from dataclasses import dataclass
from datetime import datetime
from typing import Self

from typing_extensions import override

from maas.model.domain.blob import Blob, Digest
from maas.model.public import VersionId
from maas.shared.domain.errors import InvalidInputError
from maas.shared.domain.ids import AccountId, TenantId
from maas.shared.domain.text import compose, has_invisible

MAX_PATH_CHARS = 512
MAX_SEGMENT_BYTES = 255
DEFAULT_MEDIA_TYPE = "application/octet-stream"


class InvalidFilePathError(InvalidInputError):
    code = "invalid-file-path"
    title = "Not a path of a file"

    def __init__(self) -> None:
        super().__init__(
            f"A path is relative, has 1 to {MAX_PATH_CHARS} characters, and its names are joined "
            "by single slashes. No name is `.` or `..`, starts or ends with a blank, is longer "
            f"than {MAX_SEGMENT_BYTES} bytes, or holds a backslash or a control character."
        )


@dataclass(frozen=True, slots=True, order=True)
class FilePath:
    """A relative POSIX path that is safe to make on any disk and to put into a header.

    Paths sort by their text, as the rows of files do that are written together. A path is kept in
    Unicode's composed form (NFC): macOS sends the other one for the same name.
    """

    value: str

    def __post_init__(self) -> None:
        if not self.value or has_invisible(self.value) or "\\" in self.value:
            raise InvalidFilePathError
        text = compose(self.value, max_chars=MAX_PATH_CHARS)
        if len(text) > MAX_PATH_CHARS or not all(map(_is_segment, text.split("/"))):
            raise InvalidFilePathError
        object.__setattr__(self, "value", text)

    def is_below(self, other: Self) -> bool:
        """Tell whether the other would have to be a folder for this to be in."""
        return self.value.startswith(f"{other.value}/")

    @property
    def folders(self) -> list[Self]:
        """The folders it lies in, the outermost first."""
        parts = self.value.split("/")
        return [type(self)("/".join(parts[:depth])) for depth in range(1, len(parts))]

    @property
    def name(self) -> str:
        """The last part of it."""
        return self.value.rpartition("/")[2]

    @override
    def __str__(self) -> str:
        return self.value


def _is_segment(text: str) -> bool:
    return (
        text not in {"", ".", ".."}
        and text == text.strip()
        and len(text.encode()) <= MAX_SEGMENT_BYTES
    )


@dataclass(eq=False, kw_only=True)
class VersionFile:
    """What a version has under one path; part of the `ModelVersion` aggregate."""

    version_id: VersionId
    tenant_id: TenantId
    path: FilePath
    sha256: Digest
    size: int
    media_type: str
    created_by: AccountId
    created_at: datetime

    def replace(self, blob: Blob, *, media_type: str, by: AccountId, at: datetime) -> None:
        self.sha256 = blob.sha256
        self.size = blob.size
        self.media_type = media_type
        self.created_by = by
        self.created_at = at
