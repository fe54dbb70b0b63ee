"""What the operator's signals mean: the first asks to stop, the second to hurry."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Self

_STEP_SECONDS = 0.01
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class StopRequested(KeyboardInterrupt):
    """Break off a start; asyncio lets only this family of exceptions through at once."""


class StopSignals:
    """Count the requests to stop, without letting one cut a step of ours in half."""

    def __init__(self) -> None:
        self._count = 0
        self._first: signal.Signals | None = None
        self._interrupts = False
        self._previous: dict[signal.Signals, object] = {}

    @property
    def is_requested(self) -> bool:
        return self._count > 0

    @property
    def is_hurried(self) -> bool:
        return self._count > 1

    @property
    def exit_code(self) -> int:
        """The shell's convention for a process that a signal ended."""
        return 128 + self._first if self._first else 0

    def __enter__(self) -> Self:
        """Take over the signals; an ignored SIGINT, as in a shell's background job, included."""
        if threading.current_thread() is not threading.main_thread():
            message = "The platform runs in the main thread only."
            raise RuntimeError(message)
        for number in _SIGNALS:
            handler = signal.getsignal(number)
            # `nohup` ignores SIGHUP on purpose.
            if number is signal.SIGHUP and handler is signal.SIG_IGN:
                continue
            self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler or signal.SIG_DFL)  # type: ignore[arg-type]  # from getsignal

    def check(self) -> None:
        """Raise StopRequested when a stop was asked for."""
        if self.is_requested:
            raise StopRequested

    def pulse(self) -> None:
        """Sleep for a moment, and raise StopRequested when a stop was asked for."""
        self.check()
        time.sleep(_STEP_SECONDS)

    @contextmanager
    def interrupting(self) -> Iterator[None]:
        """Raise StopRequested right where a signal hits, for code that is not ours to pace."""
        self.check()
        self._interrupts = True
        try:
            yield
        finally:
            self._interrupts = False
        self.check()

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self._count += 1
        self._first = self._first or signal.Signals(number)
        if self._interrupts:
            raise StopRequested


def wait_until(condition: Callable[[], bool], *, seconds: float, pulse: Callable[[], None]) -> bool:
    """Return whether the condition came true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        pulse()
    return True
