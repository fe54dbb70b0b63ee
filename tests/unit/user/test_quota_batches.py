"""Batches of calls when the connection is lost: what was asked is sent again, not forgotten."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, cast

import asyncpg
import pytest

from maas.shared.domain.ids import DEFAULT_TENANT_ID
from maas.shared.infrastructure.database import Database
from maas.user.infrastructure.quota_batches import CallBatches


class LossyConnection:
    """Loses the first statement, and answers the next."""

    def __init__(self, error: Exception) -> None:
        self._errors = [error]

    async def fetch(self, _query: str, _text: str) -> list[Mapping[str, object]]:
        if self._errors:
            raise self._errors.pop()
        return [{"n": 0, "outcome": "done"}]

    def terminate(self) -> None:
        """There is nothing to close."""


class LossyDatabase:
    def __init__(self, error: Exception) -> None:
        self._connection = LossyConnection(error)

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[LossyConnection]:
        yield self._connection


@pytest.mark.parametrize(
    "error",
    [
        ConnectionResetError(),
        TimeoutError(),
        asyncpg.ConnectionDoesNotExistError(),
        asyncpg.InterfaceError("the connection is closed"),
        # Raised where a server goes in the middle of a message.
        asyncpg.InternalClientError("cannot switch to state 12"),
    ],
)
async def test_what_was_on_a_lost_connection_is_sent_again(error: Exception) -> None:
    batches = CallBatches(cast("Database", LossyDatabase(error)))

    ask = batches.ask(DEFAULT_TENANT_ID, {"op": "release", "id": "h"}, worth_seconds=5)
    row: Any = await ask.future

    assert row["outcome"] == "done"
    assert ask.is_unknown
    await batches.close()
