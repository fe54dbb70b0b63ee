from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import asyncpg
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from maas.embedded.endpoints import find_running
from tests.integration.embedded.platforms import Launcher, Platform, processes_of

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]


class TestPostgres:
    async def test_every_role_enters_through_the_url_it_was_given(self, running: Platform) -> None:
        roles = {}

        for name in ("MAAS_DATABASE__URL", "MAAS_DATABASE__OWNER_URL", "MAAS_DATABASE__SYSTEM_URL"):
            engine = create_async_engine(running.environment[name])
            async with engine.connect() as connection:
                roles[name] = await connection.scalar(text("SELECT current_user"))
            await engine.dispose()

        assert list(roles.values()) == ["maas_app", "maas_owner", "maas_system"]

    async def test_only_the_system_role_passes_row_level_security(self, running: Platform) -> None:
        connection = await running.connect_as_superuser()

        rows = await connection.fetch(
            "SELECT rolname, rolbypassrls, rolsuper, rolcreaterole, rolcanlogin FROM pg_roles "
            "WHERE rolname LIKE 'maas%' ORDER BY rolname"
        )
        await connection.close()

        assert [tuple(row) for row in rows] == [
            ("maas_app", False, False, False, True),
            ("maas_owner", False, False, False, True),
            ("maas_system", True, False, False, True),
        ]

    @pytest.mark.parametrize("user", ["postgres", "maas_owner", "maas_app", "maas_system"])
    async def test_nobody_enters_with_a_wrong_password(self, running: Platform, user: str) -> None:
        with pytest.raises(asyncpg.InvalidPasswordError):
            await running.connect(user, "wrong", "postgres" if user == "postgres" else "maas")

    async def test_the_owner_makes_tables_and_the_app_does_not(self, running: Platform) -> None:
        owner = await running.connect("maas_owner", running.secrets["owner_password"])
        app = await running.connect("maas_app", running.secrets["app_password"])

        await owner.execute("CREATE TABLE things (id integer)")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await app.execute("CREATE TABLE others (id integer)")

        await owner.close()
        await app.close()

    async def test_keeps_what_it_confirms(self, running: Platform) -> None:
        connection = await running.connect_as_superuser()
        wanted = {
            "fsync": "on",
            "synchronous_commit": "on",
            "full_page_writes": "on",
            "jit": "off",
            "listen_addresses": "",
            "unix_socket_permissions": "0700",
            "max_connections": "100",
            "server_encoding": "UTF8",
        }

        settings = {name: await connection.fetchval(f"SHOW {name}") for name in wanted}
        rules = await connection.fetch("SELECT DISTINCT auth_method FROM pg_hba_file_rules")
        collation = await connection.fetchrow(
            "SELECT datlocprovider, datlocale, pg_get_userbyid(datdba) "
            "FROM pg_database WHERE datname = 'maas'"
        )
        await connection.close()

        assert settings == wanted
        assert [row["auth_method"] for row in rules] == ["scram-sha-256"]
        assert collation is not None
        assert tuple(collation) == (b"b", "C.UTF-8", "maas_owner")


class TestValkey:
    def test_keeps_what_it_confirms(self, running: Platform) -> None:
        wanted = {
            "appendonly": "yes",
            "appendfsync": "always",
            "save": "",
            "maxmemory-policy": "noeviction",
            "port": "0",
        }

        with redis.Redis.from_url(running.environment["MAAS_REDIS__URL"]) as client:
            settings = {name: client.config_get(name)[name] for name in wanted}

        assert settings == wanted

    def test_listens_on_no_port(self, running: Platform) -> None:
        listening = [
            connection
            for process in processes_of(running.folder)
            for connection in process.net_connections("inet")
        ]

        assert listening == []

    def test_nobody_enters_without_the_password(self, running: Platform) -> None:
        path = str(running.folder / "run/valkey/s")

        with (
            redis.Redis(unix_socket_path=path, retry=Retry(NoBackoff(), 0)) as client,
            pytest.raises(redis.AuthenticationError),
        ):
            client.ping()


class TestSecrecy:
    def test_no_command_line_holds_a_secret(self, running: Platform) -> None:
        commands = [" ".join(each.cmdline()) for each in processes_of(running.folder)]

        assert commands
        assert not [
            secret
            for secret in running.secrets.values()
            for command in commands
            if secret in command
        ]

    def test_no_log_holds_a_secret(self, running: Platform) -> None:
        logs = [each.read_text() for each in running.folder.joinpath("logs").iterdir()]

        assert not [secret for secret in running.secrets.values() for log in logs if secret in log]

    def test_everything_private_is_closed_to_others(self, running: Platform) -> None:
        modes = {
            name: oct(running.folder.joinpath(name).stat().st_mode & 0o777)
            for name in (
                "secrets.json",
                "logs",
                "logs/postgres.log",
                "postgres",
                "valkey",
                "run/postgres",
                "run/valkey",
                "maas.lock",
            )
        }

        assert set(modes.values()) == {"0o600", "0o700"}
        assert running.folder.joinpath("config/valkey.conf").stat().st_mode & 0o007 == 0
        assert not running.folder.joinpath("config/postgres-password").exists()


class TestEndpoints:
    def test_another_command_finds_those_of_a_running_platform(self, running: Platform) -> None:
        endpoints = find_running(running.folder)

        assert endpoints is not None
        assert endpoints.environment() == running.environment

    def test_nothing_is_found_where_nothing_runs(self, used_folder: Path) -> None:
        assert find_running(used_folder) is None

    def test_a_server_of_the_operator_is_neither_started_nor_named(
        self, launcher: Launcher, new_folder: Path
    ) -> None:
        platform = launcher.start_and_wait(new_folder, roles=[], start_postgres=False)

        names = [name for name in platform.environment if "__" in name]

        assert names == ["MAAS_REDIS__URL"]
        assert [each.name() for each in processes_of(new_folder)] == ["valkey-server"]

    def test_a_signing_key_of_the_operator_counts(self, launcher: Launcher, folder: Path) -> None:
        platform = launcher.start(folder, roles=[], environment={"MAAS_SECRET_KEY": "their own"})
        platform.wait_until_up()

        assert "MAAS_SECRET_KEY" not in platform.environment

    def test_a_folder_too_deep_for_sockets_gets_a_short_one(
        self, launcher: Launcher, scratch: Path
    ) -> None:
        deep = scratch / ("d" * 60) / ("e" * 60)

        platform = launcher.start_and_wait(deep, roles=[])

        query = parse_qs(urlsplit(platform.environment["MAAS_DATABASE__URL"]).query)
        sockets = Path(query["host"][0])
        assert sockets.joinpath(".s.PGSQL.5432").is_socket()
        assert oct(sockets.stat().st_mode & 0o777) == "0o700"
        assert platform.stop() == 0
