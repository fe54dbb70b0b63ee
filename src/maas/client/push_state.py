"""What a push remembers, so that the next one goes on where it ended.

It lies with the user and not in the folder: that may be read-only, and one that came from a
stranger must not say where anything is sent.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from maas.client.folder import LocalFile
from maas.client.logins import config_home, write_private

MAX_FILE_BYTES = 16 * 1024 * 1024


class StoredUpload(BaseModel):
    """Where an upload goes on, and the digest of the file it is of."""

    location: str
    sha256: str


class _Digest(BaseModel):
    stamp: dict[str, int]
    sha256: str


class _Kept(BaseModel):
    version: str | None = None
    is_whole: bool = False
    digests: dict[str, _Digest] = {}
    uploads: dict[str, StoredUpload] = {}


class PushState:
    """The version a folder is pushed as, its files' digests, and its uploads under way.

    Whatever cannot be kept is found out anew the next time; nothing fails for it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._kept = _Kept.model_validate_json(_read(path))
        except (OSError, ValidationError):
            self._kept = _Kept()

    @property
    def version(self) -> str | None:
        return self._kept.version

    @property
    def is_whole(self) -> bool:
        """Tell whether a push of the version has ended, and left it open."""
        return self._kept.is_whole

    def begin(self, version: str) -> None:
        """Note the version; uploads that were for another one are forgotten."""
        if version != self._kept.version:
            self._kept.version = version
            self._kept.is_whole = False
            self._kept.uploads = {}
            self._save()

    def find_digest(self, file: LocalFile) -> str | None:
        known = self._kept.digests.get(str(file.place))
        return known.sha256 if known is not None and known.stamp == asdict(file.stamp) else None

    def keep_digest(self, file: LocalFile, sha256: str) -> None:
        self._kept.digests[str(file.place)] = _Digest(stamp=asdict(file.stamp), sha256=sha256)
        self._save()

    def list_uploads(self) -> dict[str, StoredUpload]:
        return dict(self._kept.uploads)

    def find_upload(self, path: str) -> StoredUpload | None:
        return self._kept.uploads.get(path)

    def keep_upload(self, path: str, sha256: str, location: str) -> None:
        self._kept.uploads[path] = StoredUpload(location=location, sha256=sha256)
        self._save()

    def drop_upload(self, path: str) -> None:
        if self._kept.uploads.pop(path, None) is not None:
            self._save()

    def note_whole(self) -> None:
        """Note that all of the folder is up, and the version still open."""
        self._kept.is_whole = True
        self._save()

    def end(self) -> None:
        """Forget all of it: the folder is up."""
        with suppress(OSError):
            self._path.unlink(missing_ok=True)

    def _save(self) -> None:
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_private(self._path, self._kept.model_dump_json())
        except OSError:
            # A full or closed home: the push goes on, and remembers nothing.
            return


def open_push_state(
    *, url: str, model: str, folder: Path, environment: Mapping[str, str] | None = None
) -> PushState:
    """Open what is remembered of pushing this folder as this model to this API."""
    given = os.environ if environment is None else environment
    names: list[Any] = [url, model, str(folder.resolve())]
    name = hashlib.sha256(json.dumps(names).encode()).hexdigest()[:32]
    home = config_home(given, "XDG_STATE_HOME", ".local/state")
    return PushState(home / "maas" / "pushes" / f"{name}.json")


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MAX_FILE_BYTES)
