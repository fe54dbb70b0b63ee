"""What is said of models and versions, and who sees them, through HTTP."""

import json

import asyncpg
import httpx
import pytest

from maas.shared.domain.ids import new_id
from tests.e2e.conftest import Flush, MakePerson, Person
from tests.e2e.model.conftest import MODEL, make_version

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(60)]

SAID = {
    "card": "# Bot\n\n回答客户的问题。",
    "visibility": "tenant",
    "tags": ["chat", "客服"],
    "metadata": {"cost": 4711, "share": 0.5, "reviewed": True, "team": "help"},
}


@pytest.fixture
async def bob(make_person: MakePerson) -> Person:
    """Who writes models, and manages none; asked for before `api`, which moves the client."""
    return await make_person("bob", roles=("developer",))


class TestModels:
    async def test_what_is_said_is_kept_and_told(self, api: httpx.AsyncClient) -> None:
        made = await api.post("models", json=MODEL | SAID)
        path = f"models/{made.json()['id']}"

        tagged = [await api.put(f"{path}/tags/v1.0") for _ in range(2)]
        untagged = await api.delete(f"{path}/tags/chat")
        changed = await api.put(path, json={"card": None, "metadata": {"cost": 1}})
        read = await api.get(path)

        assert made.status_code == 201, made.text
        assert {name: made.json()[name] for name in SAID} == SAID
        assert made.json()["owner_id"] == made.json()["created_by"]
        assert [answer.status_code for answer in (*tagged, untagged)] == [204, 204, 204]
        assert (changed.json()["card"], changed.json()["metadata"]) == (None, {"cost": 1})
        assert read.json() == changed.json()
        assert read.json()["tags"] == ["v1.0", "客服"]

    async def test_what_cannot_be_kept_is_refused(self, api: httpx.AsyncClient) -> None:
        refused: list[dict[str, object]] = [
            {"card": "x" * (256 * 1024 + 1)},
            {"card": ""},
            {"visibility": "everybody"},
            {"tags": ["a b"]},
            {"tags": [f"t{number}" for number in range(51)]},
            {"metadata": {"a": None}},
            {"metadata": {"a": [1]}},
            {"metadata": {"": 1}},
            {"metadata": None},
        ]

        answers = [await api.post("models", json=MODEL | said) for said in refused]

        assert [answer.status_code for answer in answers] == [422] * len(refused)
        assert all(answer.json()["errors"] for answer in answers)

    async def test_a_deleted_model_comes_back_when_its_name_is_free(
        self, api: httpx.AsyncClient
    ) -> None:
        version = await make_version(api)
        path = version.partition("/versions")[0]
        await api.delete(path)
        other = await api.post("models", json=MODEL)

        taken = await api.post(f"{path}/restore")
        await api.delete(f"models/{other.json()['id']}")
        restored = await api.post(f"{path}/restore")

        assert (taken.status_code, taken.json()["code"]) == (409, "model-name-taken")
        assert restored.status_code == 200, restored.text
        assert restored.json() == (await api.get(path)).json()
        assert restored.headers["etag"] == '"3"'
        assert (await api.get(version)).status_code == 200


class TestSharing:
    async def test_only_the_owner_and_managers_say_who_sees_it(
        self, bob: Person, api: httpx.AsyncClient
    ) -> None:
        made = await api.post("models", json=MODEL)
        path = f"models/{made.json()['id']}"

        renamed = await api.put(path, json={"task": "x"}, headers=bob.headers)
        opened = await api.put(path, json={"visibility": "public"}, headers=bob.headers)
        granted = await api.put(f"{path}/grants/{new_id()}", headers=bob.headers)
        hidden = await api.put(path, json={"visibility": "private"})
        seen = await api.get(path, headers=bob.headers)
        listed = await api.get("models", headers=bob.headers)

        assert (renamed.status_code, hidden.status_code, seen.status_code) == (200, 200, 404)
        assert {answer.json()["code"] for answer in (opened, granted)} == {"not-model-owner"}
        assert listed.json()["items"] == []

    @pytest.mark.usefixtures("bob")
    async def test_it_is_handed_only_to_who_is_of_the_tenant_and_may_act(
        self,
        api: httpx.AsyncClient,
        superuser: "asyncpg.Connection[asyncpg.Record]",
    ) -> None:
        made = await api.post("models", json=MODEL)
        path = f"models/{made.json()['id']}"
        bobs_id = await superuser.fetchval("SELECT id::text FROM accounts WHERE username = 'bob'")
        robot = await api.post("admin/service-accounts", json={"name": "ci", "roles": ["user"]})
        assert robot.status_code == 201, robot.text

        async def hand_to(owner: str) -> tuple[int, str]:
            answer = await api.put(path, json={"owner_id": owner})
            return answer.status_code, answer.json().get("code") or answer.json()["owner_id"]

        refused = (409, "owner-not-member")
        assert await hand_to(str(new_id())) == refused
        assert await hand_to(bobs_id) == (200, bobs_id)
        assert await hand_to(robot.json()["id"]) == (200, robot.json()["id"])
        await superuser.execute(
            "UPDATE memberships SET status = 'suspended' WHERE account_id = $1::uuid", bobs_id
        )
        assert await hand_to(bobs_id) == refused
        kept = await api.put(path, json={"owner_id": robot.json()["id"], "task": "x"})
        assert kept.status_code == 200, kept.text

    async def test_grants_are_made_told_and_taken_back(self, api: httpx.AsyncClient) -> None:
        made = await api.post("models", json=MODEL)
        grants = f"models/{made.json()['id']}/grants"
        other = str(new_id())

        answers = [await api.put(f"{grants}/{other}") for _ in range(2)]
        listed = await api.get(grants, params={"include_total": True})
        itself = await api.put(f"{grants}/{made.json()['tenant_id']}")
        revoked = [await api.delete(f"{grants}/{other}") for _ in range(2)]

        assert [answer.status_code for answer in answers] == [201, 200]
        assert answers[0].json() == answers[1].json()
        assert listed.json() == {"items": [answers[0].json()], "next_cursor": None, "total": 1}
        assert answers[0].json()["tenant_id"] == other
        assert (itself.status_code, itself.json()["code"]) == (409, "grant-to-self")
        assert [answer.status_code for answer in revoked] == [204, 404]
        assert (await api.get(grants)).json()["items"] == []

    async def test_a_public_model_of_another_tenant_is_read_and_not_changed(
        self, api: httpx.AsyncClient, superuser: "asyncpg.Connection[asyncpg.Record]"
    ) -> None:
        version = await make_version(api)
        model = version.partition("/versions")[0]
        file = f"{version}/files/a"
        await api.put(file, content=b"content")
        await superuser.execute("SET session_replication_role = replica")
        tenant = new_id()
        for table in ("models", "model_versions", "version_files", "version_transitions"):
            await superuser.execute(f"UPDATE {table} SET tenant_id = $1", tenant)
        reads = (model, f"{model}/versions", version, f"{version}/transitions", file)

        before = [(await api.get(path)).status_code for path in reads]
        await superuser.execute("UPDATE models SET visibility = 'public'")
        after = [(await api.get(path)).status_code for path in reads]
        writes = [
            await api.put(model, json={"task": "mine"}),
            await api.delete(model),
            await api.put(f"{model}/tags/mine"),
            await api.post(f"{model}/versions", json={"version": "2"}),
            await api.put(version, json={"description": "Mine."}),
            await api.delete(version),
            await api.put(file, content=b"x"),
            await api.delete(file),
            await api.get(f"{model}/grants"),
        ]

        assert (set(before), set(after)) == ({404}, {200})
        assert {answer.status_code for answer in writes} == {404}


class TestVersions:
    async def test_lineage_metrics_and_checksum(
        self,
        api: httpx.AsyncClient,
        flush: Flush,
        superuser: "asyncpg.Connection[asyncpg.Record]",
    ) -> None:
        base = await make_version(api)
        model = base.split("/")[1]
        tuned = {"kind": "fine-tuned-from", "model_id": model, "version": "1.0.0"}
        imported = {"kind": "imported-from", "url": "https://example.com/bot"}
        body = {"version": "2", "source": tuned, "metrics": {"f1": 1}, "metadata": {"seed": 7}}

        made = await api.post(f"models/{model}/versions", json=body)
        path = f"models/{model}/versions/2"
        changed = await api.put(path, json={"source": imported, "metrics": {"f1": 0.5}})
        await api.put(f"{path}/files/a", content=b"a")
        ready = await api.post(f"{path}/transition", json={"status": "ready", "reason": "Good."})
        frozen = await api.put(path, json={"source": {"kind": "uploaded"}})
        same = await api.put(path, json={"source": imported, "metadata": {}})
        past = await api.get(f"{path}/transitions")
        await flush()

        assert made.status_code == 201, made.text
        assert (made.json()["source"], made.json()["metrics"]) == (tuned, {"f1": 1.0})
        assert made.json()["checksum"] is None
        assert (changed.json()["source"], changed.json()["metrics"]) == (imported, {"f1": 0.5})
        assert (frozen.status_code, frozen.json()["code"]) == (409, "lineage-frozen")
        assert (same.status_code, same.json()["metadata"]) == (200, {})
        assert same.json()["checksum"] == ready.json()["checksum"]
        assert len(ready.json()["checksum"]) == 64
        steps = [(step["to_status"], step["reason"]) for step in past.json()["items"]]
        assert steps == [("ready", "Good."), ("uploading", None)]
        event = await superuser.fetchval(
            "SELECT payload FROM audit_log WHERE action = 'model_version.transitioned'"
        )
        changes = json.loads(event)["changes"]["after"]
        assert changes["checksum"] == ready.json()["checksum"]

    async def test_what_cannot_be_kept_is_refused(self, api: httpx.AsyncClient) -> None:
        version = await make_version(api)
        nowhere = {"kind": "fine-tuned-from", "model_id": str(new_id()), "version": "1"}
        refused: list[dict[str, object]] = [
            {"source": {"kind": "uploaded", "url": "https://example.com"}},
            {"source": {"kind": "fine-tuned-from", "version": "1"}},
            {"source": {"kind": "imported-from", "url": "file:///etc"}},
            {"source": {"kind": "stolen"}},
            {"metrics": {"f1": "good"}},
            {"metrics": {"f1": True}},
            {"source": nowhere},
        ]

        answers = [await api.put(version, json=said) for said in refused]

        assert [answer.status_code for answer in answers] == [422] * len(refused)
        assert answers[-1].json()["code"] == "source-not-found"
