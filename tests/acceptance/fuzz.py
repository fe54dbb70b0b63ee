"""Generated requests as every role, as `make fuzz` asks them."""

import subprocess
import sys
from pathlib import Path

from tests.acceptance.platforms import clean_environment
from tests.acceptance.verdict import Verdict

ROOT = Path(__file__).resolve().parents[2]
SEED = "20261122"


def keeps_every_promise(_folder: Path) -> Verdict:
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", "--seed", SEED],
        cwd=ROOT,
        env=clean_environment(NO_COLOR="1"),
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [
        line for line in done.stdout.splitlines() if line.startswith(("PASS ", "MISS ", "statuses"))
    ]
    figure = "; ".join(lines) or done.stderr.strip()[-300:]
    return Verdict(is_met=done.returncode == 0, figure=figure)
