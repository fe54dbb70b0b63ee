"""Promises whose proof is a part of the tests: it is run as they are, and counted."""

import subprocess
import sys
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree as ET

from tests.acceptance.platforms import clean_environment
from tests.acceptance.verdict import Verdict, all_of
from tests.amounts import VARIABLE

ROOT = Path(__file__).resolve().parents[2]
MAX_SECONDS = 600


def every_route(folder: Path) -> Verdict:
    returncode, counts, failed = run_tests(folder, "tests/e2e/test_every_route.py")
    return all_of(
        (returncode == 0, f"{failed} of {counts['tests']} tests failed"),
        (counts["routes"] > 0, f"{counts['routes']} routes"),
        (counts["requests"] > 0, f"{counts['requests']} requests, each answered as declared"),
        (counts["events"] > 0, f"{counts['events']} events, each one for its act"),
    )


def escalation(folder: Path) -> Verdict:
    returncode, counts, failed = run_tests(
        folder,
        "tests/unit/user/test_grants.py",
        "tests/e2e/user/test_admin_felt_at_once.py::TestLastAdmin",
        "tests/e2e/user/test_attacks_access.py",
    )
    return all_of(
        (returncode == 0, f"{failed} of {counts['tests']} tests failed"),
        (counts["tests"] > 0, "every granter, role and target; 100 at once on the last admin"),
    )


AUDIT = "tests/integration/audit"


def rules(folder: Path) -> Verdict:
    return _passed(folder, "tests/unit/audit/test_rules.py", f"{AUDIT}/test_watch.py")


def webhooks(folder: Path) -> Verdict:
    return _passed(folder, f"{AUDIT}/test_deliveries.py", f"{AUDIT}/test_webhooks_api.py")


def retention(folder: Path) -> Verdict:
    return _passed(
        folder,
        "tests/unit/audit/test_tombstone.py",
        f"{AUDIT}/test_retention.py",
        f"{AUDIT}/test_export_tombstones.py",
    )


def erasure(folder: Path) -> Verdict:
    return _passed(folder, "tests/e2e/user/test_erasure.py", f"{AUDIT}/test_erasure.py")


def statistics(folder: Path) -> Verdict:
    return _passed(folder, f"{AUDIT}/test_statistics.py", f"{AUDIT}/test_statistics_api.py")


def _passed(folder: Path, *selected: str) -> Verdict:
    returncode, counts, failed = run_tests(folder, *selected)
    return all_of(
        (returncode == 0, f"{failed} of {counts['tests']} tests failed"),
        (counts["tests"] > 0, f"{counts['tests']} tests"),
    )


def run_tests(folder: Path, *selected: str) -> tuple[int, Counter[str], int]:
    """Run some tests in full; tell the exit code, what they counted as properties, the failures."""
    report = folder / "report.xml"
    command = [
        *(sys.executable, "-m", "pytest", *selected, "-q", "-n", "2"),
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
    return done.returncode, *_counts(report)


def _counts(report: Path) -> tuple[Counter[str], int]:
    counts: Counter[str] = Counter()
    failed = 0
    for case in ET.parse(report).iter("testcase"):  # noqa: S314  our own report
        counts["tests"] += 1
        failed += case.find("failure") is not None or case.find("error") is not None
        for each in case.iter("property"):
            counts[each.attrib["name"]] += int(each.attrib["value"])
    return counts, failed
