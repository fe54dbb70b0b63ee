import json
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.embedded.conftest import needs_root
from tests.integration.embedded.platforms import (
    Launcher,
    copy_folder,
    free_port,
    processes_of,
    runs,
    wait_for,
)

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]

SMALL_MEGABYTES = 20
ENOUGH_MEGABYTES = 200


SECRETS = {
    f"{name}_password": "x" * 43 for name in ("superuser", "owner", "app", "system", "valkey")
} | {"secret_key": "x" * 64}


@pytest.fixture
def small_disk(scratch: Path, launcher: Launcher) -> Iterator[Path]:
    """A disk with room for 20 MB."""
    disk = scratch / "disk"
    disk.mkdir()
    mount(disk, "-t", "tmpfs", "-o", f"size={SMALL_MEGABYTES}m,mode=755", "tmpfs")
    yield disk
    launcher.end_all()
    subprocess.run([program("umount"), str(disk)], check=True)


def program(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed")
    return path


def mount(disk: Path, *arguments: str) -> None:
    subprocess.run([program("mount"), *arguments, str(disk)], check=True)


class TestSecondStarter:
    def test_is_told_who_came_first_and_disturbs_nothing(
        self, launcher: Launcher, folder: Path
    ) -> None:
        first = launcher.start_and_wait(folder)
        before = processes_of(folder)

        second = launcher.start(folder)
        exit_code = second.wait()

        assert exit_code == 3
        assert f"process {first.popen.pid}, http://127.0.0.1:{first.port}" in second.output
        assert all(runs(each) for each in before)
        assert first.stop() == 0

    def test_of_two_at_the_same_instant_one_wins(
        self, launcher: Launcher, new_folder: Path
    ) -> None:
        starters = [launcher.start(new_folder, roles=[]) for _ in range(2)]

        wait_for(lambda: any(each.has_ended for each in starters), what="one giving up")
        loser, winner = sorted(starters, key=lambda each: not each.has_ended)
        winner.wait_until_up()

        assert loser.popen.returncode == 3
        assert winner.stop() == 0


class TestTakenPort:
    def test_is_found_before_anything_slow(self, launcher: Launcher, new_folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]

            platform = launcher.start(new_folder, port=port)
            exit_code = platform.wait()

        assert exit_code == 1
        assert f"Port {port} on 127.0.0.1 is already in use." in platform.output
        assert f"--port {port + 1}" in platform.output
        assert not new_folder.joinpath("postgres.draft").exists()
        assert not new_folder.joinpath("postgres").exists()


@needs_root
class TestFullDisk:
    def test_stops_a_first_start_until_there_is_room(
        self, launcher: Launcher, small_disk: Path
    ) -> None:
        platform = launcher.start(small_disk / "data", roles=[])

        exit_code = platform.wait()

        assert exit_code == 1
        assert f"The disk under {small_disk / 'data'} is full." in platform.output
        assert "Free some space" in platform.output
        assert platform.is_gone()
        mount(small_disk, "-o", f"remount,size={ENOUGH_MEGABYTES}m")
        assert launcher.start_and_wait(small_disk / "data", roles=[]).stop() == 0

    def test_stops_a_later_start_until_there_is_room(
        self, launcher: Launcher, small_disk: Path, used_folder: Path
    ) -> None:
        mount(small_disk, "-o", f"remount,size={ENOUGH_MEGABYTES}m")
        copy_folder(used_folder, small_disk / "data")
        ballast = small_disk / "ballast"
        fill(ballast)

        platform = launcher.start(small_disk / "data", roles=[])
        exit_code = platform.wait()

        assert exit_code == 1
        assert "is full" in platform.output
        assert platform.is_gone()
        ballast.unlink()
        assert launcher.start_and_wait(small_disk / "data", roles=[]).stop() == 0


def fill(ballast: Path) -> None:
    """Write until nothing more fits."""
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"\0" * 65536)
        except OSError:
            return


@needs_root
class TestReadOnlyFolder:
    def test_is_refused_with_a_way_out(
        self, launcher: Launcher, small_disk: Path, used_folder: Path
    ) -> None:
        mount(small_disk, "-o", f"remount,size={ENOUGH_MEGABYTES}m")
        copy_folder(used_folder, small_disk / "data")
        mount(small_disk, "-o", "remount,ro")

        platform = launcher.start(small_disk / "data", roles=[])
        exit_code = platform.wait()

        assert exit_code == 1
        assert "Read-only file system" in platform.output
        assert "--data-dir" in platform.output
        assert platform.is_gone()


class TestSecrets:
    def test_damaged_ones_are_refused(self, launcher: Launcher, folder: Path) -> None:
        folder.joinpath("secrets.json").write_text("{")

        platform = launcher.start(folder, roles=[])
        exit_code = platform.wait()

        assert exit_code == 1
        assert "is not JSON" in platform.output
        assert "from a backup" in platform.output

    def test_lost_ones_are_not_replaced_while_there_is_data(
        self, launcher: Launcher, folder: Path
    ) -> None:
        folder.joinpath("secrets.json").unlink()

        platform = launcher.start(folder, roles=[])
        exit_code = platform.wait()

        assert exit_code == 1
        assert "is missing, but the database it opens is there" in platform.output
        assert not folder.joinpath("secrets.json").exists()

    def test_exposed_ones_are_closed_and_told_of(self, launcher: Launcher, folder: Path) -> None:
        folder.joinpath("secrets.json").chmod(0o644)

        platform = launcher.start_and_wait(folder, roles=[])

        assert oct(folder.joinpath("secrets.json").stat().st_mode & 0o777) == "0o600"
        assert "Others could read" in platform.output

    def test_are_the_same_at_every_start(self, launcher: Launcher, folder: Path) -> None:
        before = json.loads(folder.joinpath("secrets.json").read_text())

        platform = launcher.start_and_wait(folder, roles=[])

        assert platform.secrets == before
        assert platform.environment["MAAS_SECRET_KEY"] == before["secret_key"]


class TestScreen:
    def test_shows_the_first_password_once(self, launcher: Launcher, new_folder: Path) -> None:
        first = launcher.start_and_wait(new_folder, roles=[], one_time_password="only-once-4711")
        first.stop()
        second = launcher.start_and_wait(new_folder, roles=[])

        logs = [log.read_text() for log in new_folder.joinpath("logs").iterdir()]
        assert first.output.count("only-once-4711") == 1
        assert "only-once-4711" not in second.output
        assert not [log for log in logs if "only-once-4711" in log]

    def test_shows_the_first_password_even_if_the_start_fails_later(
        self, launcher: Launcher, folder: Path
    ) -> None:
        platform = launcher.start(
            folder, roles=["crash"], awaits=True, one_time_password="only-once-4711"
        )

        platform.wait()

        assert platform.output.count("only-once-4711") == 1

    def test_is_plain_where_there_is_no_terminal(self, launcher: Launcher, folder: Path) -> None:
        platform = launcher.start_and_wait(folder, environment={"FORCE_COLOR": "1"})
        platform.stop()

        assert "\x1b" not in platform.output
        assert platform.output.isascii()


class TestForeignData:
    def test_is_not_taken_for_a_database(self, launcher: Launcher, new_folder: Path) -> None:
        foreign = new_folder / "postgres/thesis.txt"
        foreign.parent.mkdir(parents=True)
        foreign.write_text("years of work")
        new_folder.joinpath("secrets.json").write_text(json.dumps(SECRETS))

        platform = launcher.start(new_folder, roles=[])
        exit_code = platform.wait()

        assert exit_code == 1
        assert "PG_VERSION is missing" in platform.output
        assert foreign.read_text() == "years of work"


class TestProgram:
    def test_that_is_missing_is_named(
        self, launcher: Launcher, new_folder: Path, scratch: Path
    ) -> None:
        platform = launcher.start(
            new_folder, environment={"MAAS_PG_BIN": str(scratch)}, port=free_port()
        )
        exit_code = platform.wait()

        assert exit_code == 1
        assert f"{scratch} (from MAAS_PG_BIN) does not hold" in platform.output
