"""What the documentation says, done as it says."""

from pathlib import Path

from tests.acceptance.verdict import Verdict, all_of
from tests.architecture.worked_example import PAGE, copy_tree, follow, run

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
    tests = run(tree, "pytest", "-q", "-p", "no:cacheprovider", *NEW_TESTS, *WALKING_TESTS)
    return all_of(
        (bool(made), f"{len(made)} files of the page"),
        ("no issues found" in types, "types"),
        (" passed" in tests, tests.splitlines()[-1]),
    )
