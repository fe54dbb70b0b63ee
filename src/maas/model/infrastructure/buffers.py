"""Memory for the parts of files, given back to the system as soon as nobody looks at it."""

import mmap
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from maas.model.application.ports import TooManyTransfersError
from maas.shared.domain.call import find_call
from maas.shared.domain.ids import AccountId

SHARES: Final = 8


def new_buffer(size: int) -> memoryview:
    """Make room for `size` bytes; pages that are never written to cost nothing.

    Use it again for part after part: the first writing to a page costs more than any copy. Blocks
    of many megabytes from `malloc` would stay with the process: its threads keep them for later.
    """
    return memoryview(mmap.mmap(-1, max(1, size)))[:size]


class MemoryBudget:
    """Bounds what all transfers of a process hold in buffers, whatever their number.

    An account has its eighth of it, and more only while half of all is free: whoever holds much,
    and sends little, keeps nobody else waiting.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._free_bytes = limit_bytes
        self._held: Counter[AccountId] = Counter()

    @contextmanager
    def growing(self) -> Iterator[Callable[[int], None]]:
        """Give a function that has the block hold at least so many bytes of the budget.

        It raises `TooManyTransfersError` if there are not that many left for the caller, who is the
        one at the block's begin.
        """
        account_id = _find_caller()
        held = 0

        def grow(size: int) -> None:
            nonlocal held
            more = max(0, size - held)
            if more and more > self._free_for(account_id):
                raise TooManyTransfersError
            self._take(account_id, more)
            held += more

        try:
            yield grow
        finally:
            self._take(account_id, -held)

    @contextmanager
    def holding(self, size: int) -> Iterator[None]:
        """Take `size` bytes of the budget for the length of the block.

        Raises:
            TooManyTransfersError: there are not that many left.
        """
        with self.growing() as grow:
            grow(size)
            yield

    def _free_for(self, account_id: AccountId | None) -> int:
        if account_id is None:
            return self._free_bytes
        of_share = self._limit_bytes // SHARES - self._held[account_id]
        return min(self._free_bytes, max(of_share, self._free_bytes - self._limit_bytes // 2))

    def _take(self, account_id: AccountId | None, size: int) -> None:
        self._free_bytes -= size
        if account_id is not None:
            self._held[account_id] += size
            if not self._held[account_id]:
                del self._held[account_id]


def _find_caller() -> AccountId | None:
    call = find_call()
    return None if call is None or call.principal is None else call.principal.account_id
