"""Checkpoints, the head and proofs over HTTP; only who is calling is made up."""

import json
from typing import Any

import httpx
import pytest

from maas.audit.domain.chain_check import ChainCheck, StoredCheckpoint
from maas.audit.domain.checkpoint import read_signed_checkpoint
from maas.audit.domain.findings import Findings
from maas.audit.domain.proof import MalformedProofError, find_fault
from maas.audit.infrastructure.signing import is_signed_by
from maas.audit.wiring import load_configured_signer
from maas.shared.domain.ids import TenantId, new_id
from maas.shared.infrastructure.settings import Settings
from tests.integration.audit.conftest import FakeAuthenticator
from tests.integration.audit.helpers import Trail

pytestmark = pytest.mark.integration

AUDIT = "/api/v1/audit"


@pytest.fixture
def keys(settings: Settings) -> dict[str, bytes]:
    signer = load_configured_signer(settings)
    return {signer.key_id: signer.public_key}


async def proof_of(client: httpx.AsyncClient, event_id: object) -> dict[str, Any]:
    answer = await client.get(f"{AUDIT}/logs/{event_id}/proof")
    assert answer.status_code == 200, answer.text
    proof: dict[str, Any] = answer.json()
    return proof


class TestProof:
    async def test_of_each_event_holds_under_the_key(
        self, client: httpx.AsyncClient, trail: Trail, keys: dict[str, bytes]
    ) -> None:
        events = [trail.make() for _ in range(11)]
        await trail.add(*events)
        await trail.flush(batch_size=7).run()

        proofs = [await proof_of(client, event.id) for event in events]

        assert [proof["payload"].encode() for proof in proofs] == [e.payload for e in events]
        assert [proof["checkpoint"]["n"] for proof in proofs] == [1] * 7 + [2] * 4
        for proof in proofs:
            assert find_fault(proof, keys=keys, is_signed=is_signed_by) is None

    @pytest.mark.parametrize(
        ("change", "fault"),
        [
            ({"payload": '{"id":"x"}'}, "its leaf"),
            ({"event_id": "x"}, "another event's"),
            ({"leaf": "00" * 32}, "its leaf"),
            ({"seq": 2}, "its path"),
            ({"seq": 0}, "its path"),
            ({"path": []}, "its path"),
            ({"recorded_at": "2199-01-01T00:00:00Z"}, "after its checkpoint"),
        ],
        ids=str,
    )
    async def test_that_was_changed_does_not(
        self,
        client: httpx.AsyncClient,
        trail: Trail,
        keys: dict[str, bytes],
        change: dict[str, object],
        fault: str,
    ) -> None:
        events = [trail.make() for _ in range(3)]
        await trail.add(*events)
        await trail.flush().run()
        proof = await proof_of(client, events[0].id)

        found = find_fault({**proof, **change}, keys=keys, is_signed=is_signed_by)

        assert found is not None
        assert fault in found

    async def test_with_another_signature_or_key_does_not(
        self, client: httpx.AsyncClient, trail: Trail, keys: dict[str, bytes]
    ) -> None:
        event = trail.make()
        await trail.add(event)
        await trail.flush().run()
        proof = await proof_of(client, event.id)
        forged = {**proof, "checkpoint": {**proof["checkpoint"], "n": 7}}

        assert find_fault(proof, keys={}, is_signed=is_signed_by) is not None
        assert find_fault(forged, keys=keys, is_signed=is_signed_by) is not None
        for odd in ({}, {**proof, "path": 1}, {**proof, "v": 2}, {**proof, "checkpoint": {}}):
            with pytest.raises(MalformedProofError):
                find_fault(odd, keys=keys, is_signed=is_signed_by)

    async def test_of_what_waits_still_is_not_there_and_says_why(
        self, client: httpx.AsyncClient, trail: Trail
    ) -> None:
        event = trail.make()
        await trail.add(event)

        answer = await client.get(f"{AUDIT}/logs/{event.id}/proof")

        assert answer.status_code == 404
        assert answer.json()["code"] == "audit-event-not-found"
        assert "just recorded" in answer.json()["detail"]

    async def test_beside_which_the_chain_lost_rows_says_that_it_did(
        self, client: httpx.AsyncClient, trail: Trail
    ) -> None:
        events = [trail.make() for _ in range(3)]
        await trail.add(*events)
        await trail.flush().run()
        async with trail.superuser.transaction():
            await trail.superuser.execute("SET LOCAL session_replication_role = replica")
            await trail.superuser.execute("DELETE FROM audit_chain WHERE seq = 3")

        answer = await client.get(f"{AUDIT}/logs/{events[0].id}/proof")

        assert (answer.status_code, answer.json()["code"]) == (409, "audit-trail-damaged")

    async def test_of_another_tenants_event_is_not_there(
        self, client: httpx.AsyncClient, trail: Trail, authenticator: FakeAuthenticator
    ) -> None:
        event = trail.make()
        await trail.add(event)
        await trail.flush().run()
        authenticator.tenant_id = TenantId(new_id())

        answer = await client.get(f"{AUDIT}/logs/{event.id}/proof")

        assert answer.status_code == 404

    async def test_is_itself_in_the_trail(self, client: httpx.AsyncClient, trail: Trail) -> None:
        await client.get(f"{AUDIT}/logs/{new_id()}/proof")

        assert [
            json.loads(fields[b"payload"])["action"] for _, fields in await trail.entries()
        ] == ["audit.proved"]


class TestCheckpoints:
    async def test_pages_are_the_whole_chain_newest_first(
        self, client: httpx.AsyncClient, trail: Trail, keys: dict[str, bytes]
    ) -> None:
        await trail.add(*(trail.make() for _ in range(25)))
        await trail.flush(batch_size=5).run()

        items: list[dict[str, Any]] = []
        params: dict[str, str | int] = {"limit": 2}
        for _ in range(3):
            page = (await client.get(f"{AUDIT}/checkpoints", params=params)).json()
            items += page["items"]
            params["cursor"] = page["next_cursor"]
        head = (await client.get(f"{AUDIT}/head")).json()

        findings = Findings()
        check = ChainCheck(keys=keys, is_signed=is_signed_by, findings=findings)
        for item in reversed(items):
            signed = read_signed_checkpoint(item)
            check.take_checkpoint(StoredCheckpoint(signed=signed, hash=bytes.fromhex(item["hash"])))
        assert not findings
        assert [item["n"] for item in items] == [5, 4, 3, 2, 1]
        assert head == items[0]
        assert head["public_key"] == next(iter(keys.values())).hex()

    @pytest.mark.parametrize(
        ("stretch", "found"),
        [
            ({"from_seq": 6, "to_seq": 10}, [2]),
            ({"from_seq": 5, "to_seq": 6}, [2, 1]),
            ({"from_seq": 15}, [3]),
            ({"to_seq": 1}, [1]),
            ({"from_seq": 16}, []),
        ],
        ids=str,
    )
    async def test_of_a_stretch_are_those_that_touch_it(
        self,
        client: httpx.AsyncClient,
        trail: Trail,
        stretch: dict[str, int],
        found: list[int],
    ) -> None:
        await trail.add(*(trail.make() for _ in range(15)))
        await trail.flush(batch_size=5).run()

        answer = await client.get(f"{AUDIT}/checkpoints", params={**stretch, "include_total": True})

        assert [item["n"] for item in answer.json()["items"]] == found
        assert answer.json()["total"] == len(found)

    async def test_before_the_first_there_is_no_head(self, client: httpx.AsyncClient) -> None:
        answer = await client.get(f"{AUDIT}/head")

        assert answer.status_code == 404
        assert answer.json()["code"] == "audit-no-checkpoint"

    @pytest.mark.parametrize("path", ["/head", "/checkpoints"])
    async def test_need_their_own_permission(
        self, client: httpx.AsyncClient, authenticator: FakeAuthenticator, path: str
    ) -> None:
        authenticator.permissions = frozenset({"audit:read"})

        assert (await client.get(AUDIT + path)).status_code == 403
