"""What a transfer shows while it runs: bars in a terminal, a line for each file elsewhere."""

from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.filesize import decimal
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from maas.terminal import one_line

NAME_CHARS = 40
MAX_NAMED = 5


class Bar:
    """One file's progress, in bytes, and its share of the whole."""

    def __init__(self, board: "Board", name: str, size: int) -> None:
        self._board = board
        self._name = name
        self._done = 0
        self._task = board.add(name, size)

    def set(self, done: int) -> None:
        """Say how many bytes are through; it may be fewer than before, after a break."""
        self._board.move(self._task, done - self._done)
        self._done = done

    def resume(self, done: int) -> None:
        """Begin with what is through already, which tells nothing of the line's speed."""
        self._board.restart(self._task, done)
        self._done = done

    def moved(self, size: int) -> None:
        self.set(self._done + size)

    def say(self, text: str) -> None:
        """Show what is going on beside the name; nothing, for nothing special."""
        self._board.describe(self._task, self._name, text)

    def warn(self, text: str) -> None:
        """Show what holds it up, in a file of lines, too."""
        self.say(text)
        self._board.notice(f"{self._name}: {text}")

    def close(self, *words: str) -> None:
        """Take the bar away, and leave a line of these words if there are any."""
        self._board.remove(self._task)
        if words:
            self._board.line(
                f"{words[0]:<9} {one_line(self._name)}  {' '.join(words[1:])}".rstrip()
            )


class Board:
    """All bars of a command. Use it as a context manager."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._total: TaskID | None = None
        self._said: str = ""
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _value: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def expect(self, size: int) -> None:
        """Have a bar for all files together, of so many bytes."""
        self._total = self._progress.add_task("[bold]all together[/]", total=size)

    def totals(self) -> tuple[int, int]:
        """Tell how many bytes are through, of how many."""
        for task in self._progress.tasks:
            if task.id == self._total:
                return int(task.completed), int(task.total or 0)
        return 0, 0

    def line(self, text: str) -> None:
        """Print a line that stays."""
        self._progress.console.print(escape(one_line(text)), highlight=False, soft_wrap=True)

    def notice(self, text: str) -> None:
        """Tell of a pause where no bar shows it, and not twice of the same."""
        if text != self._said and not self._console.is_terminal:
            self._said = text
            self.line(text)

    def bar(self, name: str, size: int) -> Bar:
        return Bar(self, name, size)

    def add(self, name: str, size: int) -> TaskID:
        return self._progress.add_task(_label(name), total=size)

    def move(self, task: TaskID, size: int) -> None:
        self._progress.advance(task, size)
        if self._total is not None:
            self._progress.advance(self._total, size)

    def restart(self, task: TaskID, done: int) -> None:
        """Set a bar anew, and the one of all files with it."""
        if self._total is not None:
            self._progress.reset(self._total, completed=self.totals()[0] + done)
        self._progress.reset(task, completed=done)

    def describe(self, task: TaskID, name: str, text: str) -> None:
        more = f" [dim]{escape(one_line(text))}[/]" if text else ""
        self._progress.update(task, description=f"{_label(name)}{more}")

    def remove(self, task: TaskID) -> None:
        self._progress.remove_task(task)


def spell_size(size: int) -> str:
    return decimal(size)


def _label(name: str) -> str:
    text = one_line(name)
    return escape(text if len(text) <= NAME_CHARS else f"…{text[1 - NAME_CHARS :]}")


def name_some(names: Sequence[str]) -> str:
    """Name the first of them, and how many others there are."""
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return ", ".join(names[:MAX_NAMED]) + more
