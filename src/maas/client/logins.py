"""What `maas login` keeps: a key for each address, readable by its owner alone."""

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from maas.client.errors import ClientError

MAX_FILE_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredKey:
    """A key that `maas login` made; `key_id` names it to the API, to revoke it."""

    key: str = field(repr=False)
    key_id: str


def keys_path(environment: Mapping[str, str]) -> Path:
    """Tell where keys are kept, as the XDG specification has it."""
    return config_home(environment, "XDG_CONFIG_HOME", ".config") / "maas" / "keys.json"


def config_home(environment: Mapping[str, str], variable: str, default: str) -> Path:
    """Resolve one of the XDG folders; relative values count as not given, as it says."""
    given = Path(environment.get(variable, ""))
    return given if given.is_absolute() else Path.home() / default


def find_stored_key(url: str, environment: Mapping[str, str]) -> str | None:
    stored = read_keys(environment).get(url)
    return None if stored is None else stored.key


def read_keys(environment: Mapping[str, str]) -> dict[str, StoredKey]:
    """Read all keys, by address.

    Raises:
        ClientError: the file is there and cannot be read.
    """
    path = keys_path(environment)
    try:
        with path.open("rb") as file:
            found: Any = json.loads(file.read(MAX_FILE_BYTES))
        return {str(url): StoredKey(**fields) for url, fields in found.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError) as exc:
        message = f"{path} cannot be read ({exc}); delete it and sign in again with `maas login`."
        raise ClientError(message) from None


def write_keys(environment: Mapping[str, str], keys: Mapping[str, StoredKey]) -> Path:
    """Replace the file by one of these keys, which nobody else can read at any moment.

    Raises:
        ClientError: it cannot be written.
    """
    path = keys_path(environment)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(path, json.dumps({url: asdict(key) for url, key in keys.items()}, indent=2))
    except OSError as exc:
        message = f"{path} cannot be written: {exc.strerror}."
        raise ClientError(message) from None
    return path


def write_private(path: Path, text: str) -> None:
    """Write a file of mode 0600, all of it or nothing."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        Path(name).replace(path)
    except BaseException:
        # Whatever ended it, a Ctrl-C too: no half a file with a key in it stays.
        Path(name).unlink(missing_ok=True)
        raise
