"""What opens a restored platform's secrets: never in a backup unless it is asked for."""

import os
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from maas.backup.errors import BackupError, DamagedBackupError
from maas.backup.manifest import SECRETS, Manifest, write_private
from maas.embedded.credentials import read_credentials
from maas.embedded.errors import DamagedSecretsError
from maas.shared.infrastructure.sealing_keys import key_file_path
from maas.shared.infrastructure.settings import DEFAULT_DATA_DIR, Settings

VARIABLES: Final = "environment"
EMBEDDED: Final[tuple[str, ...]] = (
    "secrets.json",
    "sealing-keys.json",
    "signing-key.pem",
    "audit-key.pem",
)
"""Names in a data folder, which a restore into an empty one puts back."""


@dataclass(frozen=True, slots=True)
class Secret:
    """Something a restored platform needs: in a file, which a variable may name, or in one."""

    what: str
    file: Path | None
    variable: str | None
    value: str | None = None


def list_secrets(settings: Settings) -> list[Secret]:
    """List what must be kept apart from the backup, and is needed to use it."""
    folder = settings.data_dir
    embedded = folder / "secrets.json" if folder else None
    secret = settings.secret_key.get_secret_value()
    found = []
    if embedded is not None and embedded.exists():
        found.append(Secret("the key of tokens and derived keys", embedded, None))
    # The variable is stronger than the file, whose own key may be one that nothing goes by.
    if embedded is None or not _holds(embedded, secret):
        found.append(Secret("the key of tokens and derived keys", None, "MAAS_SECRET_KEY", secret))
    if settings.sealing.keys is not None:
        keys = settings.sealing.keys.get_secret_value()
        found.append(Secret("the keys of kept secrets", None, "MAAS_SEALING__KEYS", keys))
    else:
        path = key_file_path(settings)
        found.append(Secret("the keys of kept secrets", path, "MAAS_SEALING__KEYS_FILE"))
    auth, audit = settings.auth, settings.audit
    more = (
        ("the key before it", None, "MAAS_AUTH__PREVIOUS_SECRET_KEY", auth.previous_secret_key),
        ("the key that signs tokens", auth.private_key_file, "MAAS_AUTH__PRIVATE_KEY_FILE", None),
        ("the key that signs tokens", None, "MAAS_AUTH__PRIVATE_KEY", auth.private_key),
        ("the signing key before it", auth.previous_key_file, "MAAS_AUTH__PREVIOUS_KEY_FILE", None),
        ("the signing key before it", None, "MAAS_AUTH__PREVIOUS_KEY", auth.previous_key),
        (
            "the key that signs the trail",
            audit.signing_key_file,
            "MAAS_AUDIT__SIGNING_KEY_FILE",
            None,
        ),
        ("the key that signs the trail", None, "MAAS_AUDIT__SIGNING_KEY", audit.signing_key),
    )
    for what, file, variable, value in more:
        if file is not None or value is not None:
            text = None if value is None else value.get_secret_value()
            found.append(Secret(what, file, variable, text))
    # A ring that nothing was sealed under yet has no file, and a key may be derived instead.
    return [each for each in found if each.file is None or each.file.exists()]


def _holds(embedded: Path, secret: str) -> bool:
    try:
        return read_credentials(embedded).secret_key == secret
    except (OSError, DamagedSecretsError):
        return False


def copy_secrets(settings: Settings, folder: Path) -> None:
    """Copy all of it into a folder that nobody else can enter.

    Raises:
        BackupError: a file of it cannot be read.
    """
    folder.mkdir(mode=0o700)
    lines = []
    for each in list_secrets(settings):
        if each.file is not None:
            write_private(folder / _name_of(each.file, each.variable, settings), _read(each.file))
        else:
            # A key has line breaks, and a ring is JSON: a shell reads both back as they were.
            lines.append(f"{each.variable}={shlex.quote(each.value or '')}\n")
    if lines:
        write_private(folder / VARIABLES, "".join(lines))


def _name_of(file: Path, variable: str | None, settings: Settings) -> str:
    """Name the copy: as in a data folder, else by the variable, for two files may be called alike.

    Only what has the name of a data folder's file is put back by itself.
    """
    folder = (settings.data_dir or DEFAULT_DATA_DIR).absolute()
    is_ours = file.absolute().parent == folder and file.name in EMBEDDED
    return file.name if is_ours or variable is None else variable


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise BackupError(f"{path}, which is to be copied, cannot be read: {exc}") from None


def find_missing(manifest: Manifest, data_dir: Path) -> list[str]:
    """Name the keys of a data folder that neither are there nor come with the backup."""
    listed = _listed(manifest)
    return [name for name in EMBEDDED if name not in listed and not (data_dir / name).exists()]


def put_back(manifest: Manifest, source: Path, data_dir: Path) -> list[str]:
    """Put the secrets that a backup lists into a data folder; what is there already stays.

    What lies beside them and was not written by the backup is not taken: it would choose the keys.
    """
    listed = _listed(manifest)
    wanted = [name for name in EMBEDDED if name in listed]
    names = [name for name in wanted if not os.path.lexists(data_dir / name)]
    for name in names:
        path = source / SECRETS / name
        if path.is_symlink() or not path.is_file():
            message = f"{path} is no file"
            raise DamagedBackupError(message)
        write_private(data_dir / name, _read(path))
    return names


def _listed(manifest: Manifest) -> set[str]:
    if not manifest.has_secrets:
        return set()
    prefix = f"{SECRETS}/"
    return {name.removeprefix(prefix) for name in manifest.files if name.startswith(prefix)}
