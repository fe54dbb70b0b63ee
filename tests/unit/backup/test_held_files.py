"""No file goes while a restore has put the collection off."""

import asyncio
from datetime import timedelta
from unittest.mock import AsyncMock

from maas.model.application.collection import CollectionLedger, CollectionService
from maas.model.application.ports import StoredParts
from maas.shared.infrastructure.clock import SystemClock


def test_keys_are_dropped_and_files_stay() -> None:
    ledger = AsyncMock(spec=CollectionLedger)
    ledger.drop_keys.side_effect = [2, 0]
    ledger.is_held.return_value = True
    parts = AsyncMock(spec=StoredParts)
    collection = CollectionService(
        ledger=ledger,
        parts=parts,
        clock=SystemClock(),
        unused_grace=timedelta(0),
        keep_deleted=timedelta(0),
    )

    done = asyncio.run(collection.run(seconds=10))

    assert done.is_held
    assert done.keys == 2
    assert [name for name, _, _ in ledger.mock_calls] == ["drop_keys", "drop_keys", "is_held"]
    assert parts.mock_calls == []
