"""Settings that change while a process runs, and those that wait for its restart."""

import io
import json
import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from structlog.testing import capture_logs

from maas.shared.infrastructure import reloading
from maas.shared.infrastructure.logging import configure_logging, set_log_level
from maas.shared.infrastructure.rate_limits import RateLimits
from maas.shared.infrastructure.redis import RedisGate
from maas.shared.infrastructure.reloading import SettingsWatch
from maas.shared.infrastructure.settings import RedisSettings, Settings, load_settings
from tests.conftest import TEST_SECRET


class Config:
    """A `config.yaml`, a process that watches it, and what that was told to apply."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.write("log_level: INFO")
        self.applied: list[Settings] = []
        self.watch = SettingsWatch(
            self.load(), apply=self.applied.append, load=self.load, path=path
        )

    @staticmethod
    def load() -> Settings:
        return load_settings(
            secret_key=TEST_SECRET,
            database={"url": "postgresql://unused"},
            redis={"url": "redis://unused"},
        )

    def write(self, text: str) -> None:
        # As editors do: another file takes the place, so that the look never sees half of one.
        fresh = self.path.with_suffix(".new")
        fresh.write_text(text)
        fresh.rename(self.path)

    def look(self) -> list[Any]:
        with capture_logs() as logs:
            while self.watch.look():
                pass
        return logs


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Config]:
    monkeypatch.chdir(tmp_path)
    # One that was used before keeps what it was set up with then.
    monkeypatch.setattr(reloading, "_log", structlog.get_logger())
    before, root = structlog.get_config(), logging.getLogger().level
    yield Config(tmp_path / "config.yaml")
    configure_logging(level="INFO")
    structlog.configure(**before)
    logging.getLogger().setLevel(root)


def test_a_file_that_is_the_same_is_not_read_again(config: Config) -> None:
    assert config.look() == []
    assert config.applied == []


def test_limits_and_the_level_are_in_force_at_once(config: Config) -> None:
    config.write("log_level: DEBUG\nrate_limits: {requests_per_minute: 7}")

    logs = config.look()

    [now] = config.applied
    assert (now.log_level, now.rate_limits.requests_per_minute) == ("DEBUG", 7)
    names = ["MAAS_LOG_LEVEL", "MAAS_RATE_LIMITS__REQUESTS_PER_MINUTE"]
    assert [(line["event"], line["variables"]) for line in logs] == [("config_reloaded", names)]
    assert config.look() == []


def test_the_rest_waits_for_a_restart_and_says_so(config: Config) -> None:
    config.write("mail: {smtp_password: hunter2-secret}\nrate_limits: {enabled: false}")

    logs = config.look()

    assert config.applied == []
    assert [line["event"] for line in logs] == ["config_needs_restart"]
    assert set(logs[0]["variables"]) == {
        "MAAS_MAIL__SMTP_PASSWORD",
        "MAAS_RATE_LIMITS__ENABLED",
    }
    assert "hunter2" not in str(logs)


@pytest.mark.parametrize(
    "broken", ["log_level: LOUD", "log_level: [", "rate_limits: {requests_per_minute: 0}", "- a"]
)
def test_a_broken_file_changes_nothing_and_is_told_once(config: Config, broken: str) -> None:
    config.write(f"{broken}\nmail: {{smtp_password: hunter2-secret}}")

    logs = config.look()

    assert [line["event"] for line in logs] == ["config_not_reloaded"]
    assert "hunter2" not in str(logs)
    assert config.look() == []
    assert (config.applied, config.watch.settings.log_level) == ([], "INFO")


def test_a_file_that_is_gone_changes_nothing(config: Config) -> None:
    config.write("log_level: DEBUG")
    config.look()
    config.path.unlink()

    assert [line["event"] for line in config.look()] == ["config_not_reloaded"]
    assert config.watch.settings.log_level == "DEBUG"


def test_a_thread_of_its_own_looks_until_it_is_stopped(config: Config) -> None:
    applied = threading.Event()
    watch = SettingsWatch(
        config.load(),
        apply=lambda _: applied.set(),
        load=config.load,
        path=config.path,
        every_seconds=0.01,
    )
    watch.start()
    config.write("log_level: ERROR")

    assert applied.wait(20)
    watch.stop()
    watch.join()


def test_a_file_that_is_being_written_is_left_alone(config: Config) -> None:
    config.write("")
    assert config.watch.look()
    config.write("log_level: DEBUG")
    assert config.watch.look()

    assert config.applied == []
    assert config.watch.look() is False
    assert [now.log_level for now in config.applied] == ["DEBUG"]


def test_a_file_that_changes_while_it_is_read_is_read_again(config: Config) -> None:
    def change() -> Settings:
        told = config.load()
        if not config.applied:
            config.write("log_level: WARNING")
        return told

    config.write("log_level: DEBUG")
    watch = SettingsWatch(config.load(), apply=config.applied.append, load=change, path=config.path)
    config.write("log_level: ERROR")

    assert [watch.look(), watch.look()] == [True, True]
    assert config.applied == []


def test_what_changed_before_the_first_look_is_seen_by_it(config: Config) -> None:
    started_with = config.load()
    config.write("log_level: DEBUG")
    config.watch = SettingsWatch(
        started_with, apply=config.applied.append, load=config.load, path=config.path
    )

    config.look()

    assert [now.log_level for now in config.applied] == ["DEBUG"]


def test_a_fork_of_a_process_that_was_reloaded_gets_the_level_of_the_file(config: Config) -> None:
    set_log_level("DEBUG")
    assert logging.getLogger().level == logging.DEBUG

    assert config.look() == []

    assert logging.getLogger().level == logging.INFO


def test_an_edit_that_changes_nothing_is_told_and_what_hides_it_is_named(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAAS_LOG_LEVEL", "INFO")
    monkeypatch.setenv("MAAS_HOST", "127.0.0.1")
    config.look()
    config.write("log_level: DEBUG\nserver: {host: 0.0.0.0}")

    [line] = config.look()

    assert (line["event"], line["variables"]) == ("config_reloaded", [])
    assert line["hidden"] == ["MAAS_LOG_LEVEL", "MAAS_SERVER__HOST"]


def test_what_was_not_the_fault_of_the_file_is_tried_again(config: Config) -> None:
    config.write("auth: {private_key_file: key.pem}\nlog_level: DEBUG")
    assert [line["event"] for line in config.look()] == ["config_not_reloaded"]
    assert config.look() == []
    key = ec.generate_private_key(ec.SECP256R1())
    config.path.with_name("key.pem").write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )

    config.look()

    assert [now.log_level for now in config.applied] == ["DEBUG"]


def test_a_file_that_is_edited_and_still_broken_is_told_again(config: Config) -> None:
    for text in ("log_level: LOUD", "log_level: LOUD # 2"):
        config.write(text)
        assert [line["event"] for line in config.look()] == ["config_not_reloaded"]


def test_where_there_never_was_a_file_nothing_is_told(config: Config) -> None:
    config.path.unlink()
    config.watch = SettingsWatch(config.load(), load=config.load, path=config.path)

    assert config.look() == []


def test_loggers_that_were_used_before_follow_the_level(config: Config) -> None:
    stream = io.BytesIO()
    configure_logging(level="INFO", format="json", stream=stream)
    log = structlog.get_logger("used")
    log.debug("unheard")
    log.info("heard")
    config.write("log_level: DEBUG")
    assert config.watch.look()
    config.watch.look()

    log.debug("heard_now")
    logging.getLogger("library").debug("heard_too")

    events = [json.loads(line)["event"] for line in stream.getvalue().splitlines()]
    assert events == ["heard", "config_reloaded", "heard_now", "heard_too"]


def test_limits_are_those_of_the_file_from_the_next_request_on() -> None:
    settings = Config.load().rate_limits
    gate = RedisGate(RedisSettings.model_validate({"url": "redis://127.0.0.1:1"}))
    limits = RateLimits(settings.model_copy(update={"unauthenticated_per_minute": 5}), redis=gate)
    before = limits.take_here([limits._of_address("192.0.2.1", "address")])

    limits.apply(settings.model_copy(update={"unauthenticated_per_minute": 9}))
    after = limits.take_here([limits._of_address("192.0.2.1", "address")])

    assert [each.levels[0].rate.quota for each in (before, after)] == [5, 9]
