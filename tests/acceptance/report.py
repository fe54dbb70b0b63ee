"""`docs/acceptance.md`: what each check said when it was last run, on which commit and machine."""

import os
import platform
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import psutil

from maas.shared.infrastructure.clock import SystemClock
from tests.acceptance.verdict import Check, Verdict

ROOT: Final = Path(__file__).resolve().parents[2]
GIBIBYTE: Final = 1024**3
_OTHERS: Final = (".", ":!docs/acceptance.md", ":!docs/performance.md")
_CELLS: Final = re.compile(r"(?<!\\)\|")


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One check's last word; `machine` as of then."""

    name: str
    word: str
    figure: str
    seconds: int
    day: str
    commit: str
    machine: str

    @classmethod
    def of(cls, check: Check, verdict: Verdict, seconds: float) -> Self:
        return cls(
            name=check.name,
            word="PASS" if verdict.is_met else "MISS",
            figure=" ".join(verdict.figure.split()),
            seconds=round(seconds),
            day=f"{SystemClock().now():%Y-%m-%d %H:%M}",
            commit=find_commit(),
            machine=find_machine(),
        )

    def as_row(self, promise: str) -> str:
        figure = self.figure.replace("|", "\\|")
        cells = (self.word, self.name, promise, figure, str(self.seconds), self.day, self.commit,
                 self.machine)  # fmt: skip
        return f"| {' | '.join(cells)} |"

    @classmethod
    def from_row(cls, row: str) -> Self:
        cells = [cell.strip() for cell in _CELLS.split(row)[1:-1]]
        word, name, _, figure, seconds, day, commit, machine = cells
        return cls(
            name=name,
            word=word,
            figure=figure.replace("\\|", "|"),
            seconds=int(seconds),
            day=day,
            commit=commit,
            machine=machine,
        )


def find_commit() -> str:
    """Tell which commit the checkout is at, with a `+` where it has changes beyond that.

    What the checks write themselves, while they run, is no such change.
    """
    head, changes = (
        subprocess.run(
            ["git", *words], cwd=ROOT, capture_output=True, text=True, check=False
        ).stdout.strip()
        for words in (
            ("rev-parse", "--short", "HEAD"),
            ("status", "--porcelain", "-uno", "--", *_OTHERS),
        )
    )
    return f"{head or 'unknown'}{'+' if changes else ''}"


def find_machine() -> str:
    """Tell what it is, and how many processes wanted its cores of late."""
    memory, (_, busy, _) = round(psutil.virtual_memory().total / GIBIBYTE), os.getloadavg()
    return (
        f"{os.cpu_count()} cores, {memory} GiB, load {busy:.0f}, Python {platform.python_version()}"
    )


def keep(path: Path, checks: Sequence[Check], results: Sequence[Result]) -> None:
    """Write what was said now, beside what others said before; in the order of the checks."""
    said = {**_read(path), **{result.name: result for result in results}}
    path.write_text(_render(checks, said), encoding="utf-8")


def _read(path: Path) -> dict[str, Result]:
    if not path.exists():
        return {}
    rows = [
        Result.from_row(line)
        for line in path.read_text(encoding="utf-8").splitlines()
        if line.startswith(("| PASS |", "| MISS |"))
    ]
    return {row.name: row for row in rows}


def _render(checks: Sequence[Check], said: Mapping[str, Result]) -> str:
    known = [(check, said[check.name]) for check in checks if check.name in said]
    missed = sum(result.word == "MISS" for _, result in known)
    spent = sum(result.seconds for _, result in known)
    unsaid = [check.name for check in checks if check.name not in said]
    lines = [
        "# Acceptance",
        "",
        "<!-- Written by `make acceptance ARGS=--write`; run it again instead. -->",
        "",
        "What each promise came to when it was last tried; a commit with a `+` had changes on it.",
        f"{len(known) - missed} PASS, {missed} MISS, {spent:,} s in all.",
        f"Not tried yet: {', '.join(unsaid) or 'none'}.",
        "",
        "| | check | promise | figure | s | when (UTC) | commit | machine |",
        "| --- | --- | --- | --- | ---: | --- | --- | --- |",
        *(result.as_row(check.promise.replace("|", "\\|")) for check, result in known),
        "",
    ]
    return "\n".join(lines)
