"""How the rest of the platform reaches the private servers."""

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from maas.embedded.credentials import Credentials, read_credentials
from maas.embedded.folders import DataFolder, locate_data_folder
from maas.embedded.lock import find_holder
from maas.embedded.postgres import PORT
from maas.embedded.provision import APP, DATABASE, OWNER, SYSTEM

SIGNING_KEY_VARIABLE = "MAAS_AUTH__PRIVATE_KEY_FILE"
AUDIT_KEY_VARIABLE = "MAAS_AUDIT__SIGNING_KEY_FILE"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Endpoints:
    """The private servers' addresses; only those of servers that are ours."""

    folder: DataFolder
    credentials: Credentials
    has_postgres: bool
    has_valkey: bool
    has_signing_key: bool = False
    has_audit_key: bool = False

    def environment(self) -> dict[str, str]:
        """Return the settings of the platform, as environment variables."""
        settings = {
            "MAAS_DATA_DIR": str(self.folder.root),
            "MAAS_SECRET_KEY": self.credentials.secret_key,
        }
        if self.has_signing_key:
            settings[SIGNING_KEY_VARIABLE] = str(self.folder.signing_key_file)
        if self.has_audit_key:
            settings[AUDIT_KEY_VARIABLE] = str(self.folder.audit_key_file)
        if self.has_postgres:
            settings |= self._database()
        if self.has_valkey:
            settings["MAAS_REDIS__URL"] = self._redis_url()
        return settings

    def _database(self) -> dict[str, str]:
        return {
            "MAAS_DATABASE__URL": self._postgres_url(APP, self.credentials.app_password),
            "MAAS_DATABASE__OWNER_URL": self._postgres_url(OWNER, self.credentials.owner_password),
            "MAAS_DATABASE__SYSTEM_URL": self._postgres_url(
                SYSTEM, self.credentials.system_password
            ),
        }

    def _postgres_url(self, role: str, password: str) -> str:
        host = quote(str(self.folder.postgres_sockets))
        return f"postgresql+asyncpg://{role}:{password}@/{DATABASE}?host={host}&port={PORT}"

    def _redis_url(self) -> str:
        socket = quote(str(self.folder.valkey_sockets / "s"))
        return f"unix://default:{self.credentials.valkey_password}@{socket}?db=0"


def find_running(data_dir: Path) -> Endpoints | None:
    """Return the endpoints of a platform that is up on this folder, for other commands.

    Raises:
        DamagedSecretsError: it is up, but its file of secrets has been damaged since.
    """
    folder = locate_data_folder(data_dir)
    holder = find_holder(folder.lock_file)
    if holder is None:
        return None
    return Endpoints(
        folder=folder,
        credentials=read_credentials(folder.secrets_file),
        has_postgres=holder.has_postgres,
        has_valkey=holder.has_valkey,
        has_signing_key=folder.signing_key_file.exists(),
        has_audit_key=folder.audit_key_file.exists(),
    )
