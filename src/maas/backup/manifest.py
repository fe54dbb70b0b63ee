"""What a backup says of itself, and whether its files are still those it says."""

import asyncio
import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Self, TypeAlias

from maas.audit.public import AuditedResource
from maas.backup.errors import DamagedBackupError

BACKUP: Final = AuditedResource(
    "backup",
    frozenset({"rows", "has_secrets", "has_files", "taken_at", "head_seq", "sessions_ended"}),
)

FORMAT: Final = 1
NAME: Final = "manifest.json"
DATABASE: Final = "database"
PARTS: Final = "artifacts"
HEADS: Final = "audit-head.ndjson"
SECRETS: Final = "secrets"

_CHUNK: Final = 1024 * 1024

Progress: TypeAlias = Callable[[str, int, int | None], None]
"""Told the step, how many bytes of it are done, and of how many, where that is known."""


def show_nothing(_step: str, _done: int, _total: int | None) -> None:
    """Show no progress."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptPart:
    """A part of the artifact store that rows of the backup refer to; lost ones have no file."""

    key: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """Everything a restore has to know; times are ISO 8601, digests SHA-256 in hexadecimal."""

    backup_id: str
    product_version: str
    revision: str
    postgres: str
    postgres_major: int
    dumped_by_major: int
    started_at: str
    snapshot_at: str
    finished_at: str
    has_parts: bool
    has_secrets: bool
    rows: Mapping[str, int]
    audit_head: Mapping[str, Any] | None
    parts: Sequence[KeptPart] = ()
    damaged_parts: Sequence[str] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    format: int = FORMAT

    @property
    def row_count(self) -> int:
        return sum(self.rows.values())

    def spell(self) -> str:
        return json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read what a finished backup says.

        Raises:
            DamagedBackupError: this is no backup, a half one, or one of another format.
        """
        path = folder / NAME
        if folder.name.endswith(".partial"):
            raise DamagedBackupError(f"{folder} is what an interrupted backup left: delete it")
        try:
            said = json.loads(path.read_bytes())
        except FileNotFoundError:
            message = f"{folder} is no backup: it has no {NAME}"
            raise DamagedBackupError(message) from None
        except (OSError, ValueError) as exc:
            raise DamagedBackupError(f"{path} cannot be read: {exc}") from None
        if not isinstance(said, dict) or said.get("format") != FORMAT:
            found = said.get("format") if isinstance(said, dict) else None
            message = f"{path} has format {found}, and this release reads {FORMAT}"
            raise DamagedBackupError(message)
        try:
            return cls(**{**said, "parts": [KeptPart(**each) for each in said["parts"]]})
        except (KeyError, TypeError) as exc:
            raise DamagedBackupError(f"{path} is damaged: {exc}") from None


async def check_files(folder: Path, manifest: Manifest, *, progress: Progress) -> None:
    """Read every file of a backup and compare it with what was written.

    Raises:
        DamagedBackupError: one is missing, or another; says which.
    """
    sizes = {name: _size_of(folder, name) for name in manifest.files}
    done, total = 0, sum(sizes.values())
    for name, wanted in manifest.files.items():
        digest = await asyncio.to_thread(digest_of, folder / name)
        if digest != wanted:
            raise DamagedBackupError(f"{folder / name} is not what was backed up: it has changed")
        done += sizes[name]
        progress("Checking the backup", done, total)


def _size_of(folder: Path, name: str) -> int:
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise DamagedBackupError(f"the manifest names a file outside of the backup: {name}")
    try:
        return path.stat().st_size
    except OSError as exc:
        message = f"{path} is missing from the backup: {exc.strerror}"
        raise DamagedBackupError(message) from None


def digest_of(path: Path) -> str:
    """Hash a file.

    Raises:
        DamagedBackupError: it cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    except OSError as exc:
        raise DamagedBackupError(f"{path} cannot be read: {exc.strerror}") from None
    return digest.hexdigest()


def digest_all(folder: Path) -> dict[str, str]:
    """Hash every file below a folder, by its name there; each is on the disk afterwards."""
    digests = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            digests[path.relative_to(folder).as_posix()] = digest_of(path)
        sync(path)
    sync(folder)
    return digests


def write_private(path: Path, text: str) -> None:
    """Write a new file that only its owner can read, and have it on the disk."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    with os.fdopen(os.open(path, flags, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def sync(path: Path) -> None:
    """Have a file, or the names in a folder, on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
