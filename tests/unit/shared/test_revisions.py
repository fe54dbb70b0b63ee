"""Which migrations came with this code, without Alembic's reading of them."""

import subprocess
import sys
from pathlib import Path

import pytest
from alembic.script import ScriptDirectory

from maas.shared.infrastructure import revisions
from maas.shared.infrastructure.migrations import migration_config


def test_are_those_that_alembic_finds() -> None:
    scripts = ScriptDirectory.from_config(migration_config())

    known = revisions.known_revisions()

    assert known.head == scripts.get_current_head()
    assert known.older | {known.head} == {each.revision for each in scripts.walk_revisions()}


@pytest.mark.parametrize("names", [[], ["one", "two"]])
def test_none_or_two_newest_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: list[str]
) -> None:
    folder = tmp_path / "versions"
    folder.mkdir()
    for name in names:
        (folder / f"{name}.py").write_text(f'revision = "{name}"\ndown_revision = None\n')
    monkeypatch.setattr(revisions, "migrations_folder", lambda: tmp_path)
    revisions.known_revisions.cache_clear()
    try:
        with pytest.raises(RuntimeError, match=f"{len(names)} heads"):
            revisions.known_revisions()
    finally:
        revisions.known_revisions.cache_clear()


def test_a_process_that_serves_does_without_alembic() -> None:
    code = "import maas.main, sys; sys.exit('alembic' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
