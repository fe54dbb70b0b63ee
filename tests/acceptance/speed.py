"""The bench, read for whether its rows meet their goals."""

import re
import subprocess
import sys
from pathlib import Path

from tests.acceptance.platforms import clean_environment
from tests.acceptance.verdict import Verdict, all_of

ROOT = Path(__file__).resolve().parents[2]


REST = ("start", "logins", "artifacts", "telling", "audit", "search")
"""What no other check has measured."""


_FURTHER: list[str] = []


def keep_figures() -> None:
    """Have what is measured from now on written to docs/performance.md too: it is measured once."""
    _FURTHER[:] = ["--write"]


def bench(_folder: Path) -> Verdict:
    return judge("--only", *REST)


def trail(_folder: Path) -> Verdict:
    return judge("--only", "trail")


def judge(*arguments: str) -> Verdict:
    done = subprocess.run(
        [sys.executable, "-m", "bench", *arguments, *_FURTHER],
        cwd=ROOT,
        env=clean_environment(COLUMNS="160", NO_COLOR="1"),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        return Verdict(is_met=False, figure=done.stderr.strip()[-300:])
    rows = [
        [cell.strip() for cell in re.split("[│┃|]", line)[1:-1]]
        for line in done.stdout.splitlines()
        if re.search(r"\b(met|missed)\b", line)
    ]
    if not rows:
        return Verdict(is_met=False, figure="the bench printed no rows")
    return all_of(*((row[-1] == "met", f"{row[0]} {_figure(row)}") for row in rows))


def _figure(row: list[str]) -> str:
    """Pick the cell that the goal is about: a ratio, a share, or seconds."""
    for cell in row[1:]:
        if re.fullmatch(r"[\d.]+x|-?[\d.]+%", cell):
            return cell
    return row[1] if " " in row[1] else f"{row[1]} s"
