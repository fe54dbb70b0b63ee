"""What `maas up` shows: a line for each step in a terminal, plain lines anywhere else."""

import io
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from maas.embedded.errors import EmbeddedError

_REFRESH_SECONDS = 0.08


class Screen:
    """Writes to one stream, and goes silent when nobody reads it any more."""

    def __init__(self, stream: TextIO | None = None) -> None:
        # There is no stdout at all when the caller closed it.
        self._stream: TextIO = stream or sys.stdout or io.StringIO()
        encoding = (getattr(self._stream, "encoding", None) or "ascii").lower()
        console = Console(file=self._stream, highlight=False)
        self._is_rich = (
            self._stream.isatty() and encoding.startswith("utf") and not console.is_dumb_terminal
        )
        self._console = console
        self._steps: dict[str, float] = {}
        self._live: Live | None = None
        self._refreshed_at = 0.0

    def begin(self, step: str) -> None:
        self._steps[step] = time.monotonic()
        self._show_steps()

    def done(self, step: str, detail: str = "") -> None:
        seconds = time.monotonic() - self._steps.pop(step)
        about = f" {detail}" if detail else ""
        self._write(
            Text.assemble(("✓ ", "green"), step, (about, "dim"), (f"  {seconds:.2f} s", "cyan")),
            plain=f"{step}: done in {seconds:.2f} s{about}",
        )
        self._show_steps()

    def tick(self) -> None:
        """Move the spinner on; called from waiting loops, so that no thread runs beside a fork."""
        now = time.monotonic()
        if (
            self._live
            and not self._live.auto_refresh
            and now - self._refreshed_at > _REFRESH_SECONDS
        ):
            self._refreshed_at = now
            with self._unread():
                self._live.refresh()

    @contextmanager
    def animated(self) -> Iterator[None]:
        """Move the spinner from a thread, around code that never calls `tick`, nor forks."""
        self._show_steps(auto_refresh=True)
        try:
            yield
        finally:
            self._show_steps()

    def say(self, text: str) -> None:
        self._write(Text(text), plain=text)

    def warn(self, text: str, *, details: Sequence[str] = ()) -> None:
        lines = [f"  | {line}" for line in details]
        self._write(
            Text.assemble(("! ", "yellow"), text, *((f"\n{line}", "dim") for line in lines)),
            plain="\n".join([text, *lines]),
        )

    def fail(self, error: EmbeddedError) -> None:
        self.close()
        self._write(
            Text.assemble(("✗ ", "bold red"), error.message, "\n  ", (error.hint, "dim")),
            plain=f"{error.message}\n{error.hint}",
        )

    def show_panel(self, title: str, rows: Mapping[str, str]) -> None:
        self.close()
        table = Table.grid(padding=(0, 2))
        for name, value in rows.items():
            table.add_row(Text(name, style="dim"), Text(value, overflow="fold"))
        self._write(
            Panel(table, title=title, border_style="green", expand=False),
            plain="\n".join([title, *(f"{name}: {value}" for name, value in rows.items())]),
        )

    def close(self) -> None:
        """Take the spinners away."""
        self._steps.clear()
        self._show_steps()

    def _show_steps(self, *, auto_refresh: bool = False) -> None:
        if not self._is_rich:
            return
        with self._unread():
            self._replace_spinner(auto_refresh=auto_refresh)

    def _replace_spinner(self, *, auto_refresh: bool) -> None:
        live, self._live = self._live, None
        if live:
            live.stop()
        if self._steps:
            spinner = Spinner("dots", text=", ".join(self._steps), style="cyan")
            self._live = Live(
                spinner, console=self._console, auto_refresh=auto_refresh, transient=True
            )
            self._live.start(refresh=True)

    def _write(self, styled: RenderableType, *, plain: str) -> None:
        with self._unread():
            if self._is_rich:
                # Long lines are left to the terminal, so that a path can be copied.
                self._console.print(styled, soft_wrap=not isinstance(styled, Panel))
            else:
                self._stream.write(plain + "\n")
                self._stream.flush()

    @contextmanager
    def _unread(self) -> Iterator[None]:
        """Go on in silence when the terminal or the pipe is closed: the platform is still there."""
        try:
            yield
        except OSError:
            self._stream, self._is_rich, self._live = io.StringIO(), False, None
