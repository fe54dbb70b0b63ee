"""Which keys were good lately, as far as this process has seen: a hint, and no permission."""

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

REMEMBERED_SECONDS: Final = 3600
MAX_REMEMBERED: Final = 10_000


class GoodLately:
    """Hashes of secrets that were good within the hour, as many as fit.

    These are no guesses, so they are looked up however many bad keys their neighbours show; whether
    they are still good is asked every time.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._until: OrderedDict[bytes, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._until)

    def __contains__(self, secret_hash: bytes) -> bool:
        until = self._until.get(secret_hash)
        return until is not None and until > self._clock()

    def note(self, secret_hash: bytes) -> None:
        self._until[secret_hash] = self._clock() + REMEMBERED_SECONDS
        self._until.move_to_end(secret_hash)
        if len(self._until) > MAX_REMEMBERED:
            self._until.popitem(last=False)

    def forget(self, secret_hash: bytes) -> None:
        self._until.pop(secret_hash, None)
