"""What opens a restored platform's secrets: never in a backup unless it is asked for."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from maas.backup.manifest import write_private
from maas.shared.infrastructure.sealing_keys import key_file_path
from maas.shared.infrastructure.settings import Settings

VARIABLES: Final = "environment"
EMBEDDED: Final = ("secrets.json", "sealing-keys.json", "signing-key.pem", "audit-key.pem")
"""Names in a data folder, which a restore into an empty one puts back."""


@dataclass(frozen=True, slots=True)
class Secret:
    """Something a restored platform needs: in a file, or in a variable."""

    what: str
    file: Path | None
    variable: str | None
    value: str | None = None


def list_secrets(settings: Settings) -> list[Secret]:
    """List what must be kept apart from the backup, and is needed to use it."""
    folder = settings.data_dir
    embedded = folder / "secrets.json" if folder else None
    found = []
    if embedded is not None and embedded.exists():
        found.append(Secret("the key of tokens and derived keys", embedded, None))
    else:
        secret = settings.secret_key.get_secret_value()
        found.append(Secret("the key of tokens and derived keys", None, "MAAS_SECRET_KEY", secret))
    if settings.sealing.keys is not None:
        keys = settings.sealing.keys.get_secret_value()
        found.append(Secret("the keys of kept secrets", None, "MAAS_SEALING__KEYS", keys))
    else:
        found.append(Secret("the keys of kept secrets", key_file_path(settings), None))
    auth, audit = settings.auth, settings.audit
    more = (
        ("the key before it", None, "MAAS_AUTH__PREVIOUS_SECRET_KEY", auth.previous_secret_key),
        ("the key that signs tokens", auth.private_key_file, None, None),
        ("the key that signs tokens", None, "MAAS_AUTH__PRIVATE_KEY", auth.private_key),
        ("the key that signs the trail", audit.signing_key_file, None, None),
        ("the key that signs the trail", None, "MAAS_AUDIT__SIGNING_KEY", audit.signing_key),
    )
    for what, file, variable, value in more:
        if file is not None or value is not None:
            text = None if value is None else value.get_secret_value()
            found.append(Secret(what, file, variable, text))
    # A ring that nothing was sealed under yet has no file, and a key may be derived instead.
    return [each for each in found if each.file is None or each.file.exists()]


def copy_secrets(settings: Settings, folder: Path) -> None:
    """Copy all of it into a folder that nobody else can enter."""
    folder.mkdir(mode=0o700)
    lines = []
    for each in list_secrets(settings):
        if each.file is not None:
            write_private(folder / each.file.name, each.file.read_text(encoding="utf-8"))
        else:
            lines.append(f"{each.variable}={each.value}\n")
    if lines:
        write_private(folder / VARIABLES, "".join(lines))


def put_back(source: Path, data_dir: Path) -> list[str]:
    """Put a backup's secrets into an empty data folder; what is there already stays."""
    names = [
        name for name in EMBEDDED if (source / name).is_file() and not (data_dir / name).exists()
    ]
    for name in names:
        shutil.copyfile(source / name, data_dir / name, follow_symlinks=False)
        os.chmod(data_dir / name, 0o600)  # noqa: PTH101  beside the copy
    return names
