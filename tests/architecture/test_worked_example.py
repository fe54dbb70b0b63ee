"""What the page on adding a context says is so: its example passes the checks it names."""

from pathlib import Path

import pytest

from tests.architecture.worked_example import PAGE, StalePageError, copy_tree, follow, run

pytestmark = pytest.mark.timeout(120)

CONTRACTS = ("layers", "context-order", "note-internals", "pure-domain")
"""Those that the example has a part in; the others are checked on the tree itself."""


def test_the_worked_example_passes_the_checks_without_servers(tmp_path: Path) -> None:
    tree = copy_tree(tmp_path)

    made = follow(PAGE.read_text(encoding="utf-8"), tree)

    run(tree, "ruff", "check", "--no-cache", *made)
    run(tree, "ruff", "format", "--no-cache", "--check", *made)
    contracts = (word for name in CONTRACTS for word in ("--contract", name))
    assert "0 broken" in run(tree, "lint-imports", "--no-cache", *contracts)
    assert "6 passed" in run(
        tree, "pytest", "-q", "-p", "no:cacheprovider", "tests/unit/note/test_note.py"
    )


def test_a_page_that_the_code_has_left_behind_is_found(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text("routes = ()\n", encoding="utf-8")
    page = '```diff title="main.py"\n routes = (\n+    notes,\n```\n'

    with pytest.raises(StalePageError):
        follow(page, tmp_path)
