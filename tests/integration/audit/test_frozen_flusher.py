"""A flusher that is frozen wherever it stands keeps the others waiting for seconds only."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from maas.audit.infrastructure.ledger import CHAIN_COLUMNS, PostgresLedger
from maas.audit.wiring import load_configured_signer
from maas.shared.infrastructure.database import system_arguments
from maas.shared.infrastructure.settings import Settings
from tests.integration.audit.helpers import Trail, names

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(90),
    pytest.mark.usefixtures("clean"),
]

LIMIT_SECONDS = 30


async def test_in_the_middle_of_a_copy(trail: Trail, settings: Settings) -> None:
    ledger = PostgresLedger(
        system_arguments(settings.database), signer=load_configured_signer(settings)
    )
    stands = asyncio.Event()

    async def rows() -> AsyncIterator[bytes]:
        yield b"PGCOPY\n\xff\r\n\x00" + bytes(8)
        stands.set()
        await asyncio.Event().wait()

    async def freeze() -> None:
        async with ledger._connected() as connection, connection.transaction():
            await connection.execute("SELECT seq FROM audit_head WHERE id = 1 FOR UPDATE")
            await connection.copy_to_table(
                "audit_chain", source=rows(), columns=CHAIN_COLUMNS, format="binary", timeout=600
            )

    frozen = asyncio.create_task(freeze())
    try:
        await stands.wait()
        event = trail.make()
        await trail.add(event)

        begun, flush = time.monotonic(), trail.flush()
        while not (await flush.run()).written:
            assert time.monotonic() - begun < LIMIT_SECONDS, "the head stays locked"
            await asyncio.sleep(0.2)
    finally:
        await trail.superuser.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'COPY%'"
        )
        frozen.cancel()
        await asyncio.wait([frozen])
        await ledger.close()

    assert await trail.logged() == names(event)
