"""Calls over HTTP: one booking and one event each, also if repeated, and a receipt that says so."""

import asyncio
import json
from typing import Any

import httpx
import pytest

from maas.audit.flush_wiring import build_flush
from maas.shared.infrastructure.settings import Settings
from tests.e2e.inference.gateway import Gateway
from tests.integration.user.charging import Superuser

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(60)]

ASKED: dict[str, Any] = {"model": "bot", "messages": [{"role": "user", "content": "Hello"}]}
COUNT = "SELECT (SELECT count(*) FROM usage), (SELECT count(*) FROM quota_holds)"


async def call(gateway: Gateway, key: str | None = None, **fields: Any) -> httpx.Response:
    headers = {"Authorization": f"Bearer {gateway.key}"}
    if key is not None:
        headers["Idempotency-Key"] = key
    return await gateway.http.post(
        f"{gateway.url}/chat/completions", json={**ASKED, **fields}, headers=headers
    )


async def receipt_of(gateway: Gateway, settings: Settings, answer: httpx.Response) -> Any:
    """Read a receipt once it is there: its event is on its way through Redis for some moments."""
    flushing = build_flush(settings)
    path = f"/api/v1/receipts/{answer.headers['x-request-id']}"
    async with asyncio.timeout(20):
        while True:
            await flushing.service.run()
            found = await gateway.http.get(path, headers=gateway.root.headers)
            if found.status_code == 200:
                break
            assert (found.status_code, found.headers["retry-after"]) == (404, "1")
            await asyncio.sleep(0.05)
    await flushing.close()
    return found.json()


async def test_a_repeated_call_is_charged_once_and_told_whose_receipt_to_read(
    gateway: Gateway, superuser: Superuser
) -> None:
    await gateway.deploy()

    first = await call(gateway, "k-1")
    again = await call(gateway, "k-1")
    streamed = await call(gateway, "k-1", stream=True)
    other = await call(gateway, "k-2")

    assert [each.status_code for each in (first, again, streamed, other)] == [200, 409, 422, 200]
    assert again.json()["error"]["code"] == "already-processed"
    assert first.headers["x-request-id"] in again.json()["error"]["message"]
    assert again.headers["x-maas-first-request-id"] == first.headers["x-request-id"]
    assert again.headers["x-should-retry"] == "false"
    assert len(gateway.calls) == 2
    row = await superuser.fetchrow(COUNT)
    assert row is not None
    assert tuple(row) == (2, 0)


async def test_the_receipt_is_what_the_answer_said(
    gateway: Gateway, calling_settings: Settings
) -> None:
    deployment = await gateway.deploy()

    answer = await call(gateway)
    receipt = await receipt_of(gateway, calling_settings, answer)

    told = answer.json()["usage"]
    booked = receipt["booking"]
    assert receipt["deployment"]["id"] == deployment["id"]
    assert receipt["deployment"]["name"] == "bot"
    assert (receipt["outcome"], receipt["status"]) == ("success", 200)
    assert receipt["target"]["provider_name"] == "supplier"
    assert (receipt["price"]["input"], receipt["price"]["cached"]) == ("2.5", "1.25")
    assert booked["input_tokens"] == told["prompt_tokens"]
    assert booked["output_tokens"] + booked["reasoning_tokens"] == told["completion_tokens"]
    assert (
        booked["cost_nanos"] == 2_500 * told["prompt_tokens"] + 10_000 * (told["completion_tokens"])
    )
    assert not booked["is_estimated"]
    hashed = json.loads(receipt["proof"]["payload"])
    assert hashed["request_id"] == answer.headers["x-request-id"]
    assert hashed["changes"]["after"]["cost_nanos"] == booked["cost_nanos"]
    assert "Hello" not in receipt["proof"]["payload"]


async def test_a_prompt_of_over_a_mebibyte_is_held_and_given_back(
    gateway: Gateway, superuser: Superuser
) -> None:
    await gateway.deploy()

    answer = await call(gateway, messages=[{"role": "user", "content": "word " * 240_000}])

    assert answer.status_code == 200, answer.text
    row = await superuser.fetchrow("SELECT input_tokens, is_overrun, is_estimated FROM usage")
    assert row is not None
    assert tuple(row) == (answer.json()["usage"]["prompt_tokens"], False, False)
    assert await superuser.fetchval("SELECT count(*) FROM quota_holds") == 0
