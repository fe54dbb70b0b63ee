"""What a check says: whether a promise is kept, and the figure that shows it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Verdict:
    is_met: bool
    figure: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One promise; `run` gets a folder of its own. Slow ones take minutes.

    `shown_by` names a check that shows the same and more: one of both is enough.
    """

    name: str
    promise: str
    run: Callable[[Path], Verdict]
    is_slow: bool = False
    shown_by: str = ""


Finding: TypeAlias = tuple[bool, str]


def all_of(*findings: Finding) -> Verdict:
    """Join findings: met if all are; what is not met is marked."""
    parts = [text if is_met else f"NOT {text}" for is_met, text in findings]
    return Verdict(all(is_met for is_met, _ in findings), ", ".join(parts))
