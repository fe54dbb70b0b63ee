"""The connection that holds the locks is looked after while others work."""

import asyncio
from unittest.mock import AsyncMock

import pytest

from maas.backup import snapshot as module
from maas.backup.snapshot import Snapshot


def test_a_lost_connection_is_noticed_before_the_work_is_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "AWAKE_SECONDS", 0.001)
    connection = AsyncMock()
    connection.execute.side_effect = [None, ConnectionResetError("gone")]
    snapshot = Snapshot(
        connection=connection,
        id="1",
        taken_at="2026-11-22T00:00:01Z",
        postgres="18.6",
        postgres_major=18,
        revision="0001",
    )

    async def attend_forever() -> None:
        work = asyncio.create_task(asyncio.Event().wait())
        try:
            await snapshot.attend(work)
        finally:
            work.cancel()

    with pytest.raises(ConnectionResetError, match="gone"):
        asyncio.run(attend_forever())

    assert [call.args for call in connection.execute.await_args_list] == [("SELECT 1",)] * 2
