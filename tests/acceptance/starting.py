"""A stranger's first minutes: a fresh clone, no uv, no server, as root and as somebody else."""

import os
import pwd
import shutil
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.acceptance.platforms import PlatformError, clean_environment, running
from tests.acceptance.verdict import Verdict, all_of

ROOT = Path(__file__).resolve().parents[2]
COLD_SECONDS = 6.0
STOP_SECONDS = 10.0
TEST_SECONDS = 300.0
SETUP_SECONDS = 900
OTHER_ACCOUNT = "nobody"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stranger:
    """Somebody with a fresh clone, whose machine has Python, make, and nothing of ours."""

    clone: Path
    environment: Mapping[str, str]
    identity: Mapping[str, int | list[int]] = field(default_factory=dict)

    def make(self, target: str, *, seconds: float) -> subprocess.CompletedProcess[str]:
        return subprocess.run(  # type: ignore[call-overload,no-any-return]  # as in platforms.py
            ["make", target],
            cwd=self.clone,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=seconds,
            **self.identity,
        )


def arrive(folder: Path, *, account: str | None = None) -> Stranger:
    """Clone the working tree for somebody, and let the packages be installed.

    Raises:
        PlatformError: `make setup` does not work for them, or we may not act as them.
    """
    clone, home = folder / "maas", folder / "home"
    copy_tracked(clone)
    home.mkdir()
    identity: dict[str, int | list[int]] = {}
    if account is not None:
        if os.geteuid() != 0:
            message = f"only root can try this as {account}"
            raise PlatformError(message)
        entry = pwd.getpwnam(account)
        identity = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
        for path in (folder, *folder.rglob("*")):
            os.chown(path, entry.pw_uid, entry.pw_gid, follow_symlinks=False)
    environment = clean_environment(
        HOME=str(home), PATH=path_without_uv(folder), XDG_STATE_HOME="", XDG_CACHE_HOME=""
    )
    for name in ("VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME", "UV_CACHE_DIR"):
        environment.pop(name, None)
    stranger = Stranger(clone=clone, environment=environment, identity=identity)
    done = stranger.make("setup", seconds=SETUP_SECONDS)
    if done.returncode != 0:
        message = f"make setup: {(done.stderr or done.stdout)[-400:]}"
        raise PlatformError(message)
    return stranger


def copy_tracked(target: Path) -> None:
    """Copy what a clone would hold, changes that are not committed yet included."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)


def path_without_uv(folder: Path) -> str:
    """Make a PATH on which Python and make are found, and uv is not."""
    tools = folder / "bin"
    tools.mkdir()
    folders = os.environ["PATH"].split(os.pathsep)
    kept = [each for each in folders if not (Path(each) / "uv").exists() and ".venv" not in each]
    path = os.pathsep.join(kept)
    if shutil.which("make", path=path) is None:
        (tools / "make").symlink_to(shutil.which("make") or "/usr/bin/make")
    return os.pathsep.join([str(tools), *kept])


def start(folder: Path, *, account: str | None = None) -> Verdict:
    stranger = arrive(folder, account=account)
    cold, _, _ = _start_and_stop(folder, stranger)
    warm, stop, left = _start_and_stop(folder, stranger)
    return all_of(
        (cold <= COLD_SECONDS, f"ready {cold:.1f} s after the first `make up`"),
        (warm <= COLD_SECONDS, f"{warm:.1f} s after the next"),
        (stop <= STOP_SECONDS, f"stopped in {stop:.1f} s"),
        (left == 0, f"{left} processes left"),
    )


def _start_and_stop(folder: Path, stranger: Stranger) -> tuple[float, float, int]:
    with running(
        folder,
        command=["make", "up"],
        environment=stranger.environment,
        identity=stranger.identity,
        cwd=stranger.clone,
    ) as platform:
        stop = platform.stop()
        return platform.ready_seconds, stop, len(platform.processes())


def start_as_self(folder: Path) -> Verdict:
    return start(folder)


def start_as_other(folder: Path) -> Verdict:
    return start(folder, account=OTHER_ACCOUNT)


def test_as_self(folder: Path) -> Verdict:
    return _test(folder, account=None)


def test_as_other(folder: Path) -> Verdict:
    return _test(folder, account=OTHER_ACCOUNT)


def _test(folder: Path, *, account: str | None) -> Verdict:
    stranger = arrive(folder, account=account)
    began = time.monotonic()
    done = stranger.make("test", seconds=TEST_SECONDS * 3)
    seconds = time.monotonic() - began
    lines = done.stdout.strip().splitlines() or [done.stderr[-200:]]
    return all_of(
        (done.returncode == 0, lines[-1].strip("= ")),
        (seconds <= TEST_SECONDS, f"{seconds:.0f} s"),
    )
