"""Does what the Celery task `quota.expire` does, and more often."""

import asyncio
import sys

import asyncpg

from maas.audit.wiring import build_event_composer
from maas.shared.infrastructure.clock import SystemClock
from maas.shared.infrastructure.logging import configure_logging
from maas.shared.infrastructure.settings import load_settings
from maas.user.infrastructure.quota_expiry import expire_holds

EVERY_SECONDS = 0.5


async def main() -> None:
    configure_logging(level="INFO", format="json")
    settings, events = load_settings(), build_event_composer(SystemClock())
    while True:
        try:
            await expire_holds(settings.database, events=events)
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            # As the task's: the next tick does it.
            sys.stderr.write(f"not expired: {error!r}\n")
        await asyncio.sleep(EVERY_SECONDS)


if __name__ == "__main__":
    asyncio.run(main())
