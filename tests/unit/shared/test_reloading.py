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
from structlog.testing import capture_logs

from maas.shared.infrastructure import reloading
from maas.shared.infrastructure.logging import configure_logging
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
            self.watch.look()
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


def test_loggers_that_were_used_before_follow_the_level(config: Config) -> None:
    stream = io.BytesIO()
    configure_logging(level="INFO", format="json", stream=stream)
    log = structlog.get_logger("used")
    log.debug("unheard")
    log.info("heard")
    config.write("log_level: DEBUG")
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
