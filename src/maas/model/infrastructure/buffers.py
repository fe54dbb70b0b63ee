"""Memory for the parts of files, given back to the system as soon as nobody looks at it."""

import mmap
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from maas.model.application.ports import TooManyTransfersError
from maas.shared.domain.call import find_call
from maas.shared.domain.ids import AccountId, TenantId

MAX_BUFFERED_BYTES: Final = 1024**3
"""What the buffers of a process may take: of all that comes in, and of all that goes out, each.

With parts of 12 MiB that is 42 large files at once each way. One caller alone may have half of it,
more than its transfers take, and a whole tenant two thirds.
"""


def new_buffer(size: int) -> memoryview:
    """Make room for `size` bytes; pages that are never written to cost nothing.

    Use it again for part after part: the first writing to a page costs more than any copy. Blocks
    of many megabytes from `malloc` would stay with the process: its threads keep them for later.
    """
    return memoryview(mmap.mmap(-1, max(1, size)))[:size]


class MemoryBudget:
    """Bounds what all transfers of a process hold in buffers, whatever their number.

    What an account holds and what its tenant holds are together at most twice what is left free.
    So nobody ever has all of it, however many accounts they have: whoever comes next, of the same
    tenant or of another, finds some, and whoever holds little before whoever holds much.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._free_bytes = limit_bytes
        self._held: Counter[AccountId | TenantId] = Counter()

    @contextmanager
    def growing(self) -> Iterator[Callable[[int], None]]:
        """Give a function that has the block hold at least so many bytes of the budget.

        It raises `TooManyTransfersError` if there are not that many left for the caller, who is the
        one at the block's begin.
        """
        caller = _find_caller()
        held = 0

        def grow(size: int) -> None:
            nonlocal held
            more = max(0, size - held)
            if more and more > self._free_for(caller):
                raise TooManyTransfersError
            self._take(caller, more)
            held += more

        try:
            yield grow
        finally:
            self._take(caller, -held)

    @contextmanager
    def holding(self, size: int) -> Iterator[None]:
        """Take `size` bytes of the budget for the length of the block.

        Raises:
            TooManyTransfersError: there are not that many left.
        """
        with self.growing() as grow:
            grow(size)
            yield

    def _free_for(self, caller: Sequence[AccountId | TenantId]) -> int:
        """Tell how much more the caller may hold; a task of ours, whatever is free.

        With n more bytes, (held by account + n) + (held by tenant + n) <= 2 * (free - n).
        """
        if not caller:
            return self._free_bytes
        return (2 * self._free_bytes - sum(self._held[each] for each in caller)) // 4

    def _take(self, caller: Sequence[AccountId | TenantId], size: int) -> None:
        self._free_bytes -= size
        for each in caller:
            self._held[each] += size
            if not self._held[each]:
                del self._held[each]


def _find_caller() -> tuple[AccountId | TenantId, ...]:
    call = find_call()
    if call is None or call.principal is None:
        return ()
    return call.principal.account_id, call.principal.tenant_id
