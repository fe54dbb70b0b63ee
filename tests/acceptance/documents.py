"""What the documentation says, done as it says."""

import shutil
import subprocess
from pathlib import Path

from tests.acceptance.verdict import Verdict, all_of
from tests.architecture.inspection import ROOT
from tests.architecture.worked_example import PAGE, copy_tree, follow, run

MONITORING = ROOT / "docs" / "monitoring"

NEW_TESTS = ("tests/unit/note", "tests/e2e/note")
WALKING_TESTS = (
    "tests/architecture/test_routes.py",
    "tests/architecture/test_contract.py",
    "tests/architecture/test_errors.py",
    "tests/migrations/test_tenancy.py",
)
"""Those that look at every route, error and table, and so at the new ones."""


def a_context_is_added(folder: Path) -> Verdict:
    """Add the context of the worked example to a copy of the tree, and check all of it."""
    tree = copy_tree(folder)
    made = follow(PAGE.read_text(encoding="utf-8"), tree)
    run(tree, "python", ".ci/docs.py", "write")
    packages = ("maas", "tests.unit.note", "tests.e2e.note")
    types = run(tree, "mypy", *(word for name in packages for word in ("-p", name)))
    options = ("-q", "-p", "no:cacheprovider", "--timeout=300")
    tests = run(tree, "pytest", *options, *NEW_TESTS, *WALKING_TESTS)
    return all_of(
        (bool(made), f"{len(made)} files of the page"),
        ("no issues found" in types, "types"),
        (" passed" in tests, tests.splitlines()[-1]),
    )


def alert_rules(folder: Path) -> Verdict:
    """Have promtool judge the rules, and play each alert's trouble and a calm hour."""
    promtool = shutil.which("promtool") or _fetch_promtool(folder)
    if promtool is None:
        return Verdict(is_met=False, figure="promtool is not on the PATH, nor to be had from apt")
    findings = [
        (done.returncode == 0, f"{words[0]} {(done.stdout + done.stderr).strip().splitlines()[-1]}")
        for words in (("check", "rules", "alerts.yml"), ("test", "rules", "alerts_test.yml"))
        for done in [
            subprocess.run(
                [promtool, *words], cwd=MONITORING, capture_output=True, text=True, check=False
            )
        ]
    ]
    return all_of(*findings)


def _fetch_promtool(folder: Path) -> str | None:
    """Unpack Debian's package into the check's own folder; nothing is installed."""
    script = "apt-get download prometheus && dpkg -x prometheus_*.deb unpacked"
    subprocess.run(["bash", "-c", script], cwd=folder, capture_output=True, check=False)
    found = folder / "unpacked" / "usr" / "bin" / "promtool"
    return str(found) if found.exists() else None
