"""The artifact store's files, by part: out of the store into a backup, and back again."""

import asyncio
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from maas.backup.errors import BackupError
from maas.backup.manifest import KeptPart, Progress
from maas.model.application.ports import ArtifactStoreFullError, ArtifactStoreUnavailableError
from maas.model.infrastructure.artifacts import open_objects
from maas.model.infrastructure.object_store import DurableObjects, MissingObjectError
from maas.model.infrastructure.part_stream import PARTS
from maas.shared.infrastructure.settings import DEFAULT_DATA_DIR, Settings

_LAST: Final = "\U0010ffff"


def is_local(settings: Settings) -> bool:
    """Tell whether files are in a folder of this machine, not at a cloud."""
    return settings.storage.url is None or settings.storage.url.startswith("file:")


def open_store(settings: Settings) -> DurableObjects:
    return open_objects(settings.storage, settings.data_dir or DEFAULT_DATA_DIR)


async def is_empty(store: DurableObjects) -> bool:
    """Tell whether the store has no parts yet.

    Raises:
        BackupError: it does not answer.
    """
    try:
        return not await store.list_folders(PARTS, after="", before=_LAST, limit=1)
    except ArtifactStoreUnavailableError as exc:
        raise _away(exc) from None


async def fetch_parts(
    store: DurableObjects, parts: Sequence[KeptPart], folder: Path, *, progress: Progress
) -> list[str]:
    """Copy parts into a folder; name those that the store has lost, or has damaged.

    Raises:
        BackupError: the store does not answer.
        OSError: the folder cannot be written.
    """
    damaged, done, total = [], 0, sum(part.size for part in parts)
    progress("Copying files of models", done, total)
    for part in parts:
        data = memoryview(bytearray(part.size))
        try:
            await store.read(part.key, data)
        except ArtifactStoreUnavailableError as exc:
            raise _away(exc) from None
        except MissingObjectError:
            damaged.append(part.key)
        else:
            if not await asyncio.to_thread(_keep, folder / part.key, data, part.sha256):
                damaged.append(part.key)
        done += part.size
        progress("Copying files of models", done, total)
    return damaged


def _keep(path: Path, data: memoryview, sha256: str) -> bool:
    if hashlib.sha256(data).hexdigest() != sha256:
        return False
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
    return True


async def put_parts(
    store: DurableObjects, parts: Sequence[KeptPart], folder: Path, *, progress: Progress
) -> None:
    """Put a backup's parts into the store, each durable before the next.

    Raises:
        BackupError: the store is full, or does not answer.
        OSError: a part cannot be read.
    """
    done, total, folders = 0, sum(part.size for part in parts), set[str]()
    progress("Restoring files of models", done, total)
    for part in parts:
        data = await asyncio.to_thread((folder / part.key).read_bytes)
        inside = part.key.rpartition("/")[0]
        try:
            await store.put(part.key, memoryview(data), is_first=inside not in folders)
        except ArtifactStoreFullError:
            raise BackupError("the artifact store is full") from None
        except ArtifactStoreUnavailableError as exc:
            raise _away(exc) from None
        folders.add(inside)
        done += part.size
        progress("Restoring files of models", done, total)


def _away(exc: ArtifactStoreUnavailableError) -> BackupError:
    return BackupError(f"the artifact store does not answer: {exc.__cause__ or exc}")
