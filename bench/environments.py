"""Environments of what stands beside ours in a benchmark, made once for all runs."""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

OWN_UV: Final = Path(__file__).resolve().parent.parent / ".uv" / "bin" / "uv"
"""Where the Makefile puts one for those who have none."""


class CannotInstallError(RuntimeError):
    """It is measured or nothing is: a figure from elsewhere would be of another machine."""


def install(name: str, packages: Sequence[str]) -> Path:
    """Make an environment of these packages, unless it is there, and tell the folder."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = home / "maas-bench" / name
    finished = folder / "finished"
    if finished.exists():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    python = folder / "bin" / "python"
    uv = str(OWN_UV) if OWN_UV.exists() else "uv"
    _run(name, uv, "venv", "--quiet", "--python", sys.executable, str(folder))
    _run(name, uv, "pip", "install", "--quiet", "--python", str(python), *packages)
    finished.touch()
    return folder


def _run(name: str, *command: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        message = f"{name} is installed with `{command[0]}`, which is not on the PATH"
        raise CannotInstallError(message) from None
    if done.returncode != 0:
        message = f"`{' '.join(command[:3])}` failed: {done.stderr.strip()[-300:]}"
        raise CannotInstallError(message)
