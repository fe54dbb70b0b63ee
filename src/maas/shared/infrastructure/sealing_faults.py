"""What keeps a process from sealing: looked for before it starts, and by `maas doctor`."""

import asyncio
from typing import Final

import asyncpg

from maas.shared.infrastructure.database import app_arguments
from maas.shared.infrastructure.sealing_keys import key_file_path, read_ring
from maas.shared.infrastructure.settings import InvalidSettingsError, Settings

CONNECT_SECONDS: Final = 5

_IS_RETIRED: Final = "SELECT EXISTS (SELECT FROM sealing_retired_keys WHERE key_id = $1)"


async def find_key_faults(settings: Settings) -> list[str]:
    """Tell why nothing can be sealed here, and what to do; a database that is away says nothing."""
    try:
        key = read_ring(settings).current
    except InvalidSettingsError as exc:
        return list(exc.problems)
    try:
        is_retired = await _is_retired(settings, key.id)
    except (OSError, TimeoutError, asyncpg.PostgresError):
        # Away, or not migrated yet.
        return []
    if not is_retired:
        return []
    given = settings.sealing.keys is not None
    source = "MAAS_SEALING__KEYS" if given else str(key_file_path(settings))
    fault = (
        f"The sealing key {key.id.hex()} is retired, so every new secret is refused: {source} is "
        "missing, or not what the other processes read. Put theirs there."
    )
    return [fault]


async def _is_retired(settings: Settings, key_id: bytes) -> bool:
    connection = await asyncio.wait_for(
        asyncpg.connect(**app_arguments(settings.database)), CONNECT_SECONDS
    )
    try:
        return bool(await connection.fetchval(_IS_RETIRED, key_id))
    finally:
        await connection.close()
