"""Every revision on a million rows, as `make migrations` walks them."""

import subprocess
import sys
from pathlib import Path

from tests.acceptance.platforms import clean_environment
from tests.acceptance.verdict import Verdict

ROOT = Path(__file__).resolve().parents[2]


def are_walked(_folder: Path) -> Verdict:
    done = subprocess.run(
        [sys.executable, "-m", "tests.migrations.at_scale"],
        cwd=ROOT,
        env=clean_environment(NO_COLOR="1"),
        capture_output=True,
        text=True,
        check=False,
    )
    lines = done.stdout.strip().splitlines() or done.stderr.strip().splitlines() or [""]
    return Verdict(is_met=done.returncode == 0, figure=lines[-1])
