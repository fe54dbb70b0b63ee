"""How a deployment is doing, told to its own tenant, and to Prometheus without a name."""

import json

import httpx
import pytest

from tests.e2e.conftest import Flush
from tests.e2e.inference.gateway import CHAT, Gateway
from tests.integration.user.charging import Superuser
from tests.upstream.scripts import Script

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(60)]

EVENTS = "SELECT payload FROM audit_log WHERE action = 'inference.completed'"
BODY = {"model": "bot", "messages": [{"role": "user", "content": "Tell me of rivers."}]}


async def call(gateway: Gateway, **fields: str) -> httpx.Response:
    headers = {"Authorization": f"Bearer {gateway.key}"}
    return await gateway.http.post("/v1/chat/completions", json={**BODY, **fields}, headers=headers)


async def told(gateway: Gateway, deployment_id: str) -> httpx.Response:
    return await gateway.http.get(
        f"/api/v1/deployments/{deployment_id}/metrics", headers=gateway.root.headers
    )


async def test_calls_and_targets_are_told_of(gateway: Gateway) -> None:
    gateway.desk.scripts.put("bad", Script(status=503))
    made = await gateway.deploy("bad", CHAT)
    before = (await told(gateway, made["id"])).json()

    answers = [await call(gateway) for _ in range(6)]
    gateway.desk.scripts.put("*", Script(status=503))
    failed = await call(gateway)
    found = (await told(gateway, made["id"])).json()
    scraped = (await gateway.http.get("/metrics")).text

    assert [answer.status_code for answer in answers] == [200] * 6
    assert failed.status_code == 502
    assert [(each["circuit"], each["unfit"]) for each in before["targets"]] == [
        ("closed", None)
    ] * 2
    recent = found["recent"]
    assert (recent["calls"], recent["failed_calls"]) == (7, 1)
    assert recent["output_tokens"] == 6 * 16
    assert recent["duration"]["p50_ms"] >= recent["first_byte"]["p50_ms"] > 0
    assert [each["currency"] for each in recent["costs"]] == ["USD"]
    bad, good = found["targets"]
    assert (bad["circuit"], good["circuit"]) == ("open", "closed")
    assert bad["retry_in_ms"] > 0
    assert (good["in_flight"], good["waiting"]) == (0, 0)
    provider = 'provider="openai-compatible"'
    outcome = f'maas_inference_upstream_calls_total{{outcome="failed",{provider}}} 6.0'
    assert outcome in scraped
    assert f"maas_inference_circuits_opened_total{{{provider}}} 1.0" in scraped
    assert 'maas_inference_tokens_total{meter="output"} 96.0' in scraped
    assert made["id"] not in scraped
    assert "bot" not in scraped


async def test_what_is_refused_in_an_outage_is_counted_and_in_the_trail(
    gateway: Gateway, flush: Flush, superuser: Superuser
) -> None:
    gateway.desk.scripts.put("*", Script(status=500))
    made = await gateway.deploy()

    answers = [await call(gateway) for _ in range(8)]
    unknown = await call(gateway, model="acme/other")
    found = (await told(gateway, made["id"])).json()["recent"]
    scraped = (await gateway.http.get("/metrics")).text
    await flush()
    rows = await superuser.fetch(EVENTS)

    failed = [answer.status_code for answer in answers].count(502)
    refused = len(answers) - failed
    assert (failed, refused, unknown.status_code) == (5, 3, 404)
    assert (found["calls"], found["failed_calls"], found["refused_calls"]) == (5, 5, 3)
    counted = 'maas_inference_calls_refused_total{reason="upstream-unreachable"} 3.0'
    assert counted in scraped
    events = [json.loads(row["payload"]) for row in rows]
    ours = [each for each in events if each["resource"]["id"] == made["id"]]
    reasons = [each["reason"] for each in ours]
    assert sorted(reasons) == ["upstream-failed"] * 5 + ["upstream-unreachable"] * 3
    assert {each["changes"]["after"]["name"] for each in ours} == {"bot"}
    (other,) = [each for each in events if each not in ours]
    assert (other["reason"], other["changes"]["after"]) == ("unknown-model", {"name": "acme/other"})


async def test_who_runs_it_sees_why_a_target_is_not_called(gateway: Gateway) -> None:
    made = await gateway.deploy()
    (target,) = made["targets"]
    await gateway.http.delete(
        f"/api/v1{gateway.provider}/models/{target['provider_model_id']}",
        headers={**gateway.root.headers, "If-Match": "*"},
    )

    answer = await call(gateway)
    found = (await told(gateway, made["id"])).json()

    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "no-target")
    assert [(each["target_id"], each["unfit"]) for each in found["targets"]] == [
        (target["id"], "not-found")
    ]


async def test_who_is_no_member_of_its_tenant_is_told_nothing(gateway: Gateway) -> None:
    missing = await told(gateway, "019aa9a4-6a4c-7c3e-8a3e-0242ac120002")
    made = await gateway.deploy()
    keyed = await gateway.http.get(
        f"/api/v1/deployments/{made['id']}/metrics",
        headers={"Authorization": f"Bearer {gateway.key}"},
    )

    assert (missing.status_code, missing.json()["code"]) == (404, "deployment-not-found")
    assert keyed.status_code == 403
