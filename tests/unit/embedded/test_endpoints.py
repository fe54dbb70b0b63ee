from pathlib import Path

import pytest
import redis
from sqlalchemy import make_url

from maas.embedded.credentials import Credentials
from maas.embedded.endpoints import Endpoints
from maas.embedded.folders import DataFolder

CREDENTIALS = Credentials(
    superuser_password="super",
    owner_password="owner",
    app_password="app-_",
    system_password="system",
    valkey_password="valkey",
    secret_key="key",
)


@pytest.fixture
def environment() -> dict[str, str]:
    root = Path("/srv/my data & more")
    folder = DataFolder(root=root, sockets=root / "run")
    return Endpoints(
        folder=folder, credentials=CREDENTIALS, has_postgres=True, has_valkey=True
    ).environment()


class TestEnvironment:
    def test_names_every_setting(self, environment: dict[str, str]) -> None:
        assert set(environment) == {
            "MAAS_DATA_DIR",
            "MAAS_SECRET_KEY",
            "MAAS_DATABASE__URL",
            "MAAS_DATABASE__OWNER_URL",
            "MAAS_DATABASE__SYSTEM_URL",
            "MAAS_REDIS__URL",
        }

    def test_names_the_keys_that_there_are(self) -> None:
        root = Path("/srv/data")
        environment = Endpoints(
            folder=DataFolder(root=root, sockets=root / "run"),
            credentials=CREDENTIALS,
            has_postgres=False,
            has_valkey=False,
            has_audit_key=True,
        ).environment()

        assert environment["MAAS_AUDIT__SIGNING_KEY_FILE"] == "/srv/data/audit-key.pem"

    def test_gives_sqlalchemy_a_socket_folder_with_any_name(
        self, environment: dict[str, str]
    ) -> None:
        url = make_url(environment["MAAS_DATABASE__URL"])

        assert (url.username, url.password, url.database) == ("maas_app", "app-_", "maas")
        assert dict(url.query) == {"host": "/srv/my data & more/run/postgres", "port": "5432"}

    def test_gives_redis_a_socket_with_any_name(self, environment: dict[str, str]) -> None:
        client = redis.Redis.from_url(environment["MAAS_REDIS__URL"])

        options = client.connection_pool.connection_kwargs
        assert options["path"] == "/srv/my data & more/run/valkey/s"
        assert (options["username"], options["password"], options["db"]) == (
            "default",
            "valkey",
            0,
        )

    def test_shows_no_secret_when_printed(self) -> None:
        assert "super" not in repr(CREDENTIALS)
