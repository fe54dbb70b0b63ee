"""The file that sealing keys are kept in: read whole, changed under a lock, replaced at once."""

import base64
import binascii
import fcntl
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Self

from maas.shared.infrastructure.sealing_ring import UnfitRingError

FORMAT: Final = 1
MAX_FILE_BYTES: Final = 1024 * 1024
ONLY_OLDER: Final = "only a key that came before the current one can be retired: see `maas keys ls`"
_PRIVATE: Final = 0o600
_OTHERS: Final = 0o007


class KeyChangeRefusedError(Exception):
    """The keys stay as they are; says why."""

    code = "sealing-key-change-refused"


@dataclass(frozen=True, slots=True, repr=False)
class KeptKey:
    """A key as its file holds it: plain, or wrapped by a KMS."""

    id: str
    secret: bytes
    is_wrapped: bool
    made_at: str

    def to_json(self) -> dict[str, str]:
        text = base64.b64encode(self.secret).decode()
        name = "wrapped" if self.is_wrapped else "key"
        return {"id": self.id, name: text, "made_at": self.made_at}


@dataclass(frozen=True, slots=True, repr=False)
class KeyFile:
    """All keys of the file, the newest first; without a current one the derived key seals."""

    keys: Sequence[KeptKey] = ()
    current: str | None = None

    def adding(self, key_id: str, secret: bytes, *, is_wrapped: bool, at: datetime) -> Self:
        """Put a key there, which does not seal yet: let every process hear of it first."""
        key = KeptKey(key_id, secret, is_wrapped, at.isoformat(timespec="seconds"))
        return replace(self, keys=(key, *self.keys))

    def rotated(self) -> Self:
        """Let the newest key seal.

        Raises:
            KeyChangeRefusedError: there is none, or it does already.
        """
        if not self.keys or self.current == self.keys[0].id:
            message = "there is no newer key: `maas keys add` makes one"
            raise KeyChangeRefusedError(message)
        return replace(self, current=self.keys[0].id)

    def without(self, key_id: str) -> Self:
        """Take a key out.

        Raises:
            KeyChangeRefusedError: it is the one that seals, or is going to.
        """
        ids = [key.id for key in self.keys]
        if key_id in ids and (self.current is None or ids.index(key_id) <= ids.index(self.current)):
            raise KeyChangeRefusedError(ONLY_OLDER)
        return replace(self, keys=tuple(key for key in self.keys if key.id != key_id))

    def to_json(self) -> str:
        content = {
            "version": FORMAT,
            "current": self.current,
            "keys": [key.to_json() for key in self.keys],
        }
        return json.dumps(content, indent=2) + "\n"


def read_key_file(path: Path) -> KeyFile:
    """Read the file.

    Raises:
        FileNotFoundError: there is none.
        UnfitRingError: it is not what this writes.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        content = file.read(MAX_FILE_BYTES)
    try:
        return _key_file(json.loads(content))
    except (ValueError, KeyError, TypeError, AttributeError):
        # Without the cause, which would show what stood there.
        message = f"{path} is no file of sealing keys: put it back from a backup"
        raise UnfitRingError(message) from None


def _key_file(content: dict[str, Any]) -> KeyFile:
    if content["version"] != FORMAT:
        raise ValueError
    keys = tuple(_kept_key(each) for each in content["keys"])
    current = content["current"]
    if current is not None and current not in {key.id for key in keys}:
        raise ValueError
    return KeyFile(keys, current)


def _kept_key(content: dict[str, str]) -> KeptKey:
    is_wrapped = "wrapped" in content
    secret = read_base64(content["wrapped" if is_wrapped else "key"])
    return KeptKey(str(content["id"]), secret, is_wrapped, str(content["made_at"]))


def is_exposed(path: Path) -> bool:
    """Tell whether other accounts may read the file, or write it."""
    try:
        return bool(path.stat().st_mode & _OTHERS)
    except OSError:
        return False


def read_base64(text: str) -> bytes:
    """Read base64 of either alphabet, with its padding or without.

    Raises:
        ValueError: it is something else.
    """
    plain = text.strip().replace("-", "+").replace("_", "/").rstrip("=")
    try:
        return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except binascii.Error:
        message = "that is no base64"
        raise ValueError(message) from None


@contextmanager
def changing_key_file(path: Path) -> Iterator[list[KeyFile]]:
    """Lend the file's content in a list; what the block leaves in it is written.

    Nobody else changes it meanwhile, and a crash leaves it as it was. Behind links it is the file
    itself that is locked and changed.

    Raises:
        UnfitRingError, OSError: as `read_key_file` does, but a missing file is empty.
    """
    path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = os.open(path.with_name(f"{path.name}.lock"), os.O_RDWR | os.O_CREAT, _PRIVATE)
    try:
        _give_to_readers(lock, path)
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            before = read_key_file(path)
        except FileNotFoundError:
            before = KeyFile()
        content = [before]
        yield content
        if content[0] != before:
            _write(path, content[0].to_json())
    finally:
        os.close(lock)


def _write(path: Path, text: str) -> None:
    draft = path.with_name(f"{path.name}.draft")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _PRIVATE)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        _give_to_readers(descriptor, path)
        file.write(text)
        file.flush()
        os.fsync(descriptor)
    draft.rename(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _give_to_readers(descriptor: int, path: Path) -> None:
    # A command run by root must not take the file from the processes that read it. Before there is
    # one, it is theirs whose the folder is.
    if os.geteuid() == 0:
        found = path.stat() if path.exists() else path.parent.stat()
        os.fchown(descriptor, found.st_uid, found.st_gid)
