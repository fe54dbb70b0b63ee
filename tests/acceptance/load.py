"""More than there is room for, clients that dawdle, and stops in mid-work: `make load`, judged."""

from pathlib import Path
from typing import Final

from tests.acceptance.verdict import Verdict, all_of
from tests.load import overload, slowness, stopping
from tests.load.report import JUDGES_NOTHING, Row

SECONDS: Final = 20.0
"""Under each load; ten minutes of it are `make load ARGS="--seconds 600"`."""


def is_shed(folder: Path) -> Verdict:
    return _judge(overload.measure(folder, seconds=SECONDS, tell=_say_nothing))


def is_not_slowed(folder: Path) -> Verdict:
    return _judge(slowness.measure(folder, seconds=SECONDS, tell=_say_nothing))


def is_drained(folder: Path) -> Verdict:
    return _judge(stopping.measure(folder, seconds=SECONDS, tell=_say_nothing))


def _judge(rows: list[Row]) -> Verdict:
    return all_of(
        *((row.is_met, f"{row.name} {row.figure}") for row in rows if row.goal != JUDGES_NOTHING)
    )


def _say_nothing(_text: str) -> None:
    pass
