"""A folder that files from a server land in, and nothing outside of it.

Every name is opened below the one before, and no link is followed: whatever the server calls its
files, and whatever links lie about, all of it stays inside.
"""

import errno
import fcntl
import os
import shutil
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from maas.client.errors import ClientError, StrangeAnswerError
from maas.model.domain.file import FilePath, InvalidFilePathError

WORK: Final = ".maas"
"""Where files are until they are whole; nothing of a version may lie there."""

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_COPY_BYTES: Final = 1024 * 1024


def read_paths(names: Iterable[str]) -> list[FilePath]:
    """Read the paths a server names.

    Raises:
        StrangeAnswerError: one would lead out of the folder, into ours, or two exclude each other.
    """
    paths = []
    for name in names:
        try:
            path = FilePath(name)
        except InvalidFilePathError:
            raise StrangeAnswerError(f"{name!r} is no path of a file") from None
        if str(path) != name or path.value.partition("/")[0].casefold() == WORK:
            raise StrangeAnswerError(f"no version has a file {name!r}")
        paths.append(path)
    files = {path.value for path in paths}
    for path in paths:
        parents = path.value.split("/")[:-1]
        for depth in range(1, len(parents) + 1):
            if "/".join(parents[:depth]) in files:
                raise StrangeAnswerError(f"{path.value!r} lies below a file")
    return paths


class Landing:
    """The folder, locked against a second pull. Use it as a context manager."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._root = -1
        self._work = -1

    def __enter__(self) -> Self:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            # The folder itself is the user's word; a link to it is as good.
            self._root = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(self._root, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with suppress(FileExistsError):
                os.mkdir(WORK, mode=0o700, dir_fd=self._root)
            self._work = os.open(WORK, _FOLDER, dir_fd=self._root)
        except BlockingIOError:
            self._close()
            message = f"Another pull is at work in {self.folder}."
            raise ClientError(message) from None
        except OSError as exc:
            self._close()
            raise self._explain(exc, exc.filename or self.folder) from None
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _value: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        with suppress(OSError):
            # Only if nothing is left in it to go on from.
            os.rmdir(WORK, dir_fd=self._root)
        self._close()

    def _close(self) -> None:
        for descriptor in (self._work, self._root):
            if descriptor >= 0:
                os.close(descriptor)
        self._work = self._root = -1

    def free_bytes(self) -> int:
        return shutil.disk_usage(self._root).free

    def folds_case(self) -> bool:
        """Tell whether names that differ in case alone are one name here, as macOS has it."""
        with suppress(OSError):
            return os.path.sameopenfile(self._work, self._open_folder(WORK.upper(), self._root))
        return False

    def find_size(self, path: FilePath) -> int | None:
        """Tell the size of what is there; `None` for nothing.

        Raises:
            ClientError: it is no plain file, or lies behind a link.
        """
        try:
            with self._parent_of(path, make=False) as parent:
                found = os.stat(path.name, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            return None
        except OSError as exc:
            raise self._explain(exc, path) from None
        if not stat.S_ISREG(found.st_mode):
            message = f"{self.folder / str(path)} is a link or a folder: move it away."
            raise ClientError(message)
        return found.st_size

    def open_present(self, path: FilePath) -> int:
        with self.explained(path), self._parent_of(path, make=False) as parent:
            return os.open(path.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)

    def open_work(self, name: str) -> int:
        """Open a file of ours, new or begun earlier, for reading and writing."""
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        with self.explained(name):
            return os.open(name, flags, 0o666, dir_fd=self._work)

    def kept_bytes(self, name: str) -> int:
        """Tell how much room a file of ours takes on the disk already."""
        try:
            return os.stat(name, dir_fd=self._work, follow_symlinks=False).st_blocks * 512
        except OSError:
            return 0

    def drop_work(self, name: str) -> None:
        with self.explained(name), suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self._work)

    def keep_work(self, name: str, content: bytes) -> None:
        """Write a small file of ours, all of it or nothing."""
        fresh = f"{name}.new"
        descriptor = self.open_work(fresh)
        with self.explained(name), os.fdopen(descriptor, "wb") as file:
            file.truncate()
            file.write(content)
            file.flush()
            os.rename(fresh, name, src_dir_fd=self._work, dst_dir_fd=self._work)

    def read_work(self, name: str) -> bytes:
        """Read a small file of ours; empty, if there is none."""
        try:
            descriptor = os.open(
                name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._work
            )
        except FileNotFoundError:
            return b""
        except OSError as exc:
            raise self._explain(exc, name) from None
        with os.fdopen(descriptor, "rb") as file:
            return file.read(_COPY_BYTES)

    def place(self, name: str, path: FilePath) -> None:
        """Move a whole file of ours to its path, in one step."""
        with self.explained(path), self._parent_of(path, make=True) as parent:
            os.rename(name, path.name, src_dir_fd=self._work, dst_dir_fd=parent)

    def copy(self, source: FilePath, path: FilePath) -> None:
        """Have the same bytes under a second path."""
        name = "copy"
        with self.explained(path):
            with (
                os.fdopen(self.open_present(source), "rb") as old,
                os.fdopen(self.open_work(name), "wb") as new,
            ):
                new.truncate()
                shutil.copyfileobj(old, new, _COPY_BYTES)
                new.flush()
                os.fsync(new.fileno())
            self.place(name, path)

    @contextmanager
    def _parent_of(self, path: FilePath, *, make: bool) -> Iterator[int]:
        """Open the folder a path lies in, one name after the other."""
        descriptor = os.dup(self._root)
        try:
            for name in path.value.split("/")[:-1]:
                if make:
                    with suppress(FileExistsError):
                        os.mkdir(name, dir_fd=descriptor)
                following = self._open_folder(name, descriptor)
                os.close(descriptor)
                descriptor = following
            yield descriptor
        finally:
            os.close(descriptor)

    @staticmethod
    def _open_folder(name: str, below: int) -> int:
        return os.open(name, _FOLDER, dir_fd=below)

    @contextmanager
    def explained(self, what: object) -> Iterator[None]:
        """Say in the block's stead what the disk has against it.

        Raises:
            ClientError: it has something.
        """
        try:
            yield
        except OSError as exc:
            raise self._explain(exc, what) from None

    def _explain(self, exc: OSError, what: object) -> ClientError:
        place = self.folder / str(what)
        if exc.errno in {errno.ELOOP, errno.ENOTDIR}:
            return ClientError(
                f"{place} or a folder above it is a link or no folder; nothing is written through "
                "one: move it away."
            )
        if exc.errno in {errno.ENOSPC, errno.EDQUOT}:
            return ClientError(
                f"There is no room left in {self.folder}. What has arrived stays: make room, and "
                "run the same command again."
            )
        return ClientError(f"{place} cannot be written: {exc.strerror}.")
