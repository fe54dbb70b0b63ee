"""How many exports run at once, in one process and for one tenant."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Final

from maas.shared.domain.errors import TooManyRequestsError, UnavailableError
from maas.shared.domain.ids import TenantId

RETRY_AFTER: Final = timedelta(seconds=15)


class ExportsBusyError(UnavailableError):
    code = "exports-busy"
    title = "As many exports are under way as this server runs at once"


class TooManyExportsError(TooManyRequestsError):
    code = "too-many-exports"
    title = "Wait until one of your exports is done"


class ExportSlots:
    """Hands out places; no tenant takes more than half of them, rounded up."""

    def __init__(self, at_once: int) -> None:
        self._at_once = at_once
        self._per_tenant = (at_once + 1) // 2
        self._taken: Counter[TenantId] = Counter()

    @property
    def taken(self) -> int:
        return self._taken.total()

    @contextmanager
    def take(self, tenant_id: TenantId) -> Iterator[None]:
        """Hold a place for the length of a `with` block.

        Raises:
            ExportsBusyError: there is none.
            TooManyExportsError: the tenant has its share.
        """
        if self._taken[tenant_id] >= self._per_tenant:
            raise TooManyExportsError(
                f"This server runs {self._per_tenant} of a tenant's exports at once.",
                retry_after=RETRY_AFTER,
            )
        if self.taken >= self._at_once:
            raise ExportsBusyError(
                f"This server runs {self._at_once} exports at once; try again soon.",
                retry_after=RETRY_AFTER,
            )
        self._taken[tenant_id] += 1
        try:
            yield
        finally:
            self._taken[tenant_id] -= 1
            # A tenant without any leaves nothing behind.
            self._taken += Counter()
