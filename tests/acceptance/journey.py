"""The whole journey, on one machine and on servers given by URL; and `make demo` beside it."""

import re
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from tests.acceptance.platforms import clean_environment, running
from tests.acceptance.verdict import Verdict, all_of
from tests.e2e.journey.places import Place, embedded, external
from tests.e2e.journey.story import Journey

ROOT = Path(__file__).resolve().parents[2]
VISIBLE_SECONDS = 2.0


def walk_on_one_machine(folder: Path) -> Verdict:
    return _walk(folder, embedded)


def walk_on_servers_by_url(folder: Path) -> Verdict:
    return _walk(folder, external)


def _walk(folder: Path, open_place: Callable[[Path], AbstractContextManager[Place]]) -> Verdict:
    began = time.monotonic()
    with open_place(folder) as place:
        ready = time.monotonic() - began
        journey = Journey(place)
        journey.walk()
    took = sum(journey.seconds.values())
    slowest = max(journey.seconds, key=lambda step: journey.seconds[step])
    return Verdict(
        is_met=True,
        figure=f"ready in {ready:.1f} s, {len(journey.seconds)} steps in {took:.1f} s, the longest "
        f"({slowest}) {journey.seconds[slowest]:.1f} s",
    )


def play_demo(folder: Path) -> Verdict:
    with running(folder) as platform:
        done = subprocess.run(
            [sys.executable, "-m", "docs.demo.journey"],
            cwd=ROOT,
            env=clean_environment(MAAS_DATA_DIR=str(platform.data_dir)),
            capture_output=True,
            text=True,
            check=False,
        )
    slowest = re.search(r"Slowest row: ([\d.]+) s", done.stdout)
    if done.returncode != 0 or slowest is None:
        return Verdict(is_met=False, figure=(done.stderr or done.stdout).strip()[-300:])
    seconds = float(slowest[1])
    return all_of(
        (done.stdout.count("PROOF        ok") == 1, "a receipt proven offline"),
        (done.stdout.count("INTEGRITY    ok") == 1, "the trail verified offline"),
        (seconds <= VISIBLE_SECONDS, f"slowest audit row {seconds:.2f} s after its answer"),
    )
