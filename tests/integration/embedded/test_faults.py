from pathlib import Path

import psutil
import pytest
import redis

from tests.integration.embedded.platforms import (
    Launcher,
    Platform,
    await_pool,
    processes_of,
    runs,
    wait_for,
)

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60)]

SECONDS_TO_VANISH = 20.0


async def count_rows(platform: Platform) -> int:
    owner = await platform.connect("maas_owner", platform.secrets["owner_password"])
    count: int = await owner.fetchval("SELECT count(*) FROM kept")
    await owner.close()
    return count


async def write_row(platform: Platform) -> None:
    owner = await platform.connect("maas_owner", platform.secrets["owner_password"])
    await owner.execute("CREATE TABLE IF NOT EXISTS kept (id integer)")
    await owner.execute("INSERT INTO kept VALUES (1)")
    await owner.close()


def open_valkey(platform: Platform) -> redis.Redis:
    return redis.Redis.from_url(platform.environment["MAAS_REDIS__URL"])


class TestKilledSupervisor:
    def test_takes_everything_with_it(self, launcher: Launcher, folder: Path) -> None:
        platform = launcher.start_and_wait(folder, roles=["api", "worker", "deaf"])
        pool = await_pool(platform)

        platform.kill()

        wait_for(platform.is_gone, what="the end of all processes", seconds=SECONDS_TO_VANISH)
        assert not any(runs(each) for each in pool)

    async def test_is_followed_by_a_clean_start(self, launcher: Launcher, folder: Path) -> None:
        first = launcher.start_and_wait(folder)
        await write_row(first)
        with open_valkey(first) as client:
            client.set("kept", 1)

        first.kill()
        second = launcher.start_and_wait(folder, port=first.port)

        assert await count_rows(second) == 1
        with open_valkey(second) as client:
            assert client.get("kept") == b"1"
        assert second.stop() == 0

    def test_leaves_nothing_after_dying_in_initdb(
        self, launcher: Launcher, new_folder: Path
    ) -> None:
        platform = launcher.start(new_folder, roles=[])
        wait_for((new_folder / "postgres.draft/PG_VERSION").exists, what="a half-made database")

        platform.kill()

        wait_for(platform.is_gone, what="the end of all processes", seconds=SECONDS_TO_VANISH)
        assert launcher.start_and_wait(new_folder, roles=[]).stop() == 0


class TestKilledPostmaster:
    async def test_comes_back_with_its_data(self, launcher: Launcher, folder: Path) -> None:
        platform = launcher.start_and_wait(folder)
        await write_row(platform)

        platform.find_server("postgres").kill()

        platform.wait_for_output("PostgreSQL was started again")
        assert await count_rows(platform) == 1
        assert "PostgreSQL ended (SIGKILL)" in platform.output
        assert platform.stop() == 0


class TestKilledValkey:
    def test_comes_back_at_the_same_place_with_its_data(
        self, launcher: Launcher, folder: Path
    ) -> None:
        platform = launcher.start_and_wait(folder)
        with open_valkey(platform) as client:
            client.set("kept", 1)

        platform.find_server("valkey").kill()

        platform.wait_for_output("Valkey was started again")
        with open_valkey(platform) as client:
            assert client.get("kept") == b"1"


class TestKilledWorker:
    def test_is_replaced_and_its_pool_is_cleared_away(
        self, launcher: Launcher, folder: Path
    ) -> None:
        platform = launcher.start_and_wait(folder)
        pool = await_pool(platform)

        platform.find_child("worker").kill()

        platform.wait_for_output("Worker was started again")
        assert not any(runs(each) for each in pool)
        assert runs(platform.find_child("worker"))


class TestCrashingChild:
    def test_is_started_again_after_growing_pauses(self, launcher: Launcher, folder: Path) -> None:
        platform = launcher.start_and_wait(folder, roles=["api", "crash"])

        platform.wait_for_output("Crash ended (exit code 7); starting it again in 0.8 s")

        pauses = [
            line.split(" in ")[1][:5] for line in platform.output.splitlines() if " in 0." in line
        ]
        assert [pause for pause in pauses if pause.endswith("s")] == ["0.2 s", "0.4 s", "0.8 s"]
        assert "  | the reason it crashed" in platform.output
        assert str(folder / "logs/crash.log") in platform.output

    def test_ends_a_start_that_waits_for_it(self, launcher: Launcher, folder: Path) -> None:
        platform = launcher.start(folder, roles=["crash"], awaits=True)

        exit_code = platform.wait()

        assert exit_code == 1
        assert "Crash did not become ready; it ended 3 times." in platform.output
        assert platform.is_gone()


class TestStalePidFile:
    def test_naming_an_unrelated_process_is_no_obstacle(
        self, launcher: Launcher, folder: Path
    ) -> None:
        stale = folder / "postgres/postmaster.pid"
        stale.write_text(f"{psutil.Process().pid}\n{folder}/postgres\n0\n5432\n\n\n\nready\n")
        stale.chmod(0o600)

        platform = launcher.start_and_wait(folder, roles=[])

        assert runs(psutil.Process())
        assert platform.stop() == 0


class TestHalfMadeDatabase:
    def test_is_made_anew(self, launcher: Launcher, new_folder: Path) -> None:
        half_made = new_folder / "postgres.draft"
        half_made.mkdir(parents=True)
        half_made.joinpath("PG_VERSION").write_text("18\n")

        platform = launcher.start_and_wait(new_folder, roles=[])

        assert not half_made.exists()
        assert platform.stop() == 0


class TestLeftServers:
    def test_are_stopped_before_new_ones_start(self, launcher: Launcher, folder: Path) -> None:
        platform = launcher.start_and_wait(folder)
        left = processes_of(folder)
        servers = [each for each in left if each.name() in {"postgres", "valkey-server"}]
        # Stopped processes do not react to the death signal: as servers that hang would not.
        for each in servers:
            each.suspend()
        platform.kill()
        for each in servers:
            each.resume()

        second = launcher.start_and_wait(folder, port=platform.port)

        assert not any(runs(each) for each in left)
        assert second.stop() == 0
