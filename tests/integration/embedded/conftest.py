import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.embedded.platforms import Launcher, Platform, copy_folder

MEMORY = Path("/dev/shm")  # noqa: S108  mkdtemp makes a folder of our own in it
DISK = Path("/tmp")  # noqa: S108  likewise
ROOM_BYTES = 2 * 1024**3

# Under `nohup` this is ignored, and children inherit that: none would hear of a closed terminal.
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="changes accounts or mounts")


@pytest.fixture(scope="session")
def spacious() -> Iterator[Path]:
    """A folder that `nobody` can get to, unlike pytest's own when root runs the tests.

    In memory where there is room, which halves the time of the suite.
    """
    has_room = MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > ROOM_BYTES
    base = MEMORY if has_room else DISK
    path = Path(tempfile.mkdtemp(prefix="maas-embedded-", dir=base))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def scratch(spacious: Path) -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(dir=spacious))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def launcher(scratch: Path) -> Iterator[Launcher]:
    launcher = Launcher(scratch)
    yield launcher
    launcher.end_all()


@pytest.fixture
def new_folder(scratch: Path, launcher: Launcher) -> Path:
    """A data folder that does not exist yet."""
    return scratch / "data"


@pytest.fixture(scope="session")
def session_launcher(spacious: Path) -> Iterator[Launcher]:
    launcher = Launcher(spacious)
    yield launcher
    launcher.end_all()


@pytest.fixture(scope="session")
def used_folder(spacious: Path, session_launcher: Launcher) -> Path:
    """A data folder of a platform that has run once and was stopped properly."""
    folder = spacious / "used"
    platform = session_launcher.start_and_wait(folder, roles=[])
    assert platform.stop() == 0
    folder.joinpath("environment.json").unlink()
    return folder


@pytest.fixture(scope="session")
def running(spacious: Path, used_folder: Path, session_launcher: Launcher) -> Platform:
    """Servers for tests that only look at them."""
    copy_folder(used_folder, spacious / "running")
    return session_launcher.start_and_wait(spacious / "running", roles=[])


@pytest.fixture
def folder(used_folder: Path, scratch: Path, launcher: Launcher) -> Path:
    """A copy of a data folder that has been used before: four times as fast to start."""
    copy_folder(used_folder, scratch / "data")
    return scratch / "data"
