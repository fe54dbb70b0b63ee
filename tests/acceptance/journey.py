"""`make demo` against a platform that has just been started."""

import re
import subprocess
import sys
from pathlib import Path

from tests.acceptance.platforms import clean_environment, running
from tests.acceptance.verdict import Verdict, all_of

ROOT = Path(__file__).resolve().parents[2]
VISIBLE_SECONDS = 2.0


def play(folder: Path) -> Verdict:
    with running(folder) as platform:
        done = subprocess.run(
            [sys.executable, ROOT / "docs" / "demo" / "journey.py"],
            env=clean_environment(MAAS_DATA_DIR=str(platform.data_dir)),
            capture_output=True,
            text=True,
            check=False,
        )
    slowest = re.search(r"Slowest audit row: ([\d.]+) s", done.stdout)
    if done.returncode != 0 or slowest is None:
        return Verdict(is_met=False, figure=(done.stderr or done.stdout).strip()[-300:])
    seconds = float(slowest[1])
    return all_of(
        ("Every byte is the same" in done.stdout, "16 MB back byte for byte"),
        (seconds <= VISIBLE_SECONDS, f"slowest audit row {seconds:.2f} s after its answer"),
    )
