"""What a local folder needs beside obstore: its writes are durable only when synced."""

import heapq
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from maas.model.application.ports import StoredFolder


@dataclass(frozen=True, slots=True)
class _Found:
    name: str
    changed_at: float


class LocalFolder:
    """The folder a local store keeps its objects in; every method blocks, so call it in a thread.

    obstore writes to a temporary name and renames, but neither syncs the file nor its folders.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def make(self) -> None:
        """Make the folder, for its owner only."""
        missing = [path for path in (self._root, *self._root.parents) if not path.exists()]
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in missing:
            _sync(path.parent)

    def sync(self, key: str, *, is_first: bool) -> None:
        """Make an object outlive a power cut; the first one of its folder syncs the way up too."""
        path = self._root / key
        _sync(path)
        _sync(path.parent)
        if is_first:
            for parent in path.parent.relative_to(self._root).parents:
                _sync(self._root / parent)

    def read(self, key: str, room: memoryview) -> None:
        """Read an object that fills `room` exactly.

        Raises:
            FileNotFoundError: it is not there, or has another size.
        """
        filled = 0
        with (self._root / key).open("rb", buffering=0) as file:
            while read := file.readinto(room[filled:]):
                filled += read
            if filled != len(room) or file.read(1):
                raise FileNotFoundError(key)

    def delete(self, keys: Sequence[str]) -> None:
        """Delete objects, those included that are not there."""
        for key in keys:
            (self._root / key).unlink(missing_ok=True)

    def list_folders(
        self, prefix: str, *, after: str, before: str, limit: int
    ) -> list[StoredFolder]:
        """List folders by name, those between two names alone, with what is in them."""
        try:
            names = heapq.nsmallest(limit, _between(_scan(self._root / prefix), after, before))
        except FileNotFoundError:
            return []
        found = [self._look_into(f"{prefix}/{name}") for name in names]
        return [each for each in found if each is not None]

    def _look_into(self, key: str) -> StoredFolder | None:
        folder = self._root / key
        try:
            inside = list(_scan(folder))
            changed_at = max([folder.stat().st_mtime, *(found.changed_at for found in inside)])
        except OSError:
            # It went while we looked, or changes right now: the next pass sees it.
            return None
        return StoredFolder(
            name=folder.name,
            # A name with this mark is half an object: obstore writes those first.
            keys=tuple(f"{key}/{found.name}" for found in inside if "#" not in found.name),
            changed_at=datetime.fromtimestamp(changed_at, UTC),
        )

    def remove_empty(self, key: str) -> None:
        """Remove a folder inside if nothing is left in it, half-written objects included."""
        folder = self._root / key
        try:
            for leftover in folder.glob("*#*"):
                leftover.unlink(missing_ok=True)
            folder.rmdir()
        except OSError:
            # It is gone already, or something new is in it: both are fine.
            return


def _scan(folder: Path) -> Iterator[_Found]:
    with os.scandir(folder) as entries:
        for entry in entries:
            yield _Found(entry.name, entry.stat(follow_symlinks=False).st_mtime)


def _between(found: Iterable[_Found], after: str, before: str) -> Iterator[str]:
    return (each.name for each in found if after < each.name < before)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
