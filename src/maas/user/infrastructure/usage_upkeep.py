"""Partitions of the usage ledger, made before they are needed; as the system role."""

from typing import Final

import asyncpg

from maas.shared.infrastructure.database import system_arguments
from maas.shared.infrastructure.settings import DatabaseSettings

MONTHS_AHEAD: Final = 3

_PREPARE: Final = """
    SELECT count(usage_ensure_partition(clock_timestamp() + make_interval(months => ahead)))
    FROM generate_series(-1, $1::integer) AS ahead
"""


async def prepare_usage(settings: DatabaseSettings) -> int:
    """Make what is missing of the partitions of last month to three ahead; return how many are."""
    connection = await asyncpg.connect(**system_arguments(settings))
    try:
        there: int = await connection.fetchval(_PREPARE, MONTHS_AHEAD)
    finally:
        await connection.close()
    return there
