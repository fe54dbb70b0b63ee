"""The operator's commands, as processes: what they say, to whom, and with which exit code."""

from pathlib import Path

import pytest

from tests.conftest import TEST_SECRET
from tests.e2e.cli.conftest import Run

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(60)]

PASSWORD = "a long enough passphrase"


class TestSettings:
    def test_what_is_missing_is_named_with_a_way_out(self, run: Run, tmp_path: Path) -> None:
        done = run("config", "show", given={"MAAS_DATA_DIR": str(tmp_path / "none")})

        assert done.returncode == 2
        for name in ("MAAS_SECRET_KEY", "MAAS_DATABASE__URL", "MAAS_REDIS__URL"):
            assert f"{name} is not set" in done.stderr
        assert "Traceback" not in done.stderr

    @pytest.mark.parametrize(
        ("name", "value", "complaint"),
        [
            ("MAAS_REDIS__URL", "nonsense", "MAAS_REDIS__URL: use redis://"),
            (
                "MAAS_DATABASE__URL",
                "postgresql://u:p@h:abc/x",
                "MAAS_DATABASE__URL: use postgresql",
            ),
            ("MAAS_SECRET_KEY", "short", "MAAS_SECRET_KEY: needs at least 32"),
            ("MAAS_SERVER__PROT", "1", "MAAS_SERVER__PROT is not a setting"),
            ("MAAS_SERVER__PORT", "70000", "MAAS_SERVER__PORT:"),
        ],
    )
    def test_what_is_wrong_is_named_and_not_shown(
        self,
        run: Run,
        settings_of_worker: dict[str, str],
        name: str,
        value: str,
        complaint: str,
    ) -> None:
        done = run("config", "show", given={**settings_of_worker, name: value})

        assert done.returncode == 2
        assert complaint in done.stderr
        assert "Traceback" not in done.stderr

    @pytest.mark.parametrize(
        ("file", "content"),
        [
            ("config.yaml", b"just text"),
            ("config.yaml", b"a: ["),
            ("config.yaml", b"\xff\xfe"),
            (".env", b"\xff\xfe"),
        ],
    )
    def test_a_file_that_cannot_be_read_is_named(
        self,
        run: Run,
        settings_of_worker: dict[str, str],
        tmp_path: Path,
        file: str,
        content: bytes,
    ) -> None:
        (tmp_path / file).write_bytes(content)

        done = run("config", "show", given=settings_of_worker)

        assert done.returncode == 2
        assert file in done.stderr
        assert "Traceback" not in done.stderr

    def test_each_value_says_where_it_came_from_and_secrets_are_masked(
        self, run: Run, settings_of_worker: dict[str, str], tmp_path: Path
    ) -> None:
        (tmp_path / ".env").write_text("MAAS_PORT=8001\nMAAS_LOG_LEVEL=ERROR\n")
        (tmp_path / "config.yaml").write_text("log_level: DEBUG\nserver:\n  workers: 3\n")

        done = run("config", "show", given=settings_of_worker)

        lines = done.stdout.splitlines()
        assert "MAAS_SECRET_KEY=********  # environment" in lines
        assert "MAAS_SERVER__PORT=8001  # .env" in lines
        assert "MAAS_LOG_LEVEL=ERROR  # .env" in lines
        assert "MAAS_SERVER__WORKERS=3  # config.yaml" in lines
        assert "MAAS_DEBUG=False  # default" in lines
        assert TEST_SECRET not in done.stdout


@pytest.mark.usefixtures("clean")
class TestAdminCreate:
    def test_makes_an_administrator_once(
        self, run: Run, settings_of_worker: dict[str, str]
    ) -> None:
        person = ("--username", "ada", "--email", "ada@example.com")
        command = ("admin", "create", *person, "--password-stdin")

        first = run(*command, given=settings_of_worker, text=f"{PASSWORD}\n")
        second = run(*command, given=settings_of_worker, text=f"{PASSWORD}\n")

        assert first.returncode == 0, first.stderr
        assert "Administrator ada was made" in first.stdout
        assert second.returncode == 1
        assert "already in use" in second.stderr
        assert PASSWORD not in first.stdout + first.stderr + second.stdout + second.stderr

    @pytest.mark.parametrize(
        ("who", "password", "complaint"),
        [
            (("a b", "a@b.de"), PASSWORD, "A user name has"),
            (("ada", "nowhere"), PASSWORD, "An e-mail address looks like"),
            (("ada", "a@b.de"), "short", "A password has 12 to 256"),
            (("ada", "a@b.de"), "", "A password has 12 to 256"),
        ],
    )
    def test_says_what_is_wrong(
        self,
        run: Run,
        settings_of_worker: dict[str, str],
        who: tuple[str, str],
        password: str,
        complaint: str,
    ) -> None:
        username, email = who

        done = run(
            *("admin", "create", "--username", username, "--email", email, "--password-stdin"),
            given=settings_of_worker,
            text=f"{password}\n",
        )

        assert done.returncode == 1
        assert complaint in done.stderr

    def test_without_a_database_it_says_so(
        self, run: Run, settings_of_worker: dict[str, str]
    ) -> None:
        nowhere = {**settings_of_worker, "MAAS_DATABASE__URL": "postgresql://u:p@127.0.0.1:1/x"}

        done = run(
            *("admin", "create", "--username", "ada", "--email", "a@b.de", "--password-stdin"),
            given=nowhere,
            text=f"{PASSWORD}\n",
        )

        assert done.returncode == 1
        assert "the database cannot be reached" in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.usefixtures("clean")
class TestMigrate:
    def test_twice_is_once(self, run: Run, settings_of_worker: dict[str, str]) -> None:
        for _ in range(2):
            done = run("migrate", given=settings_of_worker)

            assert done.returncode == 0, done.stderr
            assert "up to date" in done.stdout

    def test_makes_the_configured_administrator_once(
        self, run: Run, settings_of_worker: dict[str, str]
    ) -> None:
        given = {
            **settings_of_worker,
            "MAAS_BOOTSTRAP__ADMIN_USERNAME": "root",
            "MAAS_BOOTSTRAP__ADMIN_EMAIL": "root@example.com",
            "MAAS_BOOTSTRAP__ADMIN_PASSWORD": PASSWORD,
        }

        assert run("migrate", given=given).returncode == 0
        assert run("migrate", given=given).returncode == 0
        again = run(
            *("admin", "create", "--username", "root", "--email", "b@b.de", "--password-stdin"),
            given=settings_of_worker,
            text=f"{PASSWORD}\n",
        )

        assert "already in use" in again.stderr


class TestDoctor:
    def test_finds_nothing_wrong_but_what_tests_switch_off(
        self, run: Run, settings_of_worker: dict[str, str]
    ) -> None:
        done = run("doctor", given=settings_of_worker)

        assert done.returncode == 0, done.stdout
        assert "PostgreSQL 18 answers" in done.stdout
        assert "The worker can act as maas_system" in done.stdout
        assert "appendfsync always" in done.stdout

    def test_tells_of_every_server_that_is_away(
        self, run: Run, settings_of_worker: dict[str, str]
    ) -> None:
        done = run(
            "doctor",
            given={
                **settings_of_worker,
                "MAAS_DATABASE__URL": "postgresql://u:p@127.0.0.1:1/x",
                "MAAS_REDIS__URL": "redis://127.0.0.1:1/0",
                "MAAS_LOGLEVEL": "misspelt",
            },
        )

        assert done.returncode == 1
        assert "PostgreSQL does not let us in" in done.stdout
        assert "Redis does not answer" in done.stdout
        assert "MAAS_LOGLEVEL is not a setting" in done.stdout


class TestServe:
    def test_production_refuses_a_redis_that_may_forget(
        self, run: Run, settings_of_worker: dict[str, str]
    ) -> None:
        done = run(
            "serve",
            "--port",
            "18761",
            given={**settings_of_worker, "MAAS_ENVIRONMENT": "production"},
        )

        assert done.returncode == 1
        assert "appendfsync always" in done.stderr
