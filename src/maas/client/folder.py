"""What is in a folder that is to be pushed, and the digests of it."""

import asyncio
import hashlib
import os
import stat
import threading
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import TypeVar

from maas.client.errors import ClientError
from maas.model.domain.file import FilePath, InvalidFilePathError

T = TypeVar("T")

READ_BYTES = 1024 * 1024

_FRAMEWORKS = {
    ".gguf": "gguf",
    ".safetensors": "safetensors",
    ".onnx": "onnx",
    ".pt": "pytorch",
    ".pth": "pytorch",
    ".pb": "tensorflow",
    ".keras": "tensorflow",
    ".h5": "tensorflow",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Stamp:
    """What changes when somebody writes to a file."""

    size: int
    modified_ns: int
    changed_ns: int
    inode: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalFile:
    """A file on this machine, and the path it is to have in the registry."""

    path: FilePath
    place: Path
    stamp: Stamp

    @property
    def size(self) -> int:
        return self.stamp.size

    def check_unchanged(self) -> None:
        """Refuse to go on with a file that somebody writes to.

        Raises:
            ClientError: it is not what it was, or is gone.
        """
        if read_stamp(self.place) != self.stamp:
            raise ClientError(f"{self.path} changed meanwhile. Run the same command again.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What was found; `left_out` are the hidden names."""

    files: list[LocalFile]
    left_out: list[str]

    @property
    def framework(self) -> str:
        """Guess by the largest file whose name tells."""
        for file in sorted(self.files, key=lambda file: -file.size):
            guess = _FRAMEWORKS.get(file.place.suffix.lower())
            if guess is not None:
                return guess
        return "other"


def survey(folder: Path, *, with_hidden: bool, with_links: bool) -> Survey:
    """List the files below a folder, smallest first.

    Raises:
        ClientError: something in it cannot be pushed, or there is nothing.
    """
    root, left_out = folder.resolve(), list[str]()
    files: dict[str, LocalFile] = {}
    try:
        for place in _walk(root, with_hidden=with_hidden, left_out=left_out):
            file = _look_at(root, place, with_links=with_links)
            if str(file.path) in files:
                message = f"{file.path} is there twice, in two spellings of its Unicode name."
                raise ClientError(message)
            files[str(file.path)] = file
    except OSError as exc:
        message = f"{exc.filename or folder} cannot be read: {exc.strerror}."
        raise ClientError(message) from None
    if not files:
        hidden = " but hidden ones; --hidden takes them too" if left_out else ""
        raise ClientError(f"There are no files in {folder}{hidden}.")
    found = sorted(files.values(), key=lambda file: (file.size, str(file.path)))
    return Survey(files=found, left_out=sorted(left_out))


def _walk(root: Path, *, with_hidden: bool, left_out: list[str]) -> Iterator[Path]:
    def give_up(exc: OSError) -> None:
        raise exc

    if not root.is_dir():
        message = f"{root} is no folder."
        raise ClientError(message)
    for parent, folders, names in os.walk(root, onerror=give_up):
        if not with_hidden:
            hidden = [name for name in (*folders, *names) if name.startswith(".")]
            left_out += [str((Path(parent) / name).relative_to(root)) for name in hidden]
            folders[:] = [name for name in folders if not name.startswith(".")]
        for name in folders:
            if (Path(parent) / name).is_symlink():
                relative = (Path(parent) / name).relative_to(root)
                message = f"{relative} is a link to a folder: put the folder itself there."
                raise ClientError(message)
        yield from (
            Path(parent) / name for name in names if with_hidden or not name.startswith(".")
        )


def _look_at(root: Path, place: Path, *, with_links: bool) -> LocalFile:
    name = place.relative_to(root).as_posix()
    # A link may lead to what its folder's maker wants to see, as to our own keys.
    if place.is_symlink() and not with_links and not place.resolve().is_relative_to(root):
        message = (
            f"{name} is a link out of the folder, to {place.resolve()}. --follow-links pushes what "
            "such links lead to, if you trust whoever made them."
        )
        raise ClientError(message)
    if not stat.S_ISREG(place.stat().st_mode):
        message = f"{name} is not a plain file."
        raise ClientError(message)
    try:
        path = FilePath(unicodedata.normalize("NFC", name))
    except InvalidFilePathError as exc:
        raise ClientError(f"{name} cannot be pushed under this name. {exc.detail}") from None
    return LocalFile(path=path, place=place, stamp=read_stamp(place))


def read_stamp(place: Path) -> Stamp:
    """Look at a file, or what a link leads to.

    Raises:
        ClientError: it cannot be looked at.
    """
    try:
        found = place.stat()
    except OSError as exc:
        message = f"{place} cannot be read: {exc.strerror}."
        raise ClientError(message) from None
    return Stamp(
        size=found.st_size,
        modified_ns=found.st_mtime_ns,
        changed_ns=found.st_ctime_ns,
        inode=found.st_ino,
    )


def digest_of(place: Path, is_over: Callable[[], bool]) -> str:
    """Compute a file's SHA-256, as hexadecimal, to be run by `in_thread`.

    Raises:
        ClientError: it cannot be read.
    """
    try:
        with place.open("rb", buffering=0) as file:
            return digest_stream(file, is_over)
    except OSError as exc:
        message = f"{place} cannot be read: {exc.strerror}."
        raise ClientError(message) from None


def digest_stream(file: FileIO, is_over: Callable[[], bool]) -> str:
    """Compute the SHA-256 of what is left of a stream, unless nobody wants to know any more."""
    digest, buffer = hashlib.sha256(), bytearray(READ_BYTES)
    view = memoryview(buffer)
    while (size := file.readinto(buffer)) and not is_over():
        digest.update(view[:size])
    return digest.hexdigest()


async def in_thread(work: Callable[[Callable[[], bool]], T]) -> T:
    """Run work in a thread, and tell it when it is waited for no more."""
    over = threading.Event()
    try:
        return await asyncio.to_thread(work, over.is_set)
    finally:
        over.set()
