import os
import signal
import sys
import time
from pathlib import Path

import pytest

from tests.integration.embedded.platforms import Launcher, wait_for

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]

IGNORING_SIGINT = (
    "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); "
    "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
)


class TestRunningPlatform:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
    def test_stops_in_order_and_leaves_nothing(
        self, launcher: Launcher, folder: Path, number: signal.Signals
    ) -> None:
        platform = launcher.start_and_wait(folder)

        platform.send(number)
        exit_code = platform.wait()

        steps = [line for line in platform.output.splitlines() if line.startswith("Stopping")]
        assert exit_code == 0
        assert [step.split(":")[0] for step in steps] == [
            "Stopping Api, Worker",
            "Stopping Valkey",
            "Stopping PostgreSQL",
        ]
        assert platform.is_gone()
        assert not folder.joinpath("postgres/postmaster.pid").exists()
        assert not folder.joinpath("maas.lock").read_text()

    def test_hears_ctrl_c_where_it_was_born_deaf_to_it(
        self, launcher: Launcher, folder: Path
    ) -> None:
        command = (sys.executable, "-c", IGNORING_SIGINT)
        platform = launcher.start(folder, command=command)
        platform.wait_until_up()

        platform.send(signal.SIGINT)

        assert platform.wait() == 0
        assert platform.is_gone()

    def test_ends_whatever_a_child_does(self, launcher: Launcher, folder: Path) -> None:
        platform = launcher.start_and_wait(folder, roles=["api", "deaf"])
        wait_for_deaf(folder)
        began = time.monotonic()

        exit_code = platform.stop()

        assert exit_code == 0
        assert 5 < time.monotonic() - began < 20
        assert platform.is_gone()

    def test_hurries_at_the_second_ctrl_c(self, launcher: Launcher, folder: Path) -> None:
        platform = launcher.start_and_wait(folder, roles=["api", "deaf"])
        wait_for_deaf(folder)
        began = time.monotonic()

        platform.send(signal.SIGINT)
        time.sleep(0.3)
        platform.send(signal.SIGINT)
        exit_code = platform.wait()

        assert exit_code == 0
        assert time.monotonic() - began < 3
        assert platform.is_gone()


class TestStartingPlatform:
    def test_stops_while_the_database_is_made(self, launcher: Launcher, new_folder: Path) -> None:
        platform = launcher.start(new_folder)
        wait_for((new_folder / "postgres.draft/PG_VERSION").exists, what="a half-made database")

        exit_code = platform.stop()

        assert exit_code == 128 + signal.SIGTERM
        assert platform.is_gone()
        assert not new_folder.joinpath("postgres.draft").exists()

    def test_stops_while_it_migrates(self, launcher: Launcher, folder: Path) -> None:
        platform = launcher.start(folder, prepare_seconds=30)
        wait_for((folder / "environment.json").exists, what="the migration")
        began = time.monotonic()

        exit_code = platform.stop()

        assert exit_code == 128 + signal.SIGTERM
        assert time.monotonic() - began < 3
        assert platform.is_gone()

    def test_stops_while_it_waits_for_the_api(self, launcher: Launcher, folder: Path) -> None:
        platform = launcher.start(folder, roles=["worker"], awaits=True)
        platform.wait_for_output("Migrations: done")

        exit_code = platform.stop()

        assert exit_code == 128 + signal.SIGTERM
        assert platform.is_gone()

    def test_leaves_nothing_when_the_migration_fails(
        self, launcher: Launcher, folder: Path
    ) -> None:
        platform = launcher.start(folder, prepare_fails=True)

        exit_code = platform.wait()

        assert exit_code == 1
        assert "the migration failed" in platform.output
        assert platform.is_gone()


def wait_for_deaf(folder: Path) -> None:
    log = folder / "logs/deaf.log"
    wait_for(lambda: log.exists() and "deaf" in log.read_text(), what="the deaf child")


class TestClosedTerminal:
    def test_stops_everything_without_anybody_to_tell(
        self, launcher: Launcher, folder: Path
    ) -> None:
        master, terminal = os.openpty()
        platform = launcher.start(folder, terminal=terminal)
        os.close(terminal)
        wait_for(lambda: b"MaaS is up" in os.read(master, 65536), what="the panel")

        os.close(master)
        platform.send(signal.SIGHUP)
        platform.wait()

        assert platform.is_gone()
        assert not folder.joinpath("maas.lock").read_text()
