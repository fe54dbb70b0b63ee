"""What somebody who may write to Redis can put into the trail, and what not."""

import dataclasses
import json
from typing import Any

import httpx
import pytest

from maas.audit.application.events import QueuedEvent
from maas.audit.application.verification import VerificationService, VerifyOptions
from maas.audit.domain.event import canonical
from maas.audit.infrastructure.signing import is_signed_by
from maas.audit.infrastructure.trail_reader import PostgresTrailReader
from tests.integration.audit.helpers import Trail, names

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(60),
    pytest.mark.usefixtures("clean"),
]


def forged(event: QueuedEvent, **fields: Any) -> QueuedEvent:
    """The event with other hashed fields; one that is `...` is left out."""
    said = {**json.loads(event.payload), **fields}
    said = {name: value for name, value in said.items() if value is not ...}
    return dataclasses.replace(event, payload=canonical(said))


FORGERIES: list[dict[str, Any]] = [
    {"changes": ...},
    {"changes": {"before": {}}},
    {"changes": {"before": {}, "after": [1]}},
    {"changes": {"before": {}, "after": {"a": {"b": {"c": 1}}}}},
    {"changes": {"before": {}, "after": {"a": 1.5}}},
    {"commitments": ...},
    {"commitments": {}},
    {"commitments": {"actor_name": "00" * 32, "address": "00" * 32}},
    {"outcome": "splendid"},
    {"actor": {"kind": "god", "id": None}},
    {"surplus": 1},
    {"occurred_at": "1900-01-01T00:00:00.000000Z"},
    {"occurred_at": "9999-01-01T00:00:00.000000Z"},
]


@pytest.mark.parametrize("fields", FORGERIES, ids=lambda fields: json.dumps(fields, default=str))
async def test_what_no_producer_writes_breaks_neither_reading_nor_the_check(
    fields: dict[str, Any], trail: Trail, client: httpx.AsyncClient
) -> None:
    bad, good = forged(trail.make(), **fields), trail.make()
    await trail.add(bad, good)

    report = await trail.flush().run()

    assert (report.written, report.buried) == (1, 1)
    listed = await client.get("/api/v1/audit/logs")
    assert listed.status_code == 200
    assert [item["id"] for item in listed.json()["items"]] == names(good)
    service = VerificationService(
        reader=PostgresTrailReader(trail.superuser), is_signed=is_signed_by
    )
    verdict = await service.verify(VerifyOptions())
    assert verdict.is_sound, list(verdict.findings)


async def test_an_entry_does_not_take_the_place_of_the_event_in_the_outbox(trail: Trail) -> None:
    true = trail.make("account.deleted")
    false = forged(true, action="account.read")
    await trail.keep(true)
    await trail.add(false)

    report = await trail.flush().run()

    assert report.buried == 1
    assert await trail.logged() == names(true)
    assert await trail.superuser.fetchval("SELECT action FROM audit_log") == "account.deleted"
    assert await trail.nothing_waits()
