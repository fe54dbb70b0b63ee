"""What a run says: figures beside their goals."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table

JUDGES_NOTHING: Final = "-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One figure; a goal of `-` judges nothing."""

    name: str
    figure: str
    goal: str
    is_met: bool


def show(rows: Sequence[Row], console: Console) -> None:
    table = Table(title="load and failure")
    for name in ("what", "figure", "goal", ""):
        table.add_column(name, overflow="fold")
    for row in rows:
        word = "[green]met[/]" if row.is_met else "[red]missed[/]"
        table.add_row(
            escape(row.name),
            escape(row.figure),
            row.goal,
            "" if row.goal == JUDGES_NOTHING else word,
        )
    console.print(table)
