"""Rules, alerts and webhooks over HTTP: who may, what is shown, and what the trail says of it."""

import asyncio
import base64
import re
import socket
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import httpx
import pytest

from maas.audit.infrastructure import webhooks_sender
from maas.audit.infrastructure.webhooks_sender import LIMITS
from maas.audit.interface.webhooks import VERIFYING
from maas.shared.domain.ids import DEFAULT_TENANT_ID, TenantId, new_id
from maas.shared.infrastructure import outgoing_names
from maas.shared.infrastructure.clock import SystemClock
from maas.shared.infrastructure.outgoing_names import OwnThreadsResolver
from maas.shared.infrastructure.settings import OutgoingSettings, Settings
from tests.integration.audit.conftest import FakeAuthenticator
from tests.integration.audit.helpers import Superuser, Trail
from tests.integration.audit.watching import NOW, Receiver, Watching, is_signed, receiving

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(60),
    pytest.mark.usefixtures("clean"),
]

API = "/api/v1/audit"
OTHER = TenantId(new_id())
PUBLIC_URL = "https://alerts.example.com/hook?x=1"


@pytest.fixture
def authenticator() -> FakeAuthenticator:
    return FakeAuthenticator(permissions=frozenset({"audit:read", "alert:write"}))


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as receiver:
        yield receiver


@pytest.fixture
def settings(settings: Settings, receiver: Receiver) -> Settings:
    outgoing = OutgoingSettings(allowed_webhook_targets=(f"127.0.0.1:{receiver.port}",))
    return settings.model_copy(update={"outgoing": outgoing})


@pytest.fixture
def watching(trail: Trail, settings: Settings, superuser: Superuser) -> Watching:
    return Watching(trail, settings, superuser)


async def make(client: httpx.AsyncClient, url: str, **fields: Any) -> dict[str, Any]:
    answer = await client.post(f"{API}/webhooks", json={"name": "On call", "url": url, **fields})
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


async def last_event(superuser: Superuser) -> dict[str, Any]:
    row = await superuser.fetchval(
        "SELECT convert_from(payload, 'UTF8')::jsonb::text FROM audit_outbox"
        " ORDER BY created_at DESC LIMIT 1"
    )
    return dict(httpx.Response(200, content=row).json())


def documented_check() -> Callable[[str, dict[str, str], bytes], bool]:
    """Run the example of the documentation, as whoever copies it would."""
    found = re.search(r"```python\n(.*?)```", VERIFYING, re.DOTALL)
    assert found is not None
    names: dict[str, Any] = {}
    exec(found[1], names)  # noqa: S102  our own documentation
    check: Callable[[str, dict[str, str], bytes], bool] = names["is_genuine"]
    return check


class TestWebhooks:
    async def test_the_secret_is_shown_once(
        self, client: httpx.AsyncClient, receiver: Receiver, superuser: Superuser
    ) -> None:
        made = await make(client, receiver.url, rules=["new-admin"])

        secret = base64.b64decode(made["secret"].removeprefix("whsec_"))
        assert len(secret) == 32
        read = await client.get(f"{API}/webhooks/{made['id']}")
        listed = await client.get(f"{API}/webhooks")
        assert read.json() == {name: made[name] for name in made if name != "secret"}
        assert listed.json()["items"] == [read.json()]
        texts = [read.text, listed.text]
        for table in ("audit_webhooks", "audit_outbox", "audit_personal", "idempotency_keys"):
            rows = await superuser.fetch(f"SELECT t::text AS row FROM {table} t")
            texts += [row["row"] for row in rows]
        for text in texts:
            assert made["secret"] not in text
            assert secret.hex() not in text

    async def test_a_repeated_request_is_answered_as_the_first_was(
        self, client: httpx.AsyncClient
    ) -> None:
        body, headers = {"name": "w", "url": PUBLIC_URL}, {"Idempotency-Key": "k1"}

        first = await client.post(f"{API}/webhooks", json=body, headers=headers)
        second = await client.post(f"{API}/webhooks", json=body, headers=headers)

        assert first.json() == second.json()
        assert first.headers["Location"] == f"{API}/webhooks/{first.json()['id']}"
        assert len((await client.get(f"{API}/webhooks")).json()["items"]) == 1

    async def test_the_trail_tells_where_to_but_no_path(
        self, client: httpx.AsyncClient, superuser: Superuser
    ) -> None:
        made = await make(client, PUBLIC_URL)

        event = await last_event(superuser)

        assert event["action"] == "audit.webhook_created"
        assert event["resource"] == {"kind": "webhook", "id": made["id"]}
        digest = event["changes"]["after"].pop("url_digest")
        assert re.fullmatch("[0-9a-f]{32}", digest)
        assert event["changes"]["after"] == {
            "name": "On call",
            "rules": [],
            "status": "active",
            "target": "https://alerts.example.com",
        }

    @pytest.mark.parametrize(
        ("url", "told"),
        [
            ("http://alerts.example.com/", "https"),
            ("https://127.0.0.1/", "public"),
            ("https://169.254.169.254/", "public"),
            ("https://a:b@example.com/", "password"),
            ("https://example.com:22/", "ports"),
            ("ftp://example.com/", "https"),
            ("https://bücher.example/", "punycode"),
        ],
    )
    async def test_a_url_that_may_not_be_called_is_refused(
        self, client: httpx.AsyncClient, url: str, told: str
    ) -> None:
        made = await make(client, PUBLIC_URL)
        answers = [
            await client.post(f"{API}/webhooks", json={"name": "w", "url": url}),
            await client.put(f"{API}/webhooks/{made['id']}", json={"url": url}),
        ]

        for answer in answers:
            assert (answer.status_code, answer.json()["code"]) == (422, "invalid-webhook-url")
            assert told in answer.json()["detail"]
            assert url not in answer.text

    async def test_only_what_is_sent_changes(
        self, client: httpx.AsyncClient, superuser: Superuser
    ) -> None:
        made = await make(client, PUBLIC_URL, rules=["new-admin"])
        path = f"{API}/webhooks/{made['id']}"

        changed = await client.put(path, json={"status": "disabled"}, headers={"If-Match": '"1"'})
        again = await client.put(path, json={"name": "x"}, headers={"If-Match": '"1"'})

        assert changed.status_code == 200
        assert changed.headers["ETag"] == '"2"'
        assert changed.json()["rules"] == ["new-admin"]
        assert changed.json()["status"] == "disabled"
        assert again.status_code == 412
        event = await last_event(superuser)
        assert event["changes"] == {"before": {"status": "active"}, "after": {"status": "disabled"}}

    async def test_the_trail_tells_that_a_path_changed(
        self, client: httpx.AsyncClient, superuser: Superuser
    ) -> None:
        made = await make(client, "https://hooks.example.com/services/ours")

        await client.put(
            f"{API}/webhooks/{made['id']}", json={"url": "https://hooks.example.com/services/x"}
        )

        changes = (await last_event(superuser))["changes"]
        assert changes["before"].keys() == changes["after"].keys() == {"url_digest"}
        assert changes["before"] != changes["after"]

    async def test_there_are_twenty_at_most_however_many_ask_at_once(
        self, client: httpx.AsyncClient
    ) -> None:
        for _ in range(17):
            await make(client, PUBLIC_URL)
        body = {"name": "w", "url": PUBLIC_URL}

        answers = await asyncio.gather(
            *(client.post(f"{API}/webhooks", json=body) for _ in range(5))
        )

        assert sorted(answer.status_code for answer in answers) == [201, 201, 201, 409, 409]

    async def test_a_deleted_one_is_gone_with_its_log(
        self, client: httpx.AsyncClient, receiver: Receiver, superuser: Superuser
    ) -> None:
        made = await make(client, receiver.url)
        await client.post(f"{API}/webhooks/{made['id']}/test")

        deleted = await client.delete(f"{API}/webhooks/{made['id']}")

        assert deleted.status_code == 204
        assert (await client.get(f"{API}/webhooks/{made['id']}")).status_code == 404
        assert await superuser.fetchval("SELECT count(*) FROM audit_deliveries") == 0
        assert await superuser.fetchval("SELECT count(*) FROM audit_webhook_queues") == 0

    async def test_another_tenant_sees_and_touches_nothing(
        self, client: httpx.AsyncClient, authenticator: FakeAuthenticator, superuser: Superuser
    ) -> None:
        made = await make(client, PUBLIC_URL)
        path = f"{API}/webhooks/{made['id']}"
        authenticator.tenant_id = OTHER

        answers = [
            await client.get(path),
            await client.put(path, json={"name": "x"}),
            await client.delete(path),
            await client.post(f"{path}/rotate"),
            await client.post(f"{path}/test"),
            await client.get(f"{path}/deliveries"),
        ]

        assert [answer.status_code for answer in answers] == [404] * 6
        assert (await client.get(f"{API}/webhooks")).json()["items"] == []
        assert await superuser.fetchval("SELECT version FROM audit_webhooks") == 1

    async def test_readers_read_and_no_more(
        self, client: httpx.AsyncClient, authenticator: FakeAuthenticator
    ) -> None:
        made = await make(client, PUBLIC_URL)
        path = f"{API}/webhooks/{made['id']}"
        authenticator.permissions = frozenset({"audit:*"})

        refused = [
            await client.post(f"{API}/webhooks", json={"name": "w", "url": PUBLIC_URL}),
            await client.put(path, json={"name": "x"}),
            await client.delete(path),
            await client.post(f"{path}/rotate"),
            await client.post(f"{path}/test"),
            await client.put(f"{API}/rules/new-admin", json={"is_enabled": False}),
        ]

        assert [answer.status_code for answer in refused] == [403] * 6
        for readable in ("webhooks", f"webhooks/{made['id']}", "rules", "alerts"):
            assert (await client.get(f"{API}/{readable}")).status_code == 200

    async def test_who_only_reads_sees_no_path(
        self, client: httpx.AsyncClient, authenticator: FakeAuthenticator
    ) -> None:
        made = await make(client, PUBLIC_URL)
        bare = await make(client, "https://example.com:443/")
        authenticator.permissions = frozenset({"audit:read"})

        one = await client.get(f"{API}/webhooks/{made['id']}")
        listed = (await client.get(f"{API}/webhooks")).json()["items"]

        assert one.json()["url"] == "https://alerts.example.com/***"
        assert [each["url"] for each in listed] == [bare["url"], one.json()["url"]]

    async def test_reading_leaves_an_event(
        self, client: httpx.AsyncClient, trail: Trail, superuser: Superuser
    ) -> None:
        made = await make(client, PUBLIC_URL)

        for path in ("", f"/{made['id']}", f"/{made['id']}/deliveries"):
            assert (await client.get(f"{API}/webhooks{path}")).status_code == 200

        await trail.flush().run()
        rows = await superuser.fetch("SELECT action FROM audit_log ORDER BY seq")
        assert [row["action"] for row in rows].count("audit.read") == 3


class TestTheTestButton:
    async def test_one_at_a_time_for_a_webhook_and_two_for_a_tenant(
        self,
        client: httpx.AsyncClient,
        receiver: Receiver,
        trail: Trail,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        patient = replace(LIMITS, total=timedelta(minutes=1), idle=timedelta(minutes=1))
        monkeypatch.setattr(webhooks_sender, "LIMITS", patient)
        arrived: list[None] = []
        receiver.before, receiver.hold = lambda: arrived.append(None), asyncio.Event()
        paths = [
            f"{API}/webhooks/{(await make(client, receiver.url))['id']}/test" for _ in range(3)
        ]
        running = [asyncio.create_task(client.post(path)) for path in paths[:2]]
        await trail.until(lambda: len(arrived) == len(running), seconds=30)

        refused = [await client.post(path) for path in paths]
        receiver.hold.set()

        assert {answer.status_code for answer in refused} == {429}
        assert {answer.json()["code"] for answer in refused} == {"too-many-webhook-tests"}
        assert [(await each).status_code for each in running] == [200, 200]
        assert (await client.post(paths[2])).json()["is_success"]

    async def test_names_that_hang_refuse_it_for_a_while(
        self, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made = await make(client, PUBLIC_URL)
        slots = threading.BoundedSemaphore(1)
        monkeypatch.setattr(OwnThreadsResolver.__init__, "__defaults__", (slots,))
        assert slots.acquire(blocking=False)

        answer = await client.post(f"{API}/webhooks/{made['id']}/test")

        assert (answer.status_code, answer.json()["code"]) == (503, "webhook-test-unavailable")
        assert answer.headers["Retry-After"] == "60"

    @pytest.mark.parametrize("addresses", [[], ["10.0.0.7"]])
    async def test_it_does_not_tell_which_names_there_are_inside(
        self,
        client: httpx.AsyncClient,
        monkeypatch: pytest.MonkeyPatch,
        addresses: list[str],
    ) -> None:
        def look_up(*_: object) -> list[str]:
            if not addresses:
                raise socket.gaierror
            return addresses

        monkeypatch.setattr(outgoing_names, "_addresses", look_up)
        made = await make(client, "https://vault.corp.example/")

        outcome = (await client.post(f"{API}/webhooks/{made['id']}/test")).json()

        assert outcome["error"] == "no-public-address"
        assert outcome["message"].startswith("The host leads to no address that may be called")

    async def test_a_signed_message_goes_out_now(
        self, client: httpx.AsyncClient, receiver: Receiver
    ) -> None:
        made = await make(client, receiver.url)

        answer = await client.post(f"{API}/webhooks/{made['id']}/test")

        outcome = answer.json()
        assert (outcome["is_success"], outcome["status"], outcome["error"]) == (True, 200, None)
        ((headers, body),) = receiver.got
        assert b'"type":"audit.test"' in body
        assert is_signed(headers, body, base64.b64decode(made["secret"].removeprefix("whsec_")))
        log = await client.get(f"{API}/webhooks/{made['id']}/deliveries")
        (delivery,) = log.json()["items"]
        assert (delivery["id"], delivery["alert_id"]) == (outcome["delivery_id"], None)
        assert delivery["status"] == "delivered"

    async def test_the_documented_check_takes_it_and_nothing_else(
        self, client: httpx.AsyncClient, receiver: Receiver
    ) -> None:
        made, is_genuine = await make(client, receiver.url), documented_check()
        await client.post(f"{API}/webhooks/{made['id']}/test")

        ((sent, body),) = receiver.got
        headers, secret = dict(sent), made["secret"]

        assert is_genuine(secret, headers, body)
        assert not is_genuine("whsec_" + base64.b64encode(bytes(32)).decode(), headers, body)
        assert not is_genuine(secret, headers, body + b" ")
        assert not is_genuine(secret, {**headers, "webhook-id": "msg_x"}, body)
        old = str(int((SystemClock().now() - timedelta(hours=1)).timestamp()))
        assert not is_genuine(secret, {**headers, "webhook-timestamp": old}, body)

    @pytest.mark.parametrize(
        ("status", "told"),
        [(401, "secret"), (404, "URL"), (410, "nothing any more"), (500, "log"), (418, "418")],
    )
    async def test_a_refusal_says_what_to_do(
        self, client: httpx.AsyncClient, receiver: Receiver, status: int, told: str
    ) -> None:
        made = await make(client, receiver.url)
        receiver.status = status

        answer = await client.post(f"{API}/webhooks/{made['id']}/test")

        outcome = answer.json()
        assert (answer.status_code, outcome["is_success"]) == (200, False)
        assert (outcome["status"], outcome["error"]) == (status, "status")
        assert told in outcome["message"]
        assert "canary-of-the-answer" not in answer.text
        # A test turns nothing off.
        assert (await client.get(f"{API}/webhooks/{made['id']}")).json()["status"] == "active"

    async def test_nobody_there_is_told(
        self, client: httpx.AsyncClient, superuser: Superuser
    ) -> None:
        made = await make(client, PUBLIC_URL)
        await superuser.execute("UPDATE audit_webhooks SET url = 'https://localhost/hook'")

        outcome = (await client.post(f"{API}/webhooks/{made['id']}/test")).json()

        assert (outcome["is_success"], outcome["status"]) == (False, None)
        assert outcome["error"] == "no-public-address"
        event = await last_event(superuser)
        assert event["action"] == "audit.webhook_tested"
        assert event["changes"]["after"]["test_error"] == outcome["error"]

    async def test_a_replaced_secret_signs_beside_the_new_one(
        self, client: httpx.AsyncClient, receiver: Receiver, superuser: Superuser
    ) -> None:
        made, is_genuine = await make(client, receiver.url), documented_check()
        path = f"{API}/webhooks/{made['id']}"

        rotated = (await client.post(f"{path}/rotate")).json()
        await client.post(f"{path}/test")
        await superuser.execute(
            "UPDATE audit_webhooks SET previous_until = previous_until - interval '1 day'"
        )
        await client.post(f"{path}/test")

        assert rotated["secret"] != made["secret"]
        genuine = [
            [
                is_genuine(secret, dict(headers), body)
                for secret in (made["secret"], rotated["secret"])
            ]
            for headers, body in receiver.got
        ]
        assert genuine == [[True, True], [False, True]]

    async def test_a_secret_of_another_key_says_so(
        self, client: httpx.AsyncClient, receiver: Receiver, superuser: Superuser
    ) -> None:
        made = await make(client, receiver.url)
        await superuser.execute("UPDATE audit_webhooks SET secret = sha256(secret)")

        outcome = (await client.post(f"{API}/webhooks/{made['id']}/test")).json()

        assert outcome["error"] == "secret-unreadable"
        assert "rotate" in outcome["message"]
        assert (await client.post(f"{API}/webhooks/{made['id']}/rotate")).status_code == 200
        again = (await client.post(f"{API}/webhooks/{made['id']}/test")).json()
        assert again["is_success"]


class TestRules:
    async def test_all_are_listed_as_they_come(self, client: httpx.AsyncClient) -> None:
        items = (await client.get(f"{API}/rules")).json()["items"]

        assert {item["name"]: item["is_enabled"] for item in items} == {
            "budget-reached": True,
            "failed-login-burst": True,
            "many-addresses": True,
            "mass-deletion": True,
            "new-admin": True,
            "night-activity": False,
            "unreadable-secret": True,
        }
        parameters = {item["name"]: item["parameters"] for item in items}
        assert parameters["failed-login-burst"] == {"failures": 5, "minutes": 60}
        assert parameters["budget-reached"] == {"percent": 80}

    async def test_only_what_is_sent_changes(
        self, client: httpx.AsyncClient, superuser: Superuser, authenticator: FakeAuthenticator
    ) -> None:
        path = f"{API}/rules/failed-login-burst"

        first = await client.put(path, json={"parameters": {"failures": 3}})
        second = await client.put(
            path, json={"is_enabled": False}, headers={"If-Match": first.headers["ETag"]}
        )
        stale = await client.put(path, json={}, headers={"If-Match": '"0"'})

        assert first.json()["parameters"] == {"failures": 3, "minutes": 60}
        assert (first.json()["version"], first.json()["is_enabled"]) == (1, True)
        assert second.json()["parameters"] == {"failures": 3, "minutes": 60}
        assert (second.json()["version"], second.json()["is_enabled"]) == (2, False)
        assert stale.status_code == 412
        assert (await client.get(path)).json() == second.json()
        event = await last_event(superuser)
        assert (event["action"], event["resource"]["id"]) == (
            "audit.rule_updated",
            "failed-login-burst",
        )
        assert event["changes"] == {
            "before": {"is_enabled": True},
            "after": {"is_enabled": False},
        }
        authenticator.tenant_id = OTHER
        assert (await client.get(path)).json()["version"] == 0

    @pytest.mark.parametrize(
        ("rule", "parameters", "code"),
        [
            ("failed-login-burst", {"failures": 1}, "invalid-rule-parameter"),
            ("failed-login-burst", {"hours": 1}, "invalid-rule-parameter"),
            ("night-activity", {"time_zone": "Mars/Olympus"}, "invalid-rule-parameter"),
            ("night-activity", {"since": "06:00"}, "invalid-rule-parameter"),
            ("new-admin", {"roles": ["a\u202eb"]}, "invalid-rule-parameter"),
            ("new-admin", {"roles": []}, "validation-failed"),
            ("mass-deletion", {"deletions": 10_001}, "invalid-rule-parameter"),
            ("mass-deletion", {"deletions": None}, "validation-failed"),
            ("mass-deletion", {"odd": 1}, "validation-failed"),
        ],
    )
    async def test_what_makes_no_sense_is_refused(
        self, client: httpx.AsyncClient, rule: str, parameters: dict[str, Any], code: str
    ) -> None:
        answer = await client.put(f"{API}/rules/{rule}", json={"parameters": parameters})

        assert (answer.status_code, answer.json()["code"]) == (422, code)

    async def test_nights_are_by_the_tenants_clocks(self, client: httpx.AsyncClient) -> None:
        answer = await client.put(
            f"{API}/rules/night-activity",
            json={"is_enabled": True, "parameters": {"time_zone": "Asia/Shanghai"}},
        )

        assert answer.json()["parameters"] == {
            "time_zone": "Asia/Shanghai",
            "since": "22:00",
            "until": "06:00",
        }


class TestAlerts:
    @pytest.fixture
    async def alerts(self, watching: Watching, trail: Trail) -> list[str]:
        for tenant_id in (DEFAULT_TENANT_ID, OTHER):
            for index in range(3):
                watching.clock.move(timedelta(minutes=1))
                event = trail.make(
                    "user.roles_changed",
                    tenant_id=tenant_id,
                    resource_kind="account",
                    resource_id=f"a{index}",
                    after={"roles": ["admin"]},
                    at=NOW,
                )
                await watching.log(event)
                await watching.watch()
        return [str(row["id"]) for row in await watching.alerts()]

    async def test_they_are_listed_newest_first_page_by_page(
        self, client: httpx.AsyncClient, alerts: list[str]
    ) -> None:
        first = (await client.get(f"{API}/alerts?limit=2&include_total=true")).json()
        second = (await client.get(f"{API}/alerts?cursor={first['next_cursor']}")).json()

        items = first["items"] + second["items"]
        assert [item["id"] for item in items] == list(reversed(alerts[:3]))
        assert (first["total"], second["next_cursor"]) == (3, None)
        assert items[0]["subject"] == {"kind": "account", "id": "a2"}
        logged = await client.get(f"{API}/logs/{items[0]['event_ids'][0]}")
        assert logged.json()["resource"]["id"] == "a2"

    @pytest.mark.parametrize(
        ("query", "count"),
        [
            ("rule=new-admin", 3),
            ("rule=mass-deletion", 0),
            ("since=2026-11-20T12:02:00Z", 2),
            ("until=2026-11-20T12:02:00Z", 1),
            ("since=2026-11-20T12:02:00Z&until=2026-11-20T12:03:00Z", 1),
        ],
    )
    @pytest.mark.usefixtures("alerts")
    async def test_filters(self, client: httpx.AsyncClient, query: str, count: int) -> None:
        assert len((await client.get(f"{API}/alerts?{query}")).json()["items"]) == count

    async def test_the_log_of_deliveries_tells_what_waits(
        self, client: httpx.AsyncClient, receiver: Receiver, watching: Watching, trail: Trail
    ) -> None:
        made = await make(client, receiver.url)
        await watching.log(
            trail.make("admin.created", resource_id="x", after={"roles": ["admin"]}, at=NOW)
        )
        watching.clock.move(SystemClock().now() - watching.clock.now())
        await watching.watch()
        receiver.status = 503
        await watching.deliver(receiver)

        log = await client.get(f"{API}/webhooks/{made['id']}/deliveries?status=pending")
        webhook = (await client.get(f"{API}/webhooks/{made['id']}")).json()

        (delivery,) = log.json()["items"]
        assert (delivery["rule"], delivery["attempts"]) == ("new-admin", 1)
        assert (delivery["last_status"], delivery["last_error"]) == (503, "status")
        assert delivery["next_attempt_at"] == webhook["next_attempt_at"] is not None
        assert (webhook["failures"], webhook["pending"]) == (1, 1)
        await client.put(f"{API}/webhooks/{made['id']}", json={"name": "again"})
        receiver.status = 200
        watching.clock.move(timedelta(seconds=1))
        assert await watching.deliver(receiver) == 1
