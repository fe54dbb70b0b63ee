"""Memory for the parts of files, given back to the system as soon as nobody looks at it."""

import mmap
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from maas.model.application.ports import TooManyTransfersError


def new_buffer(size: int) -> memoryview:
    """Make room for `size` bytes; pages that are never written to cost nothing.

    Use it again for part after part: the first writing to a page costs more than any copy. Blocks
    of many megabytes from `malloc` would stay with the process: its threads keep them for later.
    """
    return memoryview(mmap.mmap(-1, max(1, size)))[:size]


class MemoryBudget:
    """Bounds what all transfers of a process hold in buffers, whatever their number."""

    def __init__(self, limit_bytes: int) -> None:
        self._free_bytes = limit_bytes

    @contextmanager
    def growing(self) -> Iterator[Callable[[int], None]]:
        """Give a function that has the block hold at least so many bytes of the budget.

        It raises `TooManyTransfersError` if there are not that many left.
        """
        held = 0

        def grow(size: int) -> None:
            nonlocal held
            more = max(0, size - held)
            if more > self._free_bytes:
                raise TooManyTransfersError
            self._free_bytes -= more
            held += more

        try:
            yield grow
        finally:
            self._free_bytes += held

    @contextmanager
    def holding(self, size: int) -> Iterator[None]:
        """Take `size` bytes of the budget for the length of the block.

        Raises:
            TooManyTransfersError: there are not that many left.
        """
        with self.growing() as grow:
            grow(size)
            yield
