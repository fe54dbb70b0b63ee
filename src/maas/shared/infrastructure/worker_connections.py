"""How many connections a worker may have open to PostgreSQL; what bounds them is what counts."""

from collections.abc import Mapping
from typing import Final

WORKER_PROCESSES: Final = 2
"""Of a worker that is not told how many."""

FLUSH_CONNECTIONS: Final = 2
"""A flush writes a batch over one, and ends frozen flushers over another."""

DELIVERY_CONNECTIONS: Final = 4
"""As many webhooks are sent to at once; their lock has one more."""

BOOKING_POOLS: Final[Mapping[str, int]] = {"pool_size": 1, "read_pool_size": 2}
"""Quotas are told of storage in two transactions at once; the engine is not used."""

DIGEST_POOLS: Final[Mapping[str, int]] = {"pool_size": 2, "read_pool_size": 3}
"""One upload at a time, the quotas' two transactions, and what sees to the trail."""

_SWEEP: Final = 1 + FLUSH_CONNECTIONS
_DIGEST: Final = 1 + sum(DIGEST_POOLS.values())
_BUSIEST_TASK: Final = 1 + DELIVERY_CONNECTIONS


def count_connections(*, processes: int) -> int:
    """Tell how many a worker may have open.

    Its parent has some for what runs beside the tasks, and each of its processes for what it keeps
    and for the one task it has at a time.
    """
    each = FLUSH_CONNECTIONS + BOOKING_POOLS["read_pool_size"] + _BUSIEST_TASK
    return _SWEEP + _DIGEST + processes * each
