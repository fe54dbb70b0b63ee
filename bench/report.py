"""`docs/performance.md`: what was measured last, group by group, and on what machine."""

import os
import platform
import re
import subprocess
import time
from importlib.metadata import version
from pathlib import Path
from typing import Final

from rich.table import Table
from rich.text import Text

ROOT: Final = Path(__file__).resolve().parent.parent
PAGE: Final = ROOT / "docs" / "performance.md"
PACKAGES: Final = ("fastapi", "uvicorn", "sqlalchemy", "asyncpg", "redis", "celery")

HEAD: Final = """\
# Performance

<!-- Written by `make bench ARGS="--write"`, a section for each group that ran; the words under a
table are kept. -->

Figures of one machine, to be compared with the goal or the floor beside them and not with other
machines'. `make bench` prints them anew.
"""

_SECTION: Final = re.compile(
    r"^<!-- group: (\w+) -->\n(.*?)^<!-- end -->\n", re.DOTALL | re.MULTILINE
)


def write_section(group: str, tables: list[Table], *, page: Path = PAGE) -> None:
    """Put a group's tables in place of those that were there, or after all others."""
    text = page.read_text() if page.exists() else HEAD
    section = "\n\n".join([_origin(), *(_to_markdown(table) for table in tables)])
    block = f"<!-- group: {group} -->\n{section}\n\n<!-- end -->\n"
    for found in _SECTION.finditer(text):
        if found[1] == group:
            page.write_text(text[: found.start()] + block + text[found.end() :])
            return
    page.write_text(f"{text}\n## {_title(tables[0])}\n\n{block}")


def _title(table: Table) -> str:
    return Text.from_markup(str(table.title)).plain


def _to_markdown(table: Table) -> str:
    heads = [str(column.header) or " " for column in table.columns]
    rows = zip(*(column.cells for column in table.columns), strict=True)
    lines = [heads, ["---"] * len(heads), *([_plain(cell) for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _plain(cell: object) -> str:
    return Text.from_markup(str(cell)).plain.replace("|", "\\|")


def _origin() -> str:
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    today = time.strftime("%Y-%m-%d", time.gmtime())
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return (
        f"{today}, commit {commit or 'unknown'}: {os.cpu_count()} cores "
        f"({platform.machine()}), Linux {platform.release().split('-')[0]}, "
        f"Python {platform.python_version()}, {versions}."
    )
