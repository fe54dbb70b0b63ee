"""Canary secrets sent to every route, and hunted for in all the platform keeps and writes."""

import subprocess
import sys
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree as ET

from tests.acceptance.platforms import clean_environment
from tests.acceptance.verdict import Verdict, all_of
from tests.amounts import VARIABLE

ROOT = Path(__file__).resolve().parents[2]
HUNT = "tests/e2e/test_canaries.py"
KINDS_PROMISED = 40
MAX_SECONDS = 600


def hunt(folder: Path) -> Verdict:
    report = folder / "canaries.xml"
    command = [
        *(sys.executable, "-m", "pytest", HUNT, "-q", "-n", "0"),
        *("--junitxml", str(report), "-o", "junit_family=xunit1"),
    ]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=clean_environment(**{VARIABLE: "1"}),
        capture_output=True,
        text=True,
        check=False,
        timeout=MAX_SECONDS,
    )
    counts: Counter[str] = Counter()
    for each in ET.parse(report).iter("property"):  # noqa: S314  our own report
        counts[each.attrib["name"]] += int(each.attrib["value"])
    return all_of(
        (done.returncode == 0, "0 found in logs, trail, Redis, tables, refusals"),
        (counts["kinds"] >= KINDS_PROMISED, f"{counts['kinds']} places"),
        (counts["routes"] > 0, f"{counts['routes']} routes"),
        (counts["canaries"] > 0, f"{counts['canaries']} canaries"),
        (counts["issued"] > 0, f"{counts['issued']} tokens of its own"),
    )
