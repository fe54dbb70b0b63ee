"""Violations planted on purpose; each must be found by the test that guards against it."""

import re
import subprocess
import sys
from pathlib import Path

from tests.acceptance.platforms import clean_environment
from tests.acceptance.verdict import Verdict

ROOT = Path(__file__).resolve().parents[2]
GUARDS = {
    "import": ("tests/architecture/test_import_contracts.py", "planted"),
    "commit without audit scope": ("tests/integration/shared/test_unit_of_work.py", "scope"),
    "unaudited route": ("tests/architecture/test_routes.py", "unaudited_mutating"),
    "route without permission": ("tests/architecture/test_routes.py", "without_a_permission"),
    "setting missing from the template": ("tests/architecture/test_settings.py", "Planted"),
}


def find(_folder: Path) -> Verdict:
    findings = {name: _run(*guard) for name, guard in GUARDS.items()}
    missed = [name for name, count in findings.items() if count == 0]
    total = sum(findings.values())
    if missed:
        return Verdict(is_met=False, figure=f"not found: {', '.join(missed)}")
    return Verdict(is_met=True, figure=f"{total} planted of {len(findings)} kinds, all found")


def _run(path: str, pattern: str) -> int:
    """Run the tests that plant something, and tell how many passed; none if any failed."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:randomly", path, "-k", pattern],
        cwd=ROOT,
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    passed = re.search(r"(\d+) passed", done.stdout)
    return int(passed[1]) if done.returncode == 0 and passed else 0
