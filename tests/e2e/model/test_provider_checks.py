"""Suppliers that are asked: tests with each outcome, and what they list, over the wire."""

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from maas.shared.infrastructure.settings import Settings, SupplierSettings
from maas.worker_services import check_providers
from tests.conftest import MakeSettings
from tests.e2e.conftest import Flush, Person
from tests.upstream.certificates import VARIANTS, Authority
from tests.upstream.desk import Desk
from tests.upstream.scripts import Script
from tests.upstream.server import Upstream, serving

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(60)]

KEY = "sk-canary-0123456789abcdef"


class Supplier:
    """The scripted upstream, at ports the operator lists, plain and with each certificate."""

    def __init__(self, ports: dict[str, int], ca_file: Path) -> None:
        self.desk = Desk(keys=frozenset({KEY}))
        self.ports = ports
        self.ca_file = ca_file

    def url(self, script: str | None = None, *, tls: str | None = None) -> str:
        under = "" if script is None else f"/as/{script}"
        scheme = "http" if tls is None else "https"
        return f"{scheme}://127.0.0.1:{self.ports[tls or 'plain']}{under}/v1"


@pytest.fixture
async def supplier(tmp_path: Path) -> AsyncIterator[Supplier]:
    authority = Authority.make()
    made = Supplier({}, authority.write(tmp_path / "company-ca.pem"))
    upstream = Upstream(made.desk)
    async with serving(upstream) as made.ports["plain"]:
        listening = [serving(upstream, tls=authority.context(variant)) for variant in VARIANTS]
        for variant, each in zip(VARIANTS, listening, strict=True):
            made.ports[variant] = await each.__aenter__()
        yield made
        for each in listening:
            await each.__aexit__(None, None, None)


@pytest.fixture
def settings(make_settings: MakeSettings, supplier: Supplier) -> Settings:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        supplier.ports["closed"] = unused.getsockname()[1]
    targets = [f"127.0.0.1:{port}" for port in supplier.ports.values()]
    return make_settings(
        outgoing={
            "allowed_private_targets": (*targets, "nowhere.invalid:443"),
            "ca_file": str(supplier.ca_file),
        }
    )


@pytest.fixture
async def root(
    operator: Person,
    otto: Person,
    api: httpx.AsyncClient,
) -> httpx.AsyncClient:
    """Call as the operator, who may connect what lies at private targets."""
    api.headers.update(operator.headers)
    return api


async def connect(
    root: httpx.AsyncClient, url: str, *, key: str | None = KEY, kind: str = "openai-compatible"
) -> str:
    """Connect a supplier, and tell its path."""
    made = await root.post("providers", json={"name": url, "type": kind, "base_url": url})
    assert made.status_code == 201, made.text
    path = f"providers/{made.json()['id']}"
    if key is not None:
        put = await root.put(f"{path}/credential", json={"api_key": key}, headers={"If-Match": "*"})
        assert put.status_code == 200, put.text
    return path


async def outcome_of(root: httpx.AsyncClient, path: str, **body: str) -> tuple[str, int | None]:
    answer = await root.post(f"{path}/test", json=body)
    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert KEY not in answer.text
    assert KEY[-6:] not in answer.text
    assert told["message"]
    assert told["advice"]
    return told["outcome"], told["status"]


async def test_a_supplier_that_answers_is_told_apart_from_each_fault(
    root: httpx.AsyncClient, supplier: Supplier
) -> None:
    expected = {
        "honest": ("ok", 200),
        "knows-more-fields": ("ok", 200),
        "mistakes-its-type": ("ok", 200),
        "says-401-and-the-key": ("credential-refused", 401),
        "says-402": ("credit-used-up", 402),
        "says-429-quota": ("credit-used-up", 429),
        "says-403": ("not-permitted", 403),
        "says-404": ("address-wrong", 404),
        "says-html": ("address-wrong", 200),
        "says-html-404": ("address-wrong", 404),
        "says-invalid-json": ("address-wrong", 200),
        "says-other-json": ("address-wrong", 200),
        "says-nothing": ("address-wrong", 200),
        "says-429": ("rate-limited", 429),
        "says-500": ("supplier-failed", 500),
        "says-529": ("supplier-failed", 529),
        "redirects": ("redirected", 307),
        "says-too-much": ("answer-too-large", None),
        "says-too-much-404": ("address-wrong", 404),
        "speaks-no-http": ("answer-odd", None),
        "hangs-up": ("answer-odd", None),
        "breaks-off": ("answer-odd", None),
    }

    found = {
        script: await outcome_of(root, await connect(root, supplier.url(script)))
        for script in expected
    }

    assert found == expected


async def test_what_hinders_the_connection_is_told(
    root: httpx.AsyncClient, supplier: Supplier
) -> None:
    closed = supplier.url(tls="closed")
    expected = {
        supplier.url(tls="good"): "ok",
        supplier.url(tls="unknown"): "certificate-refused",
        supplier.url(tls="expired"): "certificate-refused",
        supplier.url(tls="wrong-host"): "certificate-refused",
        supplier.url(tls="plain"): "tls-failed",
        closed: "connection-refused",
        "https://nowhere.invalid/v1": "name-unresolved",
    }

    found = {url: (await outcome_of(root, await connect(root, url)))[0] for url in expected}

    assert found == expected


async def test_a_tenant_learns_no_more_of_names_inside_than_of_those_that_are_none(
    api: httpx.AsyncClient,
) -> None:
    answers = [
        (await api.post(f"{await connect(api, url)}/test", json={})).json()
        for url in ("https://localhost/v1", "https://no-such-host.invalid/v1")
    ]

    for each in answers:
        del each["duration_ms"]
    assert answers[0] == answers[1]
    assert answers[0]["outcome"] == "no-public-address"


async def test_a_redirect_is_named_by_its_host_alone(
    root: httpx.AsyncClient, supplier: Supplier
) -> None:
    path = await connect(root, supplier.url("redirects"))

    told = (await root.post(f"{path}/test", json={})).json()

    assert "elsewhere.test" in told["message"]
    assert "secret" not in told["message"]


@pytest.mark.parametrize(
    ("kind", "base"), [("openai", "/v1"), ("anthropic", ""), ("azure", "/openai/v1")]
)
async def test_each_kind_sends_its_key_as_it_wants_it(
    root: httpx.AsyncClient, supplier: Supplier, kind: str, base: str
) -> None:
    url = supplier.url().removesuffix("/v1") + base
    keyed = await connect(root, url, kind=kind)
    wrong = await root.put(
        f"{keyed}/credential", json={"api_key": "sk-of-somebody-else"}, headers={"If-Match": "*"}
    )
    refused = await outcome_of(root, keyed)
    await root.put(f"{keyed}/credential", json={"api_key": KEY}, headers={"If-Match": "*"})
    accepted = await outcome_of(root, keyed)
    await root.delete(f"{keyed}/credential")
    calls = len(supplier.desk.ledger.calls)
    missing = await outcome_of(root, keyed)

    assert wrong.status_code == 200
    assert (refused, accepted) == (("credential-refused", 401), ("ok", 200))
    assert missing == ("credential-missing", None)
    assert len(supplier.desk.ledger.calls) == calls, "without a key nobody is asked"


async def test_a_key_is_checked_apart_where_the_list_is_public(
    root: httpx.AsyncClient, supplier: Supplier
) -> None:
    path = await connect(root, supplier.url(), kind="openrouter")

    assert await outcome_of(root, path) == ("ok", 200)
    assert [call.path for call in supplier.desk.ledger.calls] == ["/v1/key", "/v1/models"]


async def test_a_model_is_looked_for_in_the_list_and_else_called_once(
    root: httpx.AsyncClient, supplier: Supplier
) -> None:
    path = await connect(root, supplier.url())
    vectors = {"name": "says-500", "capabilities": ["embeddings"]}
    assert (await root.post(f"{path}/models", json=vectors)).status_code == 201
    expected = {
        "gpt-4o-mini": ("ok", 200),
        "no-such-model": ("model-unknown", 404),
        "knows-more-fields": ("ok", 200),
        "says-500": ("supplier-failed", 500),
        "says-401": ("credential-refused", 401),
    }

    found = {model: await outcome_of(root, path, model=model) for model in expected}

    assert found == expected
    called = [call for call in supplier.desk.ledger.calls if call.method == "POST"]
    assert {call.model: call.path for call in called} == {
        "no-such-model": "/v1/chat/completions",
        "knows-more-fields": "/v1/chat/completions",
        "says-500": "/v1/embeddings",
        "says-401": "/v1/chat/completions",
    }


async def test_what_a_supplier_has_is_listed_with_what_is_added_here(
    root: httpx.AsyncClient, supplier: Supplier
) -> None:
    path = await connect(root, supplier.url())
    added = (await root.post(f"{path}/models", json={"name": "gpt-4o"})).json()
    found = (await root.get(f"{path}/discovery")).json()["items"]
    broken = await root.get(f"{await connect(root, supplier.url('says-403'))}/discovery")

    assert {each["name"]: each["model_id"] for each in found} == {
        "claude-upstream": None,
        "gpt-4o": added["id"],
        "gpt-4o-mini": None,
        "text-embedding-3-small": None,
    }
    assert (broken.status_code, broken.json()["code"]) == (409, "discovery-failed")
    assert broken.json()["outcome"] == "not-permitted"


async def test_one_test_of_a_supplier_runs_at_a_time(
    root: httpx.AsyncClient, supplier: Supplier
) -> None:
    supplier.desk.scripts.put("slow", Script(head_delay=0.3))
    path = await connect(root, supplier.url("slow"))

    answers = await asyncio.gather(*(root.post(f"{path}/test", json={}) for _ in range(3)))
    again = await root.post(f"{path}/test", json={})

    assert sorted(answer.status_code for answer in answers) == [200, 429, 429]
    assert again.status_code == 200


async def test_a_test_leaves_its_outcome_and_nobody_else_tests(
    root: httpx.AsyncClient,
    supplier: Supplier,
    other: tuple[str, dict[str, str]],
    flush: Flush,
) -> None:
    tenant, headers = other
    path = await connect(root, supplier.url("says-402"))
    assert (await root.put(f"{path}/grants/{tenant}")).is_success
    await outcome_of(root, path)

    seen = await root.get(path, headers=headers)
    tested = await root.post(f"{path}/test", json={}, headers=headers)
    discovered = await root.get(f"{path}/discovery", headers=headers)
    await flush()
    events = (await root.get("audit/logs", params={"action": "provider.tested"})).json()["items"]

    assert seen.status_code == 200
    assert (tested.status_code, discovered.status_code) == (404, 404)
    assert [event["changes"]["after"] for event in events] == [{"outcome": "credit-used-up"}]


async def test_the_watch_tells_when_a_supplier_fails_and_when_it_is_back(
    root: httpx.AsyncClient,
    supplier: Supplier,
    settings: Settings,
    other: tuple[str, dict[str, str]],
    flush: Flush,
) -> None:
    tenant, headers = other
    path = await connect(root, supplier.url("moody"))
    assert (await root.put(f"{path}/grants/{tenant}")).is_success
    settings = settings.model_copy(update={"suppliers": SupplierSettings(check_seconds=0)})
    seen = [(await root.get(path)).json()["health"]]
    for status in (None, 500, 500, 500, 429, None):
        supplier.desk.scripts.put("moody", Script(status=status))
        assert await check_providers(settings) == 1
        seen.append((await root.get(path)).json()["health"])
    granted = (await root.get(path, headers=headers)).json()["health"]
    disabled = await root.put(path, json={"status": "disabled"}, headers={"If-Match": "*"})
    idle = await check_providers(settings)
    await flush()
    logs = (await root.get("audit/logs", params={"resource_kind": "provider"})).json()["items"]

    assert [each["status"] for each in seen] == [
        "unknown", "healthy", "healthy", "healthy", "unhealthy", "unhealthy", "healthy",
    ]  # fmt: skip
    assert [each["outcome"] for each in seen[:2]] == [None, "ok"]
    assert seen[2]["since"] == seen[1]["since"] != seen[4]["since"] == seen[5]["since"]
    assert granted["status"] == "healthy"
    assert (granted["outcome"], granted["duration_ms"]) == (None, None)
    assert disabled.json()["health"] == seen[-1]
    assert idle == 0
    told = [each["action"] for each in logs if each["actor"]["kind"] == "system"]
    assert sorted(told) == ["provider.recovered", "provider.unhealthy"]
