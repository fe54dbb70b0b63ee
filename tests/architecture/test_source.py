"""Rules that the source text itself must keep."""

from pathlib import Path

from tests.architecture.inspection import (
    ROOT,
    SOURCE,
    imports_of,
    list_actions,
    session_commits,
    unnamed_tasks,
)

UNIT_OF_WORK = "maas/shared/infrastructure/unit_of_work.py"


def modules(folder: Path) -> set[str]:
    return {place.path for place in session_commits(folder)}


def test_only_the_unit_of_work_commits_a_session() -> None:
    assert modules(SOURCE) == {UNIT_OF_WORK}


def test_every_task_has_an_explicit_name() -> None:
    assert unnamed_tasks(SOURCE) == []


def test_no_migration_imports_the_package() -> None:
    assert imports_of("maas", ROOT / "alembic" / "versions") == []


def test_every_action_in_the_source_is_documented() -> None:
    text = (ROOT / "docs" / "audit-actions.md").read_text(encoding="utf-8")

    assert sorted(action for action in list_actions() if f"`{action}`" not in text) == []


class TestPlanted:
    def test_a_commit_elsewhere_is_found(self, tmp_path: Path) -> None:
        self.plant(tmp_path, "async def save(self):\n    await self.session.commit()\n")

        assert modules(tmp_path / "maas") == {"maas/planted.py"}

    def test_a_transaction_that_commits_at_its_end_is_found(self, tmp_path: Path) -> None:
        self.plant(tmp_path, "def save(session):\n    with session.begin():\n        pass\n")

        assert modules(tmp_path / "maas") == {"maas/planted.py"}

    def test_a_task_without_a_name_is_found(self, tmp_path: Path) -> None:
        self.plant(
            tmp_path,
            "@shared_task\ndef a(): ...\n\n@app.task(acks_late=True)\ndef b(): ...\n\n"
            "@shared_task(name='audit.flush')\ndef c(): ...\n",
        )

        assert [place.line for place in unnamed_tasks(tmp_path / "maas")] == [2, 5]

    def test_a_migration_that_imports_the_package_is_found(self, tmp_path: Path) -> None:
        self.plant(tmp_path, "from maas.shared.domain.ids import new_id\n")

        assert len(imports_of("maas", tmp_path)) == 1

    def plant(self, folder: Path, source: str) -> None:
        (folder / "maas").mkdir()
        (folder / "maas" / "planted.py").write_text(source, encoding="utf-8")
