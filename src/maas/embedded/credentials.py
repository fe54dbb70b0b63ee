"""The secrets of an embedded platform: generated once, kept in one private file."""

import json
import os
import secrets
import stat
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from maas.embedded import storage
from maas.embedded.errors import DamagedSecretsError

_PRIVATE_FILE = 0o600
_PASSWORD_BYTES = 32
_SECRET_KEY_BYTES = 48


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Credentials:
    """Passwords and the signing key, all URL-safe, so that they need no quoting anywhere."""

    superuser_password: str
    owner_password: str
    app_password: str
    system_password: str
    valkey_password: str
    secret_key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedCredentials:
    """Credentials, and whether their file had been readable by others."""

    credentials: Credentials
    was_exposed: bool = False


def open_credentials(path: Path, *, may_generate: bool) -> OpenedCredentials:
    """Read the secrets, or make them on the first start.

    A file that others could read is closed again; the caller should say so.

    Raises:
        DamagedSecretsError: the file is damaged, or missing while `may_generate` is false, which
            means that there is data that only the lost passwords open.
    """
    with storage.explained(path.parent):
        if path.exists():
            was_exposed = close_to_others(path)
            return OpenedCredentials(credentials=read_credentials(path), was_exposed=was_exposed)
        if not may_generate:
            raise _damaged(path, "is missing, but the database it opens is there")
        generated = _generate()
        write_atomically(path, json.dumps(asdict(generated), indent=2) + "\n")
        return OpenedCredentials(credentials=generated)


def read_credentials(path: Path) -> Credentials:
    """Read the secrets of a platform that has been started before.

    Raises:
        DamagedSecretsError: the file does not hold every secret.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as exc:
        raise _damaged(path, "is not JSON") from exc
    names = {field.name for field in fields(Credentials)}
    if not isinstance(content, dict) or not names <= content.keys():
        raise _damaged(path, "does not hold every secret")
    values = {name: content[name] for name in names}
    if not all(isinstance(value, str) and value for value in values.values()):
        raise _damaged(path, "holds a secret that is empty or no text")
    return Credentials(**values)


def _generate() -> Credentials:
    passwords = {
        field.name: secrets.token_urlsafe(_PASSWORD_BYTES)
        for field in fields(Credentials)
        if field.name != "secret_key"
    }
    return Credentials(secret_key=secrets.token_urlsafe(_SECRET_KEY_BYTES), **passwords)


def close_to_others(path: Path) -> bool:
    """Close a file to all but its owner; tell whether it had been open."""
    if stat.S_IMODE(path.stat().st_mode) == _PRIVATE_FILE:
        return False
    path.chmod(_PRIVATE_FILE)
    return True


def write_atomically(path: Path, text: str) -> None:
    """Write a private file that is there whole, or not at all."""
    draft = path.with_suffix(".draft")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _PRIVATE_FILE)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        draft.rename(path)
    finally:
        draft.unlink(missing_ok=True)
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Make a rename inside the folder outlive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _damaged(path: Path, what: str) -> DamagedSecretsError:
    return DamagedSecretsError(
        f"The file of secrets, {path}, {what}.",
        f"It holds the passwords of the database and the key that signs tokens: "
        f"put it back from a backup. To begin anew without the data, move {path.parent} away.",
    )
