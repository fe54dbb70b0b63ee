"""The page that adds a context, done as it says in a copy of the tree."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from tests.architecture.inspection import ROOT

PAGE: Final = ROOT / "docs" / "contributing" / "add-a-context.md"
PARTS: Final = (
    *("src", "tests", "bench", "alembic", "docs", ".ci"),
    *("alembic.ini", "pyproject.toml", ".env.template"),
)
TYPED: Final = "typed"

_BLOCK: Final = re.compile(
    r'^```(?P<kind>\w+) title="(?P<title>[^"]+)"\n(?P<text>.*?)^```$', re.DOTALL | re.MULTILINE
)


class StalePageError(AssertionError):
    """The page changes lines that are not there any more, or more than once."""


def copy_tree(folder: Path) -> Path:
    """Copy what the example needs of the project."""
    for name in PARTS:
        source = ROOT / name
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(source, folder / name, ignore=ignored)
        else:
            shutil.copy(source, folder / name)
    return folder


def follow(page: str, tree: Path) -> list[str]:
    """Do what the page says, in its order, and list the files it made.

    Raises:
        StalePageError: what it changes is not there.
    """
    made = []
    for block in _BLOCK.finditer(page):
        path = tree / block["title"]
        if block["title"] == TYPED:
            run(tree, "bash", "-euo", "pipefail", "-c", block["text"])
        elif block["kind"] == "diff":
            path.write_text(_changed(path.read_text(encoding="utf-8"), block["text"]), "utf-8")
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block["text"], encoding="utf-8")
            made.append(block["title"])
    return made


def _changed(text: str, change: str) -> str:
    lines = change.splitlines(keepends=True)
    before = "".join(line[1:] for line in lines if line[0] != "+")
    after = "".join(line[1:] for line in lines if line[0] != "-")
    if text.count(before) != 1:
        message = f"{PAGE.name} changes lines that are there {text.count(before)} times:\n{before}"
        raise StalePageError(message)
    return text.replace(before, after)


def run(tree: Path, *command: str) -> str:
    """Run a command of the environment in the copy, whose package comes first.

    Raises:
        AssertionError: it fails; with what it printed.
    """
    programs = Path(sys.executable).parent
    done = subprocess.run(
        command,
        cwd=tree,
        capture_output=True,
        text=True,
        check=False,
        env={
            **{name: value for name, value in os.environ.items() if not name.startswith("MAAS_")},
            "PATH": f"{programs}:{os.environ['PATH']}",
            "PYTHONPATH": str(tree / "src"),
            "PYTHONDONTWRITEBYTECODE": "1",
            "COLUMNS": "200",
        },
    )
    if done.returncode:
        message = f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
        raise AssertionError(message)
    return done.stdout
