"""What a local folder needs beside obstore: its writes are durable only when synced."""

import os
from pathlib import Path


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


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
