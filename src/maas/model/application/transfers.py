"""How many files one caller may have on their way at a time."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from maas.shared.domain.errors import TooManyRequestsError
from maas.shared.domain.ids import AccountId

MAX_TRANSFERS_EACH = 16


class TooManyOwnTransfersError(TooManyRequestsError):
    code = "too-many-own-transfers"
    title = "Too many files of yours are on their way"

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"At most {limit} of your uploads and downloads run at a time; let one of them end.",
            retry_after=timedelta(seconds=5),
        )


class TransferSlots:
    """Counts the transfers of each account in this process, so that nobody takes them all."""

    def __init__(self, limit: int = MAX_TRANSFERS_EACH) -> None:
        self._limit = limit
        self._taken: Counter[AccountId] = Counter()

    def check(self, account_id: AccountId) -> None:
        """Look whether the account has a slot left, and take none.

        Raises:
            TooManyOwnTransfersError: all of them are taken.
        """
        if self._taken[account_id] >= self._limit:
            raise TooManyOwnTransfersError(self._limit)

    @contextmanager
    def holding(self, account_id: AccountId) -> Iterator[None]:
        """Take one of the account's slots for the length of the block.

        Raises:
            TooManyOwnTransfersError: all of them are taken.
        """
        self.check(account_id)
        self._taken[account_id] += 1
        try:
            yield
        finally:
            self._taken[account_id] -= 1
            if not self._taken[account_id]:
                del self._taken[account_id]
